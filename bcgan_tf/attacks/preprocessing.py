"""Attacks through a network's own preprocessing: exact forward, the identity backward."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.suites import FirstRelaxation, NearAPGD, NearRelaxation
from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import LeadingStep, graph_of, leading_steps, parts_after

# Images on which the slopes of the preprocessing are measured.
_PROBES = 4
_UNKNOWN_SIDE = 32


class _Adaptive(Attack):
    """An attack under the name that it has in reports when it attacks through the preprocessing."""

    @property
    def name(self) -> str:
        return f"{super().name}+BPDA"


class AdaptiveAPGD(_Adaptive, APGD):
    """See :class:`bcgan_tf.attacks.apgd.APGD`."""

    lengths = APGD.lengths


class AdaptiveNearAPGD(_Adaptive, NearAPGD):
    """See :class:`bcgan_tf.attacks.suites.NearAPGD`."""

    lengths = APGD.lengths


class AdaptiveRelaxation(_Adaptive, FirstRelaxation):
    """See :class:`bcgan_tf.attacks.suites.FirstRelaxation`."""

    lengths = FirstRelaxation.lengths


class AdaptiveNearRelaxation(_Adaptive, NearRelaxation):
    """See :class:`bcgan_tf.attacks.suites.NearRelaxation`."""

    lengths = NearRelaxation.lengths


# The attacks of a suite that are run through the preprocessing too, and as what.
ADAPTIVE: dict[type[Attack], type[Attack]] = {
    APGD: AdaptiveAPGD,
    NearAPGD: AdaptiveNearAPGD,
    FirstRelaxation: AdaptiveRelaxation,
    NearRelaxation: AdaptiveNearRelaxation,
}


def through_preprocessing(model: keras.Model) -> LogitsFn:
    """The model, with the identity as gradient of the layers before its first weights.

    A layer that clips, rounds or quantizes pixels has a gradient of zero where it is flat; an
    attack that follows gradients does not see that a longer step would change its output. The
    logits stay the model's; only the gradient of flat layers is replaced. Try this attack beside
    the plain one on every network with preprocessing. Leading layers that are flat nowhere, such as
    an affine map, keep their own gradient, which may have another sign.

    Args:
        model: functional or sequential, images to logits; its leading layers without weights that
            keep the shape of the images are the preprocessing.

    Returns:
        A callable from images ``[B, H, W, C]`` to logits ``[B, K]``, for any attack.

    Raises:
        UserError: the model has no such layers, or no graph of layers to look into.

    Reference: Athalye, Carlini, Wagner 2018, "Obfuscated Gradients Give a False Sense of
    Security", section 4.1.
    """
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        raise UserError(
            "the layers of the model are not known; give a functional or sequential Keras model"
        )
    steps = leading_steps(model)
    if not steps:
        raise UserError("the model has no preprocessing before its first weights; attack it as is")
    _, after = parts_after(model, steps)
    prepared = [
        bpda(call) if flat else call
        for call, flat in zip(_calls(steps), _flats(model, steps), strict=True)
    ]

    def logits_fn(images: tf.Tensor) -> Any:
        for call in prepared:
            images = call(images)
        return after(images, training=False)

    return logits_fn


def monotone_preprocessing(model: Any) -> tuple[keras.Model, keras.Model] | None:
    """The model in two: leading layers that only scale and clip pixels, and the rest.

    Such layers map an Linf ball onto a box: from the image of its least point to the image of its
    largest. An attack may search that box instead of the ball. The threat model is the same, but
    no flat layer stands between the attack and the network.

    Returns:
        ``(before, after)``, which share the layers of ``model``; None, where it has no such layers
        or preprocesses in other ways too.
    """
    if not may_hide_gradients(model):
        return None
    steps = leading_steps(model)
    if not all(_is_monotone(step.operation) for step in steps):
        return None
    return parts_after(model, steps)


def _calls(steps: list[LeadingStep]) -> list[Any]:
    return [functools.partial(step.model(), training=False) for step in steps]


def _flats(model: keras.Model, steps: list[LeadingStep]) -> list[bool]:
    """Whether each step is flat somewhere: its gradient is missing, zero or not finite."""
    shape = [side or _UNKNOWN_SIDE for side in graph_of(model).inputs[0].shape[1:]]
    draws = np.random.default_rng(0)
    # Drawn beyond [0, 1] and clipped: a quarter of the pixels are black, a quarter white.
    pixels = draws.uniform(-0.5, 1.5, size=(_PROBES, *shape)).clip(0, 1).astype(np.float32)
    values, found = tf.constant(pixels), []
    for call in _calls(steps):
        with tf.GradientTape() as tape:
            tape.watch(values)
            results: Any = call(values)
        weights = tf.cast(draws.normal(size=results.shape), results.dtype)
        gradient: Any = None
        with contextlib.suppress(LookupError):  # an operation without a gradient
            gradient = tape.gradient(results, values, output_gradients=weights)
        flat = gradient is None or not np.all(np.isfinite(gradient) & (np.asarray(gradient) != 0))
        found.append(bool(flat))
        values = tf.stop_gradient(results)
    return found


def _is_monotone(operation: Any) -> bool:
    # No isinstance: a subclass may compute something else.
    if type(operation) is keras.layers.Rescaling:
        return np.ndim(operation.scale) == 0 and float(operation.scale) > 0
    # A ReLU with a negative slope or a threshold is not monotone or not continuous.
    return type(operation) is keras.layers.Identity or (
        type(operation) is keras.layers.ReLU
        and not operation.negative_slope
        and not operation.threshold
    )


def as_attacked(model: keras.Model) -> LogitsFn:
    """The function that an attack differentiates: images to logits, ``training=False``.

    :func:`through_preprocessing` where the preprocessing may hide the gradient, else the model.
    """
    if may_hide_gradients(model):
        return through_preprocessing(model)
    return lambda images: model(images, training=False)


def may_hide_gradients(model: Any) -> bool:
    """Whether a Keras model has a leading layer that is flat somewhere.

    Clipping, rounding and quantizing are; an affine map and layers for training only are not.
    """
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        return False
    return any(_flats(model, leading_steps(model)))
