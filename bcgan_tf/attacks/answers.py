"""Whether a model's answers can be attacked: one function of each image, the same at every call.

Attacks trace a model into a graph and run that on batches of their own choice. A draw that is made
outside the graph is then frozen, and an answer that depends on the rest of the batch is another
one in each attack: what is attacked is not what is judged.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.logits import logits_differ
from bcgan_tf.errors import UserError

PROBES = 8
_PASSES = 12
# A call may take a search; then fewer have to do.
_SECONDS, _LEAST = 10.0, 4
# Graph and eager call, and batches of other sizes, may round otherwise, a half-precision network
# by this share; what is looked for is larger.
_COARSE = 0.1
# Of a model that draws: by how much the share of calls with so many rows beyond all others must
# exceed that of as many usual calls, and how often in a row. Rare draws lie beyond in both.
_MORE, _ROWS, _TRIALS = 1 / 3, 0.5, 3

# Models, and functions made of them, that were found fit: it lies in their code.
_FIT: weakref.WeakSet[Any] = weakref.WeakSet()

Made = TypeVar("Made", bound=Callable[..., Any])


def check_answers(model: Any, images: np.ndarray, predict: Batched | None = None) -> None:
    """Refuses a model whose answers are not one function of each image; a model is tried once.

    Args:
        model: a Keras model or a callable, images to logits ``[B, K]``. A Keras model is called
            with ``training=False``. Weights that its calls change get their values back.
        images: float32 ``[N, ...]`` in [0, 1], some of which are shown to it.
        predict: the model as a graph, where there is one already.

    Raises:
        UserError: it draws outside TensorFlow's graph, its rows depend on the batch, or calling it
            changes its weights; all of these are named.
    """
    if _is_fit(model):
        return
    predict = predict or Batched(checks.as_logits_fn(model), PROBES)
    probes = probes_of(images)
    weights = [v for v in predict.traced(probes).variables if v.dtype.is_floating]
    before = [weight.numpy() for weight in weights]
    try:
        faults = _faults(model, predict, probes)
    finally:
        changed = [
            (weight, value)
            for weight, value in zip(weights, before, strict=True)
            if not np.array_equal(weight.numpy(), value, equal_nan=True)
        ]
        for weight, value in changed:
            weight.assign(value)
    if changed:
        faults.append("calling it changes its weights")
    if faults:
        raise UserError(f"the model cannot be attacked: {'; '.join(faults)}; {_advice(faults)}")
    _remember(model)


def probes_of(images: np.ndarray) -> np.ndarray:
    """Up to eight images from all over a set, which may be sorted by class."""
    return images[np.unique(np.linspace(0, len(images) - 1, PROBES).astype(int))]


def derived(function: Made, model: Any) -> Made:
    """The function, which adds TensorFlow's operations to a model and is as fit as that is."""
    if _is_fit(model):
        _remember(function)
    return function


def passes_of(
    call: Callable[[int], np.ndarray], most: int = _PASSES, seconds: float = _SECONDS
) -> list[np.ndarray]:
    """The answers ``call(0)``, ``call(1)``, ...: ``most``, or fewer where they take long."""
    found, until = [], time.monotonic() + seconds
    while len(found) < most and (len(found) < _LEAST or time.monotonic() < until):
        found.append(call(len(found)))
    return found


_DRAWS = "it draws outside TensorFlow's graph (Python's random, NumPy, a counter)"
_TRACED = "it answers otherwise when it is traced than when it is called"
_PYTHON = "it calls Python by tf.py_function, through which only one gradient a call can be taken"
_BATCH = "its answer to an image depends on the other images of the batch"


def _faults(model: Any, predict: Batched, probes: np.ndarray) -> list[str]:
    def usually() -> list[np.ndarray]:
        return passes_of(lambda _: predict.once(probes))

    usual = usually()
    operations = _operations(predict.traced(probes).graph)
    draws = any(logits_differ(usual[0], other).any() for other in usual[1:])
    # A draw that is rare need not be among them.
    draws = draws or any("Random" in name or name == "PyFunc" for name in operations)
    faults = [_PYTHON] if "EagerPyFunc" in operations else []

    beside = np.concatenate([1 - probes, probes[::-1]])
    batches: list[Callable[[int], np.ndarray]] = [
        lambda _: predict.once(beside)[: len(probes) - 1 : -1],
        lambda _: predict.once(probes[:1]),
    ]
    most = _PASSES if draws else 1
    try:
        if any(
            _beyond(usual, functools.partial(passes_of, batch, most), draws, usually)
            for batch in batches
        ):
            faults.append(_BATCH)
    except tf.errors.OpError as error:
        raise UserError(
            f"the model takes {len(probes)} images, but not more or fewer; a classifier takes any "
            "number in one batch"
        ) from error

    def called() -> list[np.ndarray]:
        return passes_of(lambda _: _called(model, probes))

    first = called()
    if not draws and any(logits_differ(first[0], other).any() for other in first[1:]):
        faults.append(_DRAWS)
    elif not faults and _beyond(usual, called, draws, usually):
        faults.append(_DRAWS if draws else _TRACED)
    return faults


def _operations(graph: tf.Graph) -> set[str]:
    """The kinds of all operations in it, those of its functions too."""
    content = graph.as_graph_def()
    inner = (node for function in content.library.function for node in function.node_def)
    return {node.op for node in (*content.node, *inner)}


def _called(model: Any, probes: np.ndarray) -> np.ndarray:
    """The answers of the model called as Python, and so every tf.function in it."""
    forward = checks.as_logits_fn(model)
    usual = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        return np.asarray(forward(tf.constant(probes)))
    except UserError:
        raise
    except Exception:  # a user's own code, which may be good for graphs alone: another trace
        return Batched(forward, PROBES).once(probes)
    finally:
        tf.config.run_functions_eagerly(usual)


def _beyond(
    usual: Sequence[np.ndarray],
    others: Callable[[], list[np.ndarray]],
    draws: bool,
    usually: Callable[[], list[np.ndarray]],
) -> bool:
    """Whether other answers lie outside what the usual ones span.

    Those of a model that draws are asked for several times, and compared with usual ones of now.
    """
    if not draws:
        return any(rows.any() for rows in _outside(usual, others(), draws))
    for _ in range(_TRIALS):
        found = others()
        share = _share(_outside(usual, found, draws))
        if share < _MORE:
            return False
        control = [answers[: len(found[0])] for answers in usually()]
        if share - _share(_outside(usual, control, draws)) < _MORE:
            return False
    return True


def _share(outside: Sequence[np.ndarray]) -> float:
    return float(np.mean([rows.mean() >= _ROWS for rows in outside]))


def _outside(
    usual: Sequence[np.ndarray], others: Sequence[np.ndarray], draws: bool
) -> list[np.ndarray]:
    """Which rows of each of the others lie outside, bool.

    Where the model draws, the range of its usual answers is widened by its own width.
    """
    low, high = np.min(usual, axis=0), np.max(usual, axis=0)
    with np.errstate(invalid="ignore"):
        width = high - low
    width = np.where(np.isfinite(width) & draws, width, 0.0)
    found = []
    for other in others:
        shown = slice(0, len(other))
        nearest = np.clip(other, (low - width)[shown], (high + width)[shown])
        found.append(logits_differ(nearest, other, rounding=_COARSE))
    return found


def _advice(faults: Sequence[str]) -> str:
    advice = []
    if _BATCH in faults or any("weights" in fault for fault in faults):
        advice.append("call it with training=False, or let it use statistics that are fixed")
    if _DRAWS in faults or _TRACED in faults:
        advice.append(
            "draw by tf.random or keras.random, or call it by tf.numpy_function, which is called "
            "anew each time and has no gradient"
        )
    if _PYTHON in faults:
        advice.append("write it with TensorFlow's operations, or with tf.numpy_function")
    return "; ".join(advice)


def _is_fit(model: Any) -> bool:
    try:
        return model in _FIT
    except TypeError:  # neither hashable nor weakly referenced: tried each time
        return False


def _remember(model: Any) -> None:
    try:
        _FIT.add(model)
    except TypeError:
        return
