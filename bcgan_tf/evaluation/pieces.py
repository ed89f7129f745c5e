"""What an evaluation has finished, on disk: a kill costs one piece, and other settings are refused.

A piece is one attack on one chunk of the images. Each is a file of its own, written beside its name
and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.attacks.attack import Attack, AttackResult
from bcgan_tf.errors import UserError
from bcgan_tf.files import FolderLock, as_json, read_json, replace_file, write_json

_SETTINGS = "settings.json"
_ARRAYS = ("clean_correct", "attacked", "success", "linf", "l2")
_BROKEN_FILE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError)


class Pieces:
    """The finished pieces of one evaluation, in a folder.

    Args:
        folder: made when it is missing; None keeps nothing.
        settings: all that a piece depends on, JSON-able.

    Raises:
        UserError: the folder holds pieces of an evaluation with other settings, or another
            process is at work in it.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._lock: FolderLock | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder / ".lock")
        try:
            self._check(folder, as_json(settings))
        except BaseException:
            self.close()
            raise

    def _check(self, folder: Path, settings: dict[str, Any]) -> None:
        file = folder / _SETTINGS
        if not file.exists():
            write_json(file, settings)
            return
        saved = read_json(file)
        differing = [
            f"{key} ({json.dumps(saved.get(key))[:60]} there, {json.dumps(settings.get(key))[:60]} "
            "now)"
            for key in {**saved, **settings}
            if saved.get(key) != settings.get(key)
        ]
        if differing:
            raise UserError(
                f"{folder} holds an evaluation with other settings: {'; '.join(differing)}; "
                "use the same ones, or another folder for the state"
            )

    def load(
        self, name: str, attack: Attack, images: np.ndarray
    ) -> tuple[AttackResult, float] | None:
        """A finished piece and its seconds; None if it is still to be done.

        Raises:
            UserError: its file is damaged.
        """
        if self.folder is None or not (file := self._file(name)).exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                adversarials = images.copy()
                adversarials[arrays["changed"]] = arrays["adversarials"]
                found = {key: arrays[key] for key in _ARRAYS}
                seconds = float(arrays["seconds"])
        except _BROKEN_FILE as error:
            raise UserError(
                f"{file} is damaged or cut short ({type(error).__name__}); delete it to have that "
                "part of the evaluation done again"
            ) from error
        return AttackResult(
            attack=attack.name, config=attack.config(), adversarials=adversarials, **found
        ), seconds

    def save(self, name: str, result: AttackResult, images: np.ndarray, seconds: float) -> None:
        """Keeps a finished piece; a disk that is full leaves those before it whole."""
        if self.folder is None:
            return
        differing = (result.adversarials != images).reshape(result.n, -1).any(axis=1)
        changed = np.flatnonzero(differing)
        content = io.BytesIO()
        np.savez_compressed(
            content,
            changed=changed,
            adversarials=result.adversarials[changed],
            seconds=np.float64(seconds),
            **{key: getattr(result, key) for key in _ARRAYS},
        )
        try:
            replace_file(self._file(name), content.getvalue())
        except OSError as error:
            with contextlib.suppress(OSError):
                for partial in self.folder.glob(".*.partial"):
                    partial.unlink()
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); what was finished before is "
                "kept: make room, and run the same command again"
            ) from error

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npz"

    def close(self) -> None:
        """Lets another process work in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
