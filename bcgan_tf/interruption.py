"""SIGINT and SIGTERM: an end at once, or where a training can be taken up again.

The command line listens (:func:`listening`); the library alone leaves signals as they are. A
training that keeps checkpoints defers the end to its next step, and writes one more there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Seconds within which a signal that comes again is the same one: `timeout` sends it twice.
_SAME_SECONDS = 1.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and containers send it before they kill."""


class _State:
    error: KeyboardInterrupt | None = None
    since = 0.0
    deferred = False


_state = _State()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Within it a first signal ends at once, or where :func:`defer` says; a second at once.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    _state.error, _state.deferred = None, False
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: it was not installed from Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _state.error = None


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    if _state.error is None:
        _state.error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        _state.since = time.monotonic()
        if _state.deferred:
            return
    elif time.monotonic() - _state.since < _SAME_SECONDS:
        return
    raise _state.error


def defer(on: bool) -> None:
    """Begins or ends a time in which a first signal only leaves its mark, for :func:`check`."""
    _state.deferred = on


def pending() -> bool:
    """Whether a signal has come that is to be obeyed at the next safe point."""
    return _state.error is not None


def check() -> None:
    """A safe point.

    Raises:
        KeyboardInterrupt: a signal has come; :class:`Terminated`, if it was SIGTERM.
    """
    if _state.error is not None:
        raise _state.error
