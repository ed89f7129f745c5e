"""Whether a model's gradients can lead an attack: missing, exactly zero, NaN or infinite ones."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import derived
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.logits import logits_differ
from bcgan_tf.networks.copies import clone_with_dtype

# Share of images without a usable gradient: a dead image now and then proves nothing.
DEAD = 0.01
_BATCH = 250
# What a float64 copy of the model may differ from it, relative to the distances of its logits.
_SAME_MODEL = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class GradientHealth:
    """Input gradients of ``N`` clean images, one verdict per image.

    Attributes:
        correct: bool ``[N]``: classified right; the shares below are over these (over all, where
            none is), because attacks start from them.
        missing: TensorFlow finds no gradient at all (rounding, argmax, NumPy inside the model).
        backward: the model brings a stand-in for its gradient (attribute ``backward``). What is
            measured here is the model's own gradient; attacks follow the stand-in.
        zero: bool ``[N]``: the gradient of the cross entropy is exactly zero in every pixel.
        non_finite: bool ``[N]``: it is NaN or infinite in some pixel.
        margin_zero: bool ``[N]``: the gradient of the margin of the logits is zero or not finite
            too, so that no choice of the loss revives it.
        zero64: as ``zero``, all in float64; None where the model cannot be copied to float64.
        non_finite64: as ``non_finite``, in float64, or None.
    """

    correct: np.ndarray
    missing: bool
    backward: bool
    zero: np.ndarray
    non_finite: np.ndarray
    margin_zero: np.ndarray
    zero64: np.ndarray | None = None
    non_finite64: np.ndarray | None = None

    def share(self, which: np.ndarray | None) -> float | None:
        """Share of the correctly classified images for which ``which`` is true."""
        if which is None:
            return None
        return float(which[self.correct].mean() if self.correct.any() else which.mean())

    @property
    def bad(self) -> float:
        """Share of images whose cross entropy gives an attack nothing to follow, in float32."""
        return float(self.share(self.zero | self.non_finite) or 0.0)

    @property
    def dead(self) -> float:
        """Share of images with no gradient to follow, whatever the loss."""
        return float(self.share((self.zero | self.non_finite) & self.margin_zero) or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """All shares, JSON-able; None where float64 was not run."""
        return {
            "n": int(self.correct.sum()) or len(self.correct),
            "missing": self.missing,
            "backward": self.backward,
            "zero": self.share(self.zero),
            "non_finite": self.share(self.non_finite),
            "margin_zero": self.share(self.margin_zero),
            "zero_float64": self.share(self.zero64),
            "non_finite_float64": self.share(self.non_finite64),
        }


def guard_gradient(model: Any, images: np.ndarray, labels: np.ndarray) -> LogitsFn:
    """The model's logits, with zeros where its input gradient is missing, NaN or infinite.

    Attacks then run and find nothing by such a gradient. A stand-in (``backward``) is kept.

    Args:
        model: a Keras model or a callable, float32 images in [0, 1] to logits ``[B, K]``.
        images: float32 ``[N, ...]`` in [0, 1], on which is tried whether there is a gradient.
        labels: int ``[N]``, the true classes.

    Raises:
        UserError: if the model's output is unfit (:func:`bcgan_tf.attacks.checks.as_logits_fn`).
    """
    attacked = checks.as_logits_fn(model)
    missing = _measure(attacked, images, labels, len(images), np.float32).missing
    return derived((with_zero_gradient if missing else with_finite_gradient)(attacked), model)


def gradient_health(
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    float64: bool = False,
    batch_size: int = _BATCH,
) -> GradientHealth:
    """Measures the input gradients of clean images.

    Args:
        model: a Keras model or a callable, float32 images in [0, 1] to logits ``[B, K]``.
        images: float32 ``[N, ...]`` in [0, 1], at least one.
        labels: int ``[N]``, the true classes.
        float64: also in float64, where the model can be copied to it (Keras models only).
        batch_size: most images at once.
    """
    backward = not isinstance(model, keras.Model) and callable(getattr(model, "backward", None))
    # A plain function around it: as_logits_fn would take the stand-in otherwise.
    own = checks.as_logits_fn((lambda inputs: model(inputs)) if backward else model)
    found = _measure(own, images, labels, batch_size, np.float32)
    found = dataclasses.replace(found, backward=backward)
    double = in_float64(model) if float64 and not found.missing else None
    if double is None:
        return found
    logits = Batched(own, batch_size)(images)
    same = Batched(double, batch_size)(images.astype(np.float64))
    if logits_differ(same, logits, rounding=_SAME_MODEL).any():
        return found
    in64 = _measure(double, images, labels, batch_size, np.float64)
    return dataclasses.replace(found, zero64=in64.zero, non_finite64=in64.non_finite)


def _measure(
    logits_fn: LogitsFn, images: np.ndarray, labels: np.ndarray, batch_size: int, dtype: Any
) -> GradientHealth:
    missing: list[bool] = []

    def rows(inputs: tf.Tensor, true: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            logits = logits_fn(inputs)
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(true, logits)
            margin = _margin(logits, true)
        flags = [tf.equal(tf.argmax(logits, axis=1, output_type=true.dtype), true)]
        for loss in (entropy, margin):
            gradient: Any = None
            with contextlib.suppress(LookupError):  # an operation without a gradient
                gradient = tape.gradient(loss, inputs)
            missing.append(gradient is None)
            if gradient is None:
                gradient = tf.zeros_like(inputs)
            pixels = list(range(1, len(inputs.shape)))
            flags.append(tf.reduce_all(tf.equal(gradient, 0), axis=pixels))
            flags.append(tf.reduce_any(~tf.math.is_finite(gradient), axis=pixels))
        return tf.stack(flags, axis=1)

    found = Batched(rows, batch_size)(images.astype(dtype), np.asarray(labels, np.int64))
    return GradientHealth(
        correct=found[:, 0],
        missing=all(missing),
        backward=False,
        zero=found[:, 1],
        non_finite=found[:, 2],
        margin_zero=found[:, 3] | found[:, 4],
    )


def _margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    # As primitives.margins, for float64 too.
    is_true = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    wrong = tf.where(is_true, tf.constant(-math.inf, logits.dtype), logits)
    return tf.reduce_max(wrong, axis=1) - tf.gather(logits, labels, axis=1, batch_dims=1)


def with_zero_gradient(logits_fn: LogitsFn) -> LogitsFn:
    """The same logits with a gradient that exists and is zero."""

    def call(images: tf.Tensor) -> tf.Tensor:
        logits = tf.stop_gradient(logits_fn(tf.stop_gradient(images)))
        return logits + 0.0 * tf.reduce_sum(images)

    return call


def with_finite_gradient(logits_fn: LogitsFn) -> LogitsFn:
    """The same logits, with zeros where the input gradient is NaN or infinite."""

    @tf.custom_gradient
    def gate(images: tf.Tensor) -> Any:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where(tf.math.is_finite(upstream), upstream, tf.zeros_like(upstream))

        return tf.identity(images), backward

    return lambda images: logits_fn(gate(images))


def in_float64(model: Any) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """A copy of a functional or sequential Keras model that computes in float64.

    Returns:
        A function of float64 images, or None where there is no such copy: callables, subclassed
        models, layers that cannot be rebuilt.
    """
    if not isinstance(model, keras.Model):
        return None
    try:
        copy = clone_with_dtype(model, "float64")
    except Exception:  # a custom layer may fail in any way; the check then says "not run"
        return None

    def call(images: tf.Tensor) -> tf.Tensor:
        outputs: Any = copy(images, training=False)
        return tf.cast(outputs, tf.float64)

    return call
