"""Checks of the model and its outputs before an attack starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.errors import UserError

LogitsFn = Callable[[tf.Tensor], tf.Tensor]

_PROBABILITY_TOLERANCE = 1e-5
_NO_PROBABILITY = -100.0


def as_logits_fn(model: Any) -> LogitsFn:
    """The function from images to float32 logits that attacks differentiate.

    Args:
        model: a Keras model, which is then called with ``training=False``, or any callable on
            tensors that ``tf.function`` can trace, for any batch size. A callable with an
            attribute ``backward``, a differentiable stand-in, is differentiated through that.

    Raises:
        UserError: if it cannot be called.
    """
    if not callable(model):
        raise UserError(
            f"the model is a {type(model).__name__}, which cannot be called; give a Keras model "
            "or a function from images to logits"
        )
    options = {"training": False} if isinstance(model, keras.Model) else {}
    if not options and callable(backward := getattr(model, "backward", None)):
        model = bpda(model, backward)

    def logits_fn(images: tf.Tensor) -> tf.Tensor:
        outputs: Any = model(images, **options)
        if isinstance(outputs, dict | list | tuple):
            raise UserError(
                f"the model returned a {type(outputs).__name__}; attacks need one tensor of "
                "logits [B, K]"
            )
        logits = tf.cast(outputs, tf.float32)
        if logits.shape.rank not in (None, 2):
            raise UserError(
                f"the model returned a tensor of shape {tuple(logits.shape)}; attacks need logits "
                "[B, K], one row per image"
            )
        # tf.py_function and map_fn return an unknown rank, but loops need a known one.
        return tf.ensure_shape(logits, [None, None])

    return logits_fn


def check_model_input(model: Any, images: np.ndarray) -> None:
    """Compares the images with a Keras model's declared input.

    Raises:
        UserError: if the shapes cannot match.
    """
    declared = getattr(model, "input_shape", None) if isinstance(model, keras.Model) else None
    if not isinstance(declared, tuple) or any(isinstance(side, tuple) for side in declared):
        return
    wanted, given = declared[1:], images.shape[1:]
    if len(wanted) != len(given) or any(
        side is not None and side != actual for side, actual in zip(wanted, given, strict=True)
    ):
        raise UserError(f"the model takes images of shape {wanted}, but these are {given}")


def look_like_probabilities(outputs: np.ndarray, tolerance: float = _PROBABILITY_TOLERANCE) -> bool:
    """Whether every row is non-negative and sums to 1 within ``tolerance``, without masked classes.

    A class whose outputs are all below -100 is masked out.
    """
    outputs = outputs[:, ~(outputs < _NO_PROBABILITY).all(axis=0)]
    if not outputs.size:
        return False
    sums = outputs.sum(axis=-1, dtype=np.float64)
    return bool(outputs.min() >= 0 and np.abs(sums - 1).max() <= tolerance)


def check_logits(logits: np.ndarray, labels: np.ndarray) -> None:
    """Checks the model's outputs on the clean images.

    A logit of minus infinity is allowed: it is how a model masks a class out.

    Raises:
        UserError: if they are not ``[N, K]`` with ``K >= 2``, are NaN or plus infinity, look like
            probabilities, or if a label is no class.
    """
    if len(logits) != len(labels) or logits.shape[1] < 2:
        raise UserError(
            f"the model returned logits {logits.shape} for {len(labels)} images; attacks need "
            "[N, K] with K >= 2 classes (a single sigmoid unit z is the two logits [0, z])"
        )
    if np.isnan(logits).any() or np.isposinf(logits).any():
        raise UserError("the model returned NaN or infinite logits on clean images; retrain it")
    if look_like_probabilities(logits):
        raise UserError(
            "the model's outputs look like probabilities (>= 0, rows sum to 1), which makes "
            "attacks fail silently; attack the logits: leave out activation='softmax' of the last "
            "layer (model.layers[-1].activation = keras.activations.linear), or drop the "
            "final Softmax layer"
        )
    if labels.max() >= logits.shape[1]:
        raise UserError(
            f"label {labels.max()} is no class of this model, which has {logits.shape[1]} "
            f"(0 ... {logits.shape[1] - 1})"
        )


def check_positive_int(name: str, value: Any) -> None:
    """Raises a UserError if ``value`` is not an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"{name} is {value!r}; it must be an integer of at least 1")


def check_number(name: str, value: Any, *, above: float | None = None) -> None:
    """Raises a UserError if ``value`` is not finite, or not >= 0 (or > ``above`` where given)."""
    limit = f"a number above {above:g}" if above is not None else "a number of at least 0"
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or (value < 0 if above is None else value <= above):
        raise UserError(f"{name} is {value!r}; it must be {limit}")
