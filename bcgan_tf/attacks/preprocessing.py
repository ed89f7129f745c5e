"""Attacks through a network's own preprocessing: exact forward, the identity backward."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.errors import UserError

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
    layers = _preprocessing(model)
    if not layers:
        raise UserError("the model has no preprocessing before its first weights; attack it as is")
    before = keras.Model(model.inputs, layers[-1].output)
    after = keras.Model(layers[-1].output, model.outputs)
    prepared = bpda(lambda images: before(images, training=False))

    def logits(images: tf.Tensor) -> tf.Tensor:
        found: Any = after(prepared(images), training=False)
        return found[0] if isinstance(found, list | tuple) else found

    return logits


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
    return any(not isinstance(layer, _HARMLESS) for layer in _preprocessing(model))


def _preprocessing(model: keras.Model) -> list[Any]:
    """The chain of layers that begins at the input, without weights, each keeping the shape."""
    found: list[Any] = []
    layers: list[Any] = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    for layer in layers[:-1]:
        readers = len(layer._outbound_nodes)
        if layer.weights or layer.output.shape != model.inputs[0].shape or readers != 1:
            break
        found.append(layer)
    return found
