"""Exact resume: the whole state of a training, saved after each epoch and at a signal.

A checkpoint is a folder: ``state.npz`` (every variable), ``history.json`` (the logs of the finished
epochs), ``best.npz`` (where the best epoch's weights are kept), and ``sha256.json`` over them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from bcgan_tf import interruption
from bcgan_tf.array_files import read_arrays
from bcgan_tf.distribute import cluster
from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    PARTIAL_PREFIX,
    DamagedFile,
    check_seal,
    note,
    remove,
    replacing,
    seal,
    write_json,
)
from bcgan_tf.runs.history import LOGS, checkpoint_logs, checkpoint_name, checkpoints_in

_STATE, _BEST = "state.npz", "best.npz"
_METRIC = "metric-"  # in the state of an epoch that is not finished


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of ``model.eval_model`` from the epoch with the highest value of a metric.

    Of equal epochs the later one counts. Checkpoints save what is kept: pass this callback to
    ``fit`` before the one that writes them.

    Args:
        monitor: name in the epoch's logs; higher is better.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__()
        self.monitor = monitor
        self.best: float | None = None
        self.epoch: int | None = None
        self._weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        value = float((logs or {})[self.monitor])
        if self.best is not None and value < self.best:
            return
        model: Any = self.model
        self.best, self.epoch = value, epoch + 1
        self._weights = [np.asarray(weight) for weight in model.eval_model.get_weights()]

    def restore(self, classifier: keras.Model) -> None:
        """Sets a classifier's weights to the best epoch's; does nothing before the first epoch."""
        if self._weights is not None:
            classifier.set_weights(self._weights)

    def write(self, file: Path) -> None:
        """Writes an ``.npz`` file, for :meth:`take`."""
        arrays: dict[str, Any] = {str(i): w for i, w in enumerate(self._weights or ())}
        if self._weights is not None:
            arrays |= {"best": np.array(self.best), "epoch": np.array(self.epoch)}
        np.savez(file, **arrays)

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what :meth:`write` wrote."""
        if "best" not in arrays:
            return
        self.best, self.epoch = float(arrays["best"]), int(arrays["epoch"])
        self._weights = [arrays[str(number)] for number in range(len(arrays) - 2)]


def state_variables(model: Any) -> list[Any]:
    """All variables that training changes, except metrics: weights, random states, all optimizers.

    ``keras.callbacks.BackupAndRestore`` looks at ``model.optimizer`` alone, which would leave a
    GAN's second optimizer without its moments.
    """
    variables = list(model.variables)
    for optimizer in model.optimizers:
        variables.extend(optimizer.variables)
    return list({id(v): v for v in variables}.values())


class Restored(NamedTuple):
    """What a model was restored to.

    Attributes:
        epochs: finished.
        history: their logs.
        steps: done of the epoch after them.
        metrics: the values of the metrics' variables after those steps.
    """

    epochs: int = 0
    history: list[dict[str, float]] = []  # noqa: RUF012  (never changed)
    steps: int = 0
    metrics: list[np.ndarray] = []  # noqa: RUF012


class EpochCheckpoint(keras.callbacks.Callback):
    """Writes ``directory/epoch-NNNN/`` after each epoch, atomically, and keeps the newest two.

    After a signal (:mod:`bcgan_tf.interruption`) it writes ``epoch-NNNN-step-SSSSSS/`` once the
    current batch is done, and ends the training. Of several workers
    (:mod:`bcgan_tf.distribute.cluster`) only the chief writes; a signal, which they hear at
    different steps, ends them at once.

    Args:
        directory: created when missing.
        restored: where the training begins, as :func:`restore` gave it.
        steps: of an epoch; without it only whole epochs are saved.
        best: the best epoch's weights, kept with the rest.
        keep: checkpoints to keep.

    Raises:
        UserError: (while training) a weight is NaN or infinite; nothing is written then.
        KeyboardInterrupt: (while training) a signal came; what is to be resumed is on disk.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        restored: Restored | None = None,
        steps: int = 0,
        best: BestWeights | None = None,
        keep: int = 2,
    ):
        super().__init__()
        restored = restored or Restored()
        self.directory = Path(directory)
        self.history = list(restored.history)
        self.steps = steps
        self.best = best
        self.keep = keep
        self._begun = restored if restored.steps else None
        self._epoch = self._steps_before = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._steps_before = epoch, 0
        if self._begun is not None:
            # Keras has just reset the metrics; they must include the first part of the epoch.
            _assign(_metric_variables(self.model), self._begun.metrics)
            self._steps_before, self._begun = self._begun.steps, None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if cluster.joined() is not None:
            return
        interruption.defer(True)  # not earlier: before the first batch nothing can be lost
        done = self._steps_before + batch + 1
        if interruption.pending() and done < self.steps:
            self._write(self._epoch, done)
            interruption.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        self._write(epoch + 1, 0)
        interruption.check()

    def _write(self, epochs: int, steps: int) -> None:
        arrays = _numbered("", state_variables(self.model))
        # The logs do not include the last update, which may have made the weights non-finite.
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise non_finite(epochs if steps else epochs - 1, "weights", self.directory)
        if steps:
            arrays |= _numbered(_METRIC, _metric_variables(self.model))
        if not cluster.is_chief():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"{PARTIAL_PREFIX}*"):
            remove(leftover)
        target = self.directory / checkpoint_name(epochs, steps)
        with replacing(target) as partial:
            partial.mkdir()
            np.savez(partial / _STATE, **arrays)
            write_json(partial / LOGS, self.history)
            if self.best is not None:
                self.best.write(partial / _BEST)
            seal(partial)
            remove(target)  # a damaged one, which was trained again
        for _, _, old in checkpoints_in(self.directory)[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)


def _metric_variables(model: Any) -> list[Any]:
    return [variable for metric in model.metrics for variable in metric.variables]


def _numbered(prefix: str, variables: list[Any]) -> dict[str, Any]:
    return {
        f"{prefix}{number:05d}": np.asarray(keras.ops.convert_to_numpy(variable))
        for number, variable in enumerate(variables)
    }


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def has_checkpoint(directory: str | Path) -> bool:
    """Whether the folder holds a checkpoint, whole or damaged."""
    return bool(checkpoints_in(Path(directory)))


def restore(model: Any, directory: str | Path, best: BestWeights | None = None) -> Restored:
    """Restores a compiled model from the newest undamaged checkpoint.

    Prints one line on stderr for each damaged checkpoint that it skips. Of several workers the
    chief chooses, and all read that one.

    Args:
        model: built and compiled like the one that was saved.
        directory: of :class:`EpochCheckpoint`.
        best: given the best epoch's weights too.

    Returns:
        What was restored; ``Restored()`` when there is no checkpoint.

    Raises:
        UserError: the checkpoint's variables have other shapes, or all checkpoints are damaged.
    """
    directory = Path(directory)
    newest = cluster.by_chief(f"resume {directory.name}", lambda: _newest_whole(directory, best))
    if newest is None:
        return Restored()
    epochs, steps, name = newest
    path = directory / name
    arrays = read_arrays(path / _STATE)
    names = sorted(arrays)
    values = [arrays[name] for name in names if not name.startswith(_METRIC)]
    metrics = [arrays[name] for name in names if name.startswith(_METRIC)]
    variables = state_variables(model)
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise UserError(
            f"the checkpoint {path} was made with other settings; resume with the settings of "
            "the first run, or begin anew in another folder"
        )
    _assign(variables, values)
    if best is not None:
        best.take(read_arrays(path / _BEST))
    return Restored(epochs, checkpoint_logs(path), steps, metrics)


def _newest_whole(directory: Path, best: BestWeights | None) -> tuple[int, int, str] | None:
    """The newest undamaged checkpoint: epochs, steps and the folder's name."""
    found = checkpoints_in(directory)
    passed: list[str] = []
    for epochs, steps, path in reversed(found):
        try:
            check_seal(path)
            read_arrays(path / _STATE)
            checkpoint_logs(path)
            if best is not None:
                read_arrays(path / _BEST)
        except DamagedFile as error:
            passed.append(f"the checkpoint {path} is left out: {error}")
            continue
        for line in passed:
            note(f"{line}; {path.name} is taken")
        return epochs, steps, path.name
    if found:
        raise UserError(
            f"every checkpoint in {directory} is damaged; remove that folder to train this stage "
            "from its beginning"
        )
    return None


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
            # All workers must end alike; a step's logs are those of one.
            alone = cluster.joined() is None
            self._check(logs if alone else self.model.get_metrics_result())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check(logs)

    def _check(self, logs: dict[str, Any] | None) -> None:
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(float(value))]
        if bad:
            raise non_finite(self._epoch, ", ".join(bad), self.checkpoints)


def non_finite(epoch: int, what: str, checkpoints: str | Path | None) -> UserError:
    """The error of a training that became NaN or infinite in an epoch, counted from 0."""
    found = checkpoints_in(Path(checkpoints)) if checkpoints else []
    last = f"the last good checkpoint is {found[-1][2]}" if found else "no checkpoint was made"
    return UserError(
        f"training became non-finite in epoch {epoch + 1} ({what}); {last}; "
        "lower the learning rate or beta"
    )
