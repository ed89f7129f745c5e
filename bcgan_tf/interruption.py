"""SIGINT and SIGTERM end a command at once, or after the training step that is running.

The command line installs the handlers (:func:`listening`); the library on its own does not touch
signals. A training that keeps checkpoints ends after its current step and saves one there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# A repeated signal within this many seconds is ignored: `timeout` sends each one twice.
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
    """Handles signals: the first raises, or waits while deferred; the second raises at once.

    Does nothing outside the main thread, where Python allows no handlers.
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
    """While on, a first signal does not raise; :func:`check` raises it later."""
    _state.deferred = on


def pending() -> bool:
    """Whether a signal came that :func:`check` will raise."""
    return _state.error is not None


def check() -> None:
    """Raises the deferred signal, if one came; call it where the program may end safely.

    Raises:
        KeyboardInterrupt: a signal has come; :class:`Terminated`, if it was SIGTERM.
    """
    if _state.error is not None:
        raise _state.error
