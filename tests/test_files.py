"""Names and paths that come from users and from files; files that are whole or not there."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    DiskFull,
    check_name,
    path_within,
    replace_file,
    replacing,
)


@pytest.mark.parametrize("name", ["mnist", "pgd-at", "v1.2", "a_b", "1a", "2-1"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name(name, "the model") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "12", "a b", "a\n", "é", "a\0"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name the model"):
        check_name(name, "the model")


def test_paths_stay_under_their_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert path_within(tmp_path / "root", "a/b") == tmp_path / "root" / "a" / "b"
    for out in ("../x", "/etc/passwd", "a/../../x", "link/x", ".."):
        with pytest.raises(UserError, match="lies outside"):
            path_within(tmp_path / "root", out)


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"a cannot be written \(File too large\)"):
            replace_file(tmp_path / "a", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [item.name for item in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Can't decrement id (file write failed: errno = 28, ... 'No space left')"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_a_full_disk_or_an_interrupt_leaves_nothing_half_written(
    tmp_path: Path, error: BaseException
) -> None:
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DiskFull
    with pytest.raises(expected) as caught, replacing(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "weights").write_bytes(b"half")
        raise error
    assert not list(tmp_path.iterdir())
    if expected is DiskFull:
        assert f"make room on the disk of {tmp_path}" in str(caught.value)
