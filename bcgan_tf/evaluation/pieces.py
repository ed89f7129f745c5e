"""What an evaluation has finished, on disk: a kill costs one piece, and other settings are refused.

A piece is one attack on one chunk of the images. Each is a file of its own, written beside its name
and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock

from bcgan_tf.attacks.attack import Attack, AttackResult
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import fingerprints
from bcgan_tf.files import (
    DamagedFile,
    as_json,
    keep_json,
    kept_json,
    lock_folder,
    note,
    read_arrays,
    replacing,
)

_SETTINGS = "settings.json"
_ARRAYS = ("clean_correct", "attacked", "success", "linf", "l2")


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
        self._lock: BaseFileLock | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        try:
            self._check(folder, as_json(settings))
        except BaseException:
            self.close()
            raise

    def _check(self, folder: Path, settings: dict[str, Any]) -> None:
        file = folder / _SETTINGS
        saved = kept_json(file)
        if saved is None:
            keep_json(file, settings)
            return
        differing = []
        for key in fingerprints.differing(saved, settings):
            there, now = (json.dumps(some.get(key))[:60] for some in (saved, settings))
            differing.append(
                "model (it answers otherwise)"
                if key == "answers"
                else f"{key} ({there} there, {now} now)"
            )
        if differing:
            raise UserError(
                f"{folder} holds an evaluation with other settings: {'; '.join(differing)}; "
                "use the same ones, or another folder for the state"
            )

    def load(
        self, name: str, attack: Attack, images: np.ndarray
    ) -> tuple[AttackResult, float] | None:
        """A finished piece and its seconds; None if it is still to be done.

        One whose file is damaged is to be done again, which a line on stderr says.
        """
        if self.folder is None or not (file := self._file(name)).exists():
            return None
        try:
            arrays = read_arrays(file)
            adversarials = images.copy()
            adversarials[arrays["changed"]] = arrays["adversarials"]
            found = {key: arrays[key] for key in _ARRAYS}
            seconds = float(arrays["seconds"])
        except (DamagedFile, KeyError, IndexError, TypeError, ValueError):
            note(f"{file} is damaged; that part of the evaluation is done again")
            return None
        return AttackResult(
            attack=attack.name,
            config=attack.config(),
            adversarials=adversarials,
            uses_gradients=attack.uses_gradients,
            **found,
        ), seconds

    def save(self, name: str, result: AttackResult, images: np.ndarray, seconds: float) -> None:
        """Keeps a finished piece; a disk that is full leaves those before it whole."""
        if self.folder is None:
            return
        differing = (result.adversarials != images).reshape(result.n, -1).any(axis=1)
        changed = np.flatnonzero(differing)
        with replacing(self._file(name)) as partial:
            np.savez_compressed(
                partial,
                changed=changed,
                adversarials=result.adversarials[changed],
                seconds=np.float64(seconds),
                **{key: getattr(result, key) for key in _ARRAYS},
            )

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
