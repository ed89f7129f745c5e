"""Progress on stderr, which leaves stdout to results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console

# progress(done, total, text): of what is counted, and what is at work now, which may be "".
Progress = Callable[[int, int, str], None]
# Shows, while a `with` lasts, what is reported of the task that it is given the name of.
ShowProgress = Callable[[str], contextlib.AbstractContextManager[Progress]]


@contextlib.contextmanager
def told(label: str) -> Iterator[Progress]:
    """A bar with what is at work beside it on a terminal, else one line whenever that changes.

    Args:
        label: what it is part of, such as a model's name.

    Yields:
        The :data:`Progress` to report to.
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
