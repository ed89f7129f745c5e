"""Attacks through a network's own preprocessing: exact forward, the identity backward."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.errors import UserError


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
    last = _last_of_preprocessing(model)
    if last is None:
        raise UserError("the model has no preprocessing before its first weights; attack it as is")
    before = keras.Model(model.inputs, last.output)
    after = keras.Model(last.output, model.outputs)
    prepared = bpda(lambda images: before(images, training=False))

    def logits(images: tf.Tensor) -> tf.Tensor:
        found: Any = after(prepared(images), training=False)
        return found[0] if isinstance(found, list | tuple) else found

    return logits


def _last_of_preprocessing(model: keras.Model) -> Any:
    """The last layer of the chain that begins at the input, has no weights and keeps the shape."""
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        raise UserError("only a functional or sequential Keras model can be looked into")
    last, layers = None, [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    shape = model.inputs[0].shape
    for layer in layers[:-1]:
        consumers = [node.operation for node in layer._outbound_nodes]
        if layer.weights or layer.output.shape != shape or len(consumers) != 1:
            break
        last = layer
    return last
