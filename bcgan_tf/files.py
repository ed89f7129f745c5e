"""Files that a kill cannot halve, and a lock that a kill releases."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError

PARTIAL_SUFFIX = ".partial"
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


def write_json(path: Path, content: Any) -> Path:
    """Writes a JSON file that is either the old one or the new one, never half of it.

    NumPy numbers and arrays, paths and tuples are converted; NaN and infinities become null.
    """
    text = json.dumps(as_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    return replace_file(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is cut short or is no JSON object.
    """
    advice = "start a new run in another folder"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is cut short or no JSON ({error}); {advice}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; {advice}")
    return content


def replace_file(path: Path, content: bytes) -> Path:
    """Writes beside ``path``, flushes to the disk, and renames."""
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    if os.name == "posix":  # the rename itself must survive a power cut too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


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


class FolderLock:
    """One process at a time: an advisory lock that the system drops when its process ends.

    Args:
        file: the lock file; it is made, and left behind (removing it would let two in).

    Raises:
        FolderInUse: another process holds it.
    """

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._handle)
        except OSError:
            os.close(self._handle)
            raise FolderInUse(
                f"another process is writing {file.parent}; "
                "wait until it ends, or choose another folder for the run"
            ) from None

    def release(self) -> None:
        """Lets the next process in; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.release()


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def readable_size(count: float) -> str:
    """A number of bytes in the unit that suits it: ``"3.0 GiB"``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
