"""Keras callbacks that report what a training does, epoch by epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import keras

from bcgan_tf.runs.history import History


class HistoryWriter(keras.callbacks.Callback):
    """Writes every epoch's logs into a run's history.csv, past rows dropped when it resumes.

    Give it to ``fit`` before the callback that saves checkpoints: then no epoch that a resume
    skips is without its row.

    Args:
        history: of the run.
        stage: the name that the rows get.
    """

    def __init__(self, history: History, stage: str) -> None:
        super().__init__()
        self.history = history
        self.stage = stage
        self._started = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self._started:
            self.history.keep(self.stage, epoch)
            self._started = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.history.append(self.stage, epoch + 1, logs or {})


class EpochLines(keras.callbacks.Callback):
    """One line an epoch on stderr, for where Keras' bar cannot be drawn.

    Args:
        name: of what is trained, at the start of each line.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {float(value):.4g}" for name, value in (logs or {}).items()
        )
        seconds = time.monotonic() - self._started
        print(
            f"{self.name} epoch {epoch + 1}/{self.params['epochs']}, {seconds:.1f} s: {numbers}",
            file=sys.stderr,
            flush=True,
        )
