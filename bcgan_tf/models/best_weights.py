"""Keeps the weights of the best epoch, across a kill and a resume."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.errors import UserError
from bcgan_tf.files import replace_file

_FILE = "best.npz"


class BestWeights(keras.callbacks.Callback):
    """Remembers ``model.judged``'s weights of the epoch with the highest value of a metric.

    Of equal epochs the later one counts. Give it to ``fit`` before what saves checkpoints: an
    epoch that a resume skips is then in the file.

    Args:
        monitor: name in the epoch's logs; higher is better.
        directory: where the weights are kept; None: in memory alone.
    """

    def __init__(self, monitor: str, directory: Path | None) -> None:
        super().__init__()
        self.monitor = monitor
        self.directory = directory
        self.best: float | None = None
        self.epoch: int | None = None
        self._weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._read()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        value = float((logs or {})[self.monitor])
        if self.best is not None and value < self.best:
            return
        model: Any = self.model
        self.best, self.epoch = value, epoch + 1
        self._weights = [np.asarray(weight) for weight in model.judged.get_weights()]
        self._write()

    def restore(self, classifier: keras.Model) -> None:
        """Gives a classifier the best epoch's weights; without any epoch it is left as it is."""
        self._read()
        if self._weights is not None:
            classifier.set_weights(self._weights)

    def _write(self) -> None:
        if self.directory is None or self._weights is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        arrays: dict[str, Any] = {str(number): w for number, w in enumerate(self._weights)}
        np.savez(content, best=np.array(self.best), epoch=np.array(self.epoch), **arrays)
        replace_file(self.directory / _FILE, content.getvalue())

    def _read(self) -> None:
        if self._weights is not None or self.directory is None:
            return
        file = self.directory / _FILE
        if not file.exists():
            return
        try:
            with np.load(file, allow_pickle=False) as saved:
                self.best, self.epoch = float(saved["best"]), int(saved["epoch"])
                self._weights = [saved[str(number)] for number in range(len(saved.files) - 2)]
        except Exception as error:  # zipfile, zlib and NumPy each have their own
            raise UserError(f"{file} is damaged; train again in another folder") from error
