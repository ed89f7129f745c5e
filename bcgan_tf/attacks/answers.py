"""Checks that a model computes its logits from each image alone, and the same way at every call.

Attacks trace a model into a graph and choose the batches that they run it on. A random number that
is drawn outside the graph is drawn once, at tracing. Logits that depend on the rest of the batch
differ between an attack and the run that judges it. Such a model cannot be attacked.
"""

from __future__ import annotations

import collections
import functools
import itertools
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
# Limits for slow models, such as one that searches: seconds for all passes, and the fewest passes.
_SECONDS, _LEAST = 10.0, 4
# Relative rounding difference to allow between graph and eager calls, and between batch sizes: that
# of half precision. The faults that are searched for change logits by more.
_COARSE = 0.1
# A random model is at fault if, in each of _TRIALS comparisons, the share of calls with at least
# _ROWS of their rows outside the usual range is larger by _MORE than among repeated usual calls.
_MORE, _ROWS, _TRIALS = 1 / 3, 0.5, 3

# Models that passed the check, and functions made of them. The result depends on code only.
_FIT: weakref.WeakSet[Any] = weakref.WeakSet()

Made = TypeVar("Made", bound=Callable[..., Any])


def check_answers(model: Any, images: np.ndarray, predict: Batched | None = None) -> None:
    """Refuses a model whose logits depend on more than the image; checks each model once.

    Args:
        model: a Keras model or a callable, images to logits ``[B, K]``. A Keras model is called
            with ``training=False``. Weights that its calls change are set back.
        images: float32 ``[N, ...]`` in [0, 1]; up to eight of them are used.
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
    """Up to eight images, evenly spaced over the set, because sets may be sorted by class."""
    return images[np.unique(np.linspace(0, len(images) - 1, PROBES).astype(int))]


def derived(function: Made, model: Any) -> Made:
    """``function``, marked as checked if ``model`` is: it adds only TensorFlow operations to it."""
    if _is_fit(model):
        _remember(function)
    return function


def passes_of(
    call: Callable[[int], Any], most: int = _PASSES, seconds: float = _SECONDS
) -> list[Any]:
    """``[call(0), call(1), ...]``: ``most`` calls, or at least four where they take long."""
    found, until = [], time.monotonic() + seconds
    while len(found) < most and (len(found) < _LEAST or time.monotonic() < until):
        found.append(call(len(found)))
    return found


_DRAWS = "it draws outside TensorFlow's graph (Python's random, NumPy, a counter)"
_TRACED = "its logits differ between a traced and an eager call"
_PYTHON = "it calls tf.py_function, which allows only one gradient per call"
_BATCH = "its logits for an image depend on the other images of the batch"


def _faults(model: Any, predict: Batched, probes: np.ndarray) -> list[str]:
    def usually() -> list[np.ndarray]:
        return passes_of(lambda _: predict.once(probes))

    usual = usually()
    operations = _operations(predict.traced(probes).graph)
    draws = any(logits_differ(usual[0], other).any() for other in usual[1:])
    # The usual calls may miss a rare draw, so random operations count too.
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
    all_called = itertools.chain([first], iter(called, None))
    if (not draws and any(logits_differ(first[0], other).any() for other in first[1:])) or (
        draws and not _traces_agree(model, probes)
    ):
        faults.append(_DRAWS)
    elif not faults and _beyond(usual, lambda: next(all_called), draws, usually):
        faults.append(_DRAWS if draws else _TRACED)
    return faults


def _traces_agree(model: Any, probes: np.ndarray) -> bool:
    """Whether every trace gives the same operations, on the same constants and variables.

    What Python or NumPy draws while the model is traced stays in the graph, as a constant or as
    one of two networks. Draws in the graph hide it from a comparison of answers.
    """

    def content() -> Any:
        traced = Batched(checks.as_logits_fn(model), PROBES).traced(probes)
        graph = traced.graph.as_graph_def()
        inner = (node for function in graph.library.function for node in function.node_def)
        nodes = collections.Counter(
            (node.op, node.attr["value"].tensor.SerializeToString() if node.op == "Const" else b"")
            for node in (*graph.node, *inner)
        )
        captured = (
            id(tensor) if tensor.dtype in (tf.resource, tf.variant) else tensor.numpy().tobytes()
            for tensor in traced.captured_inputs
        )
        return nodes, list(captured)

    first, *others = passes_of(lambda _: content())
    return all(other == first for other in others)


def _operations(graph: tf.Graph) -> set[str]:
    """The types of all operations in the graph and in its functions."""
    content = graph.as_graph_def()
    inner = (node for function in content.library.function for node in function.node_def)
    return {node.op for node in (*content.node, *inner)}


def _called(model: Any, probes: np.ndarray) -> np.ndarray:
    """The logits of an eager call, with every tf.function in the model run eagerly too."""
    forward = checks.as_logits_fn(model)
    usual = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        return np.asarray(forward(tf.constant(probes)))
    except UserError:
        raise
    except Exception:  # the user's code may only work in a graph: trace it a second time
        return Batched(forward, PROBES).once(probes)
    finally:
        tf.config.run_functions_eagerly(usual)


def _beyond(
    usual: Sequence[np.ndarray],
    others: Callable[[], list[np.ndarray]],
    draws: bool,
    usually: Callable[[], list[np.ndarray]],
) -> bool:
    """Whether other answers lie outside the range of the usual ones.

    For a random model the comparison is repeated, each time with new usual answers as a control.
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
    """bool rows for each of the others: outside the range of the usual answers.

    For a random model the range is extended on both sides by its own width.
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
        advice.append("call it with training=False, or use fixed statistics")
    if _DRAWS in faults or _TRACED in faults:
        advice.append(
            "draw with tf.random or keras.random, or wrap the drawing code in tf.numpy_function, "
            "which runs at every call and has no gradient"
        )
    if _PYTHON in faults:
        advice.append("write it with TensorFlow's operations, or with tf.numpy_function")
    return "; ".join(advice)


def _is_fit(model: Any) -> bool:
    try:
        return model in _FIT
    except TypeError:  # not hashable or not weakly referencable: checked at every call
        return False


def _remember(model: Any) -> None:
    try:
        _FIT.add(model)
    except TypeError:
        return
