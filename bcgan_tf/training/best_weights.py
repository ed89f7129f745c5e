"""Keeps the weights of the best epoch, across a kill and a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np


class BestWeights(keras.callbacks.Callback):
    """Remembers ``model.judged``'s weights of the epoch with the highest value of a metric.

    Of equal epochs the later one counts. Checkpoints hold what is remembered: give it to ``fit``
    before what saves them.

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
        self._weights = [np.asarray(weight) for weight in model.judged.get_weights()]

    def restore(self, classifier: keras.Model) -> None:
        """Gives a classifier the best epoch's weights; without any epoch it is left as it is."""
        if self._weights is not None:
            classifier.set_weights(self._weights)

    def write(self, file: Path) -> None:
        """Writes an ``.npz`` file, for :meth:`take`."""
        arrays: dict[str, Any] = {str(i): w for i, w in enumerate(self._weights or ())}
        if self._weights is not None:
            arrays |= {"best": np.array(self.best), "epoch": np.array(self.epoch)}
        np.savez(file, **arrays)

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Remembers what :meth:`write` wrote."""
        if "best" not in arrays:
            return
        self.best, self.epoch = float(arrays["best"]), int(arrays["epoch"])
        self._weights = [arrays[str(number)] for number in range(len(arrays) - 2)]
