"""Progress on stderr, which leaves stdout to results."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from rich import progress as bars
from rich.console import Console

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


@contextlib.contextmanager
def told(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with what is at work beside it on a terminal, else one line whenever that changes.

    Args:
        label: what it is part of, such as a model's name.

    Yields:
        ``progress(done, total, text)``, the form that evaluations report to.
    """
    if sys.stderr.isatty():
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=None)

            def move(done: int, total: int, text: str) -> None:
                described = f"{label}: {text}" if text else label
                bar.update(task, completed=done, total=total, description=described)

            yield move
        return
    last: list[str] = []

    def note(done: int, total: int, text: str) -> None:
        line = text or (f"{done} of {total}" if done == total else "")
        if line and last != [line]:
            last[:] = [line]
            print(f"{label}: {line}", file=sys.stderr, flush=True)

    yield note


@contextlib.contextmanager
def counted(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else one line at the end; the form that attacks report to.

    Args:
        label: what is being counted, such as ``"PGD on original"``.

    Yields:
        ``progress(done, total)``.
    """
    if sys.stderr.isatty():
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last: list[int] = []

    def note(done: int, total: int) -> None:
        last[:] = [done, total]

    yield note
    if last:
        print(f"{label}: {last[0]} of {last[1]}", file=sys.stderr, flush=True)
