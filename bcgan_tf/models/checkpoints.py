"""Exact resume: everything a training run is, saved at the end of each epoch."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.errors import UserError

_NAME = re.compile(r"epoch-(\d{4,})")


def state_variables(model: Any) -> list[Any]:
    """All that training changes: weights, random state, metrics, and *every* optimizer's variables.

    ``keras.callbacks.BackupAndRestore`` looks at ``model.optimizer`` alone, which would leave a
    GAN's second optimizer without its moments.
    """
    variables = list(model.variables)
    for optimizer in model.optimizers:
        variables.extend(optimizer.variables)
    return list({id(v): v for v in variables}.values())


class EpochCheckpoint(keras.callbacks.Callback):
    """Writes ``directory/epoch-NNNN/`` after each epoch, atomically, and keeps the newest two.

    Args:
        directory: created when missing.
        history: the epochs already done, as :func:`restore` gave them.
        keep: checkpoints to keep.

    Raises:
        UserError: (while training) a weight is NaN or infinite; nothing is written then.
    """

    def __init__(
        self, directory: str | Path, *, history: list[dict[str, float]] | None = None, keep: int = 2
    ):
        super().__init__()
        self.directory = Path(directory)
        self.history = list(history or [])
        self.keep = keep

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        arrays: dict[str, Any] = {
            f"{i:05d}": np.asarray(keras.ops.convert_to_numpy(v))
            for i, v in enumerate(state_variables(self.model))
        }
        # The logs are older than the last update: it alone may have ruined the weights.
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise non_finite(epoch, "weights", self.directory)
        self.history.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self.directory / f"epoch-{epoch + 1:04d}"
        for leftover in self.directory.glob(".epoch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = self.directory / f".{target.name}.{os.getpid()}"
        temporary.mkdir()
        np.savez(temporary / "state.npz", **arrays)
        (temporary / "history.json").write_text(json.dumps(self.history))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for _, old in _checkpoints(self.directory)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)


def _checkpoints(directory: Path) -> list[tuple[int, Path]]:
    found = [
        (int(match[1]), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found)


def has_checkpoint(directory: str | Path) -> bool:
    """Whether the folder holds a checkpoint that :func:`restore` would take."""
    return bool(_checkpoints(Path(directory)))


def restore(model: Any, directory: str | Path) -> tuple[int, list[dict[str, float]]]:
    """Puts a compiled model into the state of the newest checkpoint.

    Args:
        model: built and compiled like the one that was saved.
        directory: of :class:`EpochCheckpoint`.

    Returns:
        ``(epochs done, their logs)``; ``(0, [])`` when there is no checkpoint.

    Raises:
        UserError: the checkpoint belongs to a model of another shape.
    """
    found = _checkpoints(Path(directory))
    if not found:
        return 0, []
    done, path = found[-1]
    variables = state_variables(model)
    with np.load(path / "state.npz") as state:
        values = [state[key] for key in sorted(state.files)]
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise UserError(
            f"the checkpoint {path} was made with other settings; resume with the settings of the "
            "first run, or begin anew in another folder"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return done, json.loads((path / "history.json").read_text())


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends a training whose logs became NaN or infinite, before a checkpoint is written.

    Args:
        checkpoints: folder whose newest checkpoint the message names, or None.
        every: batches between two looks; each look waits for the device.
    """

    def __init__(self, checkpoints: str | Path | None = None, *, every: int = 50):
        super().__init__()
        self.checkpoints = checkpoints
        self.every = every
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.every == 0:
            self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check(logs)

    def _check(self, logs: dict[str, Any] | None) -> None:
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(float(value))]
        if bad:
            raise non_finite(self._epoch, ", ".join(bad), self.checkpoints)


def non_finite(epoch: int, what: str, checkpoints: str | Path | None) -> UserError:
    """The error of a training that became NaN or infinite in an epoch, counted from 0."""
    found = _checkpoints(Path(checkpoints)) if checkpoints else []
    last = f"the last good checkpoint is {found[-1][1]}" if found else "no checkpoint was made"
    return UserError(
        f"training became non-finite in epoch {epoch + 1} ({what}); {last}; "
        "lower the learning rate or beta"
    )
