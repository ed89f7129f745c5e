"""Progress on stderr, which leaves stdout to results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console


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
