"""Arrays in ``.npz`` files, checked as they are read; large ones may be left in the file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bcgan_tf.files import DamagedFile
from bcgan_tf.lazy_images import LazyImages, file_images, in_chunks

_ZIP_END = 22  # bytes of a zip file's last record, which holds the number of its entries
_NAME_LENGTH = 26  # where an entry's header has the lengths of its name and of what follows it


def read_arrays(path: Path, lazy: str = "") -> dict[str, Any]:
    """All arrays of an ``.npz`` file, each checked against its checksum.

    Args:
        path: of the file.
        lazy: name of an array that is left in the file, as :class:`LazyImages`, unless it is
            compressed.

    Raises:
        DamagedFile: the file is gone, damaged, or something else.
    """
    if not path.is_file():  # to open a pipe would wait for ever
        raise DamagedFile(f"{path} is gone or no file")
    try:
        with path.open("rb") as stream:
            stream.seek(-_ZIP_END, os.SEEK_END)
            end = stream.read()
        with np.load(path, allow_pickle=False) as arrays:
            # zipfile does not check the number of its entries: a missing array would be no error.
            if int.from_bytes(end[10:12], "little") != len(arrays.files):
                raise ValueError("another number of arrays than was written")
            found = {name: arrays[name] for name in arrays.files if name != lazy}
        return found | ({lazy: _left_in_file(path, lazy)} if lazy else {})
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise DamagedFile(f"{path} is damaged or gone ({type(error).__name__})") from error


def _left_in_file(path: Path, name: str) -> Any:
    """An array of an ``.npz`` file, which is read once for its checksum; raises what goes wrong."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as file:
            if entry.compress_type != zipfile.ZIP_STORED:
                return np.lib.format.read_array(file, allow_pickle=False)
            while file.read(1 << 24):
                pass
        stream.seek(entry.header_offset + _NAME_LENGTH)
        lengths = [int.from_bytes(stream.read(2), "little") for _ in range(2)]
        stream.seek(sum(lengths), os.SEEK_CUR)
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return file_images(path, shape, dtype, stream.tell())


def write_arrays(stream: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Writes an ``.npz`` file that NumPy alone can read.

    Args:
        stream: of the file.
        arrays: by name. :class:`LazyImages` are written part by part and not compressed, so that
            :func:`read_arrays` can leave them in the file; the others are compressed.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            lazy = isinstance(array, LazyImages)
            entry.compress_type = zipfile.ZIP_STORED if lazy else zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                if not lazy:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
                    continue
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for part in in_chunks(array):
                    file.write(part.data)
