"""Attacks through a network's own preprocessing: exact forward, the identity backward."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.errors import UserError
from bcgan_tf.leading_layers import leading_layers

# Leading layers through which the gradient passes as it should: affine, or doing nothing.
_HARMLESS = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
)


class AdaptiveAPGD(APGD):
    """APGD, named as what it is when the model is attacked through its preprocessing."""

    @property
    def name(self) -> str:
        return f"{super().name}+BPDA"


def through_preprocessing(model: keras.Model) -> LogitsFn:
    """The model, with the identity as gradient of the layers before its first weights.

    A layer that cuts off, rounds or quantises pixels has a gradient of zero where it is flat, and
    an attack that follows gradients never finds that a longer step would leave the flat. The
    answers stay the model's own; only the gradient passes through. It is the attack to try on every
    network that preprocesses, beside the plain one.

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
        raise UserError("only a functional or sequential Keras model can be looked into")
    layers = leading_layers(model)
    if not layers:
        raise UserError("the model has no preprocessing before its first weights; attack it as is")
    before, after = _parts(model, layers)
    prepared = bpda(lambda images: before(images, training=False))

    return lambda images: after(prepared(images), training=False)


def monotone_preprocessing(model: Any) -> tuple[keras.Model, keras.Model] | None:
    """The model in two: leading layers that only stretch and cut off pixels, and the rest.

    What such layers make of a Linf ball is a box again, from what they make of its least point to
    what they make of its largest, and every point of it is reached. An attack may move in that box
    instead of in the ball: it is the same threat, with nothing flat in the way.

    Returns:
        ``(before, after)``, which share the layers of ``model``; None, where it has no such layers
        or preprocesses in other ways too.
    """
    if not may_hide_gradients(model):
        return None
    layers = leading_layers(model)
    if not all(_is_monotone(layer) for layer in layers):
        return None
    return _parts(model, layers)


def _parts(model: keras.Model, layers: list[Any]) -> tuple[keras.Model, keras.Model]:
    """What ``layers`` are and what comes after them, as models that share the layers."""
    between = layers[-1].output
    return keras.Model(model.inputs[0], between), keras.Model(between, model.outputs[0])


def _is_monotone(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Rescaling):
        return np.ndim(layer.scale) == 0 and float(layer.scale) > 0
    # With a negative slope it falls below its threshold.
    return isinstance(layer, keras.layers.Identity) or (
        isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold
    )


def as_attacked(model: keras.Model) -> LogitsFn:
    """The model as an attack should differentiate it: images to logits, ``training=False``.

    Through its preprocessing, where that may hide the gradient; else as it is.
    """
    if may_hide_gradients(model):
        return through_preprocessing(model)
    return lambda images: model(images, training=False)


def may_hide_gradients(model: Any) -> bool:
    """Whether a Keras model preprocesses its images by more than an affine map."""
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        return False
    return any(not isinstance(layer, _HARMLESS) for layer in leading_layers(model))
