"""Atomic files, checksums, and locks of folders.

Everything is written under another name, flushed to the disk, then renamed (:func:`replacing`): a
kill or a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from bcgan_tf.errors import UserError

# Names of files: being written; the second copy of a JSON file; the checksums of a folder.
PARTIAL_PREFIX = ".partial-"
COPY_PREFIX = ".copy-"
SEAL = "sha256.json"
LOCK = ".lock"
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_FULL_TEXT = re.compile(r"no space left|quota exceeded|not enough space|errno = (28|122)\b", re.I)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def check_name(name: str, what: str) -> str:
    """Returns a name that files and folders may carry.

    Args:
        name: ASCII letters, digits, dots, dashes and underscores; not digits or dots alone.
        what: it names, such as ``"the served model"``; for the message.

    Raises:
        UserError: it is no such name.
    """
    if not _NAME.fullmatch(name) or name.isdigit() or not name.strip("."):
        raise UserError(
            f"{name!r} cannot name {what}; use letters, digits, dots, dashes and underscores, "
            "not digits or dots alone"
        )
    return name


def path_within(root: str | os.PathLike[str], relative: str | os.PathLike[str]) -> Path:
    """The path that a file under ``root`` names, links followed; it must not lead out of ``root``.

    Args:
        root: a folder.
        relative: what was read from a file in it, such as ``"checkpoints/harden"``.

    Raises:
        UserError: an absolute path, or one that ends outside ``root``.
    """
    folder = Path(root).resolve()
    target = Path(root, relative)
    if Path(relative).is_absolute() or not target.resolve().is_relative_to(folder):
        raise UserError(f"{root} names {relative}, which lies outside it; do not trust that folder")
    return target


class DiskFull(UserError):
    """There is no room to write; what was finished before is kept."""


class DamagedFile(UserError):
    """A file is gone, cut short, or holds other bytes than were written."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write a file or a folder to, and renames it to ``path``.

    When the ``with`` ends, the content is on the disk under its name. After an error or an
    interruption ``path`` is unchanged and the temporary path is removed. A folder cannot replace
    a folder.

    Raises:
        DiskFull: no room was left.
        UserError: it cannot be written for another reason.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    try:
        remove(partial)  # of a kill
        yield partial
        move_into_place(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(partial)
        if disk_full(error):
            raise DiskFull(
                f"{path} cannot be written (No space left on device); make room on the disk of "
                f"{path.parent}, and run the same command again: what was finished before is kept"
            ) from error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise UserError(
                f"{path} cannot be written ({reason}); choose another folder"
            ) from error
        raise


def move_into_place(partial: Path, path: Path) -> Path:
    """Renames a file or folder once all that is in it is on the disk."""
    for item in (*partial.rglob("*"), partial):
        _to_disk(item)
    partial.replace(path)
    _to_disk(path.parent)  # the rename itself must survive a power cut too
    return path


def _to_disk(path: Path) -> None:
    if path.is_dir():
        if os.name != "posix":
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means that the disk is full."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or _FULL_TEXT.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def replace_file(path: Path, content: bytes) -> Path:
    """Writes a file that is either the old one or the new one; see :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Writes a JSON file that is either the old one or the new one, never half of it.

    NumPy numbers and arrays, paths and tuples are converted; NaN and infinities become null.
    """
    return replace_file(path, _json_bytes(content))


def _json_bytes(content: Any) -> bytes:
    text = json.dumps(as_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DamagedFile: the file is gone, cut short or no JSON object.
    """
    advice = "start a new run in another folder"
    if not path.is_file():  # to open a pipe would wait for ever
        raise DamagedFile(f"{path} is gone or no file; {advice}")
    try:
        content = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is cut short or no JSON ({error}); {advice}") from None
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} holds no JSON object; {advice}")
    return content


def keep_json(path: Path, content: Any) -> Path:
    """Writes a JSON file and a copy, so that damage to either is noticed and repaired.

    The copy, ``.copy-NAME`` beside it, begins with a line with the SHA-256 of the rest. It is
    written first, and is the one that is read unless it is damaged.
    """
    text = _json_bytes(content)
    digest = hashlib.sha256(text).hexdigest()
    replace_file(_copy_of(path), f"{digest}\n".encode() + text)
    return replace_file(path, text)


def kept_json(path: Path) -> dict[str, Any] | None:
    """Reads what :func:`keep_json` wrote; a line on stderr says if one of the files is damaged.

    Without the copy the file is read as it is.

    Returns:
        None: there is neither.

    Raises:
        DamagedFile: the file is damaged, and its copy is damaged or missing.
    """
    copy = _copy_of(path)
    if not copy.is_file():
        return read_json(path) if path.exists() else None
    digest, _, text = copy.read_bytes().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        note(f"{copy} is damaged; {path.name} is taken")
        return read_json(path)
    if not path.is_file() or path.read_bytes() != text:
        note(f"{path} is damaged or gone; its copy {copy.name} is taken")
    return json.loads(text)


def mend_json(path: Path) -> None:
    """Rewrites a JSON file and its copy if one of them is damaged or gone."""
    content = kept_json(path)
    text = _json_bytes(content)
    copy = _copy_of(path)
    if content is not None and not (
        path.is_file()
        and path.read_bytes() == text
        and copy.is_file()
        and copy.read_bytes().endswith(b"\n" + text)
    ):
        keep_json(path, content)


def _copy_of(path: Path) -> Path:
    return path.with_name(f"{COPY_PREFIX}{path.name}")


def seal(folder: Path) -> None:
    """Writes the SHA-256 of each file in a folder into it, for :func:`check_seal`."""
    write_json(folder / SEAL, {item.name: file_digest(item) for item in sorted(folder.iterdir())})


def check_seal(folder: Path, *names: str) -> None:
    """Checks the files of a folder, or those that are named, against its :func:`seal`.

    Raises:
        DamagedFile: a file is gone or holds other bytes, or the seal itself is damaged.
    """
    for name, digest in read_json(folder / SEAL).items():
        if names and name not in names:
            continue
        if Path(name).name != name or not is_whole(folder / name, digest):
            raise DamagedFile(f"{folder / name} is damaged or gone")


def is_whole(file: Path, digest: str) -> bool:
    """Whether a file is there with this SHA-256."""
    return file.is_file() and file_digest(file) == digest


@functools.lru_cache(maxsize=256)
def note(line: str) -> None:
    """Prints a line on stderr, once per process."""
    print(line, file=sys.stderr, flush=True)


def as_json(value: Any) -> Any:
    """The value in plain JSON types.

    Raises:
        TypeError: something in it has no JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


class FolderInUse(UserError):
    """Another process holds a folder's lock."""


def lock_folder(folder: Path) -> BaseFileLock:
    """Locks a folder for this process, until ``release()`` is called or the process ends.

    The lock file, ``.lock``, stays behind: removing it would let two processes in.

    Raises:
        FolderInUse: another process holds the lock.
        UserError: there can be no lock, as in a folder that cannot be written.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"another process is writing {folder}; wait until it ends, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{folder} cannot be locked ({error}); choose a folder that can be written"
        ) from error
    return lock


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def readable_size(count: float) -> str:
    """A number of bytes in the unit that suits it: ``"3.0 GiB"``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
