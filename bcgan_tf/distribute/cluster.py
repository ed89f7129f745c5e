"""The workers that ``TF_CONFIG`` names, which train one model together; the first is the chief.

Only the chief writes files and prints results. What it decides by its files, the others are told
through TensorFlow's coordination service, so that all take part in the same trainings.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bcgan_tf.errors import UserError

VARIABLE = "TF_CONFIG"
_KINDS = ("chief", "worker")
# Of a wait for the chief; between two of them a signal is heard.
_WAIT_MS = 1000
# For which the chief waits for the others at its end.
_END_MS = 60_000
# A chief that gives no answer for so long has gone; the others ask now and then.
_SILENT_SECONDS, _ASK_SECONDS = 60.0, 5.0
# How TensorFlow tells that another process has gone.
_GONE = (
    *("UnavailableError", "AbortedError", "CancelledError", "FailedPreconditionError"),
    "DeadlineExceededError",
)


class Cluster(NamedTuple):
    """Several workers.

    Attributes:
        workers: how many, the chief among them.
        index: of this one; 0 is the chief.
    """

    workers: int
    index: int


class _State:
    joined: Cluster | None = None
    answers: collections.Counter[str] = collections.Counter()  # noqa: RUF012  (of this process)


def named() -> Cluster | None:
    """The workers that ``TF_CONFIG`` names; None where it is not set, or names one alone.

    Raises:
        UserError: it is no such variable; the message says all that is wrong.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{VARIABLE} is no JSON ({error}); {_wanted()}") from None
    tasks, faults = _tasks(content)
    task = content.get("task") if isinstance(content, dict) else None
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    index = int(str(index)) if str(index).isdecimal() else None  # a number as text is one too
    if tasks and (kind, index) not in tasks:
        faults.append(f"its task is {json.dumps(task)}, which the cluster does not have")
    if faults:
        raise UserError(f"{VARIABLE} cannot be used: {'; '.join(faults)}. {_wanted()}")
    return Cluster(len(tasks), tasks.index((kind, index))) if len(tasks) > 1 else None


def _tasks(content: Any) -> tuple[list[tuple[Any, Any]], list[str]]:
    """All tasks as (kind, index), the chief first, and what is wrong with them."""
    cluster = content.get("cluster") if isinstance(content, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        return [], ["it names no cluster"]
    faults = []
    if unknown := sorted(set(cluster) - set(_KINDS)):
        faults.append(f"it has tasks of the kind {', '.join(unknown)}, which train nothing here")
    tasks: list[tuple[Any, Any]] = []
    addresses: list[str] = []
    for kind in _KINDS:
        found = cluster.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
            faults.append(f"{kind} is no list of addresses HOST:PORT")
            continue
        tasks += [(kind, number) for number in range(len(found))]
        addresses += found
    if len(cluster.get("chief", ())) > 1:
        faults.append("it has more than one chief")
    if twice := sorted({one for one in addresses if addresses.count(one) > 1}):
        faults.append(f"several tasks have the address {', '.join(twice)}")
    if not tasks and not faults:
        faults.append("its cluster has no workers")
    return tasks, faults


def _wanted() -> str:
    example = {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}
    return f"Set it as in {json.dumps(example)}, or unset it to train on one machine"


def join(cluster: Cluster) -> None:
    """Makes this process the worker that it is; :func:`bcgan_tf.distribute.join` does the rest."""
    _State.joined = cluster


def joined() -> Cluster | None:
    """The workers that this process trains with; None: it trains alone."""
    return _State.joined


def is_chief() -> bool:
    """Whether this process writes files and prints results: the chief, or one that is alone."""
    return _State.joined is None or _State.joined.index == 0


def by_chief(question: str, answer: Callable[[], Any]) -> Any:
    """What the chief answers: the others wait for it.

    Args:
        question: names it; all workers ask the same question the same number of times.
        answer: called on the chief alone; gives a JSON value.

    Raises:
        tensorflow.errors.OpError: (not on the chief) the chief has ended; see :func:`lost_worker`.
    """
    if _State.joined is None:
        return answer()
    _State.answers[question] += 1
    key = f"bcgan_tf/{question}/{_State.answers[question]}"
    if is_chief():
        found = answer()
        # A worker that has gone is noticed by the next step that needs it.
        with contextlib.suppress(_errors().OpError):
            _service().set_config_key_value(key, json.dumps(found))
        return found
    while True:
        try:
            return json.loads(_service().get_config_key_value(key, _WAIT_MS))
        except _errors().DeadlineExceededError as error:
            # Of this wait, and not of the heartbeats to a chief that is silent.
            if "GetKeyValue() timed out" not in str(error):
                raise


def end() -> None:
    """The others wait until the chief has done what it does alone; then all may end.

    Raises:
        tensorflow.errors.OpError: as of :func:`by_chief`.
    """
    if _State.joined is None:
        return
    by_chief("end", lambda: None)
    # The chief's process holds the service, which the others need until here.
    with contextlib.suppress(_errors().OpError):
        _service().wait_at_barrier(f"bcgan_tf/end/{_State.answers['end']}", _END_MS)


def watch_chief(told: Callable[[], None]) -> None:
    """Ends this process, with exit code 1, a minute after the chief has gone without a word.

    TensorFlow tells all workers of one whose process ends, and the chief of one whose machine does;
    for a chief whose machine does, the others would wait for ever.

    Args:
        told: called before, in another thread.
    """
    key = "bcgan_tf/chief"
    if is_chief():
        with contextlib.suppress(_errors().OpError):  # it is there, of an earlier command
            _service().set_config_key_value(key, "")
        return
    answered = threading.Event()

    def ask() -> None:
        while True:
            with contextlib.suppress(_errors().OpError):
                _service().get_config_key_value(key, _WAIT_MS)
                answered.set()
            time.sleep(_ASK_SECONDS)

    def watch() -> None:
        while answered.wait(_SILENT_SECONDS):
            answered.clear()
        told()
        os._exit(1)  # the main thread may be where no exception reaches it

    for work in (ask, watch):
        threading.Thread(target=work, daemon=True).start()


def lost_worker(error: BaseException) -> bool:
    """Whether an error means that another worker has ended or cannot be reached."""
    return _State.joined is not None and type(error).__name__ in _GONE


def _service() -> Any:
    from tensorflow.python.eager import context

    return context.context()


def _errors() -> Any:
    import tensorflow as tf

    return tf.errors
