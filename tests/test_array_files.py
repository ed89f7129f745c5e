"""Arrays in files: whole, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcgan_tf.array_files import read_arrays
from bcgan_tf.files import DamagedFile


def test_every_damage_of_arrays_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, images=np.arange(50.0), labels=np.arange(5))
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        try:
            found = read_arrays(file)
        except DamagedFile:
            continue
        # What is not noticed is beside the arrays: a date, an attribute.
        np.testing.assert_array_equal(found["images"], np.arange(50.0))
        np.testing.assert_array_equal(found["labels"], np.arange(5))
    for content in (b"", whole[:100], bytes(len(whole)), b"\x93NUMPY"):
        file.write_bytes(content)
        with pytest.raises(DamagedFile):
            read_arrays(file)
