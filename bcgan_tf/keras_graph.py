"""Copies of a network within a process, with what its preprocessing layers were set to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from bcgan_tf.leading_layers import leading_layers


def clone_reinitialized(model: keras.Model) -> keras.Model:
    """The same architecture with initial weights, drawn with Keras' global seed.

    An initialiser with a seed of its own draws what it drew for ``model``.

    What was set rather than trained stays: the mean and variance of an adapted ``Normalization``
    layer, without which the network would see other images.
    """
    copy = keras.models.clone_model(model)
    for old, new in zip(_normalizations(model), _normalizations(copy), strict=True):
        new.set_weights(old.get_weights())
        new.finalize_state()
    return copy


def clone(model: keras.Model) -> keras.Model:
    """The same architecture with the same weights."""
    return _filled(keras.models.clone_model(model), model)


def clone_with_dtype(model: keras.Model, dtype: str, *, ends: str | None = None) -> keras.Model:
    """The same architecture with the same weights, computing in another precision.

    Args:
        model: functional or sequential.
        dtype: a Keras dtype policy for its layers, such as ``"mixed_bfloat16"``.
        ends: the dtype of the images, of what is done to them before the first weights, and of
            the layer that gives the output; None: ``dtype`` for these too.

    Raises:
        Exception: whatever a layer raises that cannot be rebuilt from its configuration.
    """
    return _filled(_rebuilt(model, dtype, inputs=ends or dtype, last=ends or dtype), model)


def _filled(copy: keras.Model, model: keras.Model) -> keras.Model:
    """``copy`` with the weights of ``model``."""
    copy.set_weights(model.get_weights())
    for layer in _normalizations(copy):
        layer.finalize_state()  # its mean is a constant, made from its weights here
    return copy


def _rebuilt(model: keras.Model, dtype: str, *, inputs: str, last: str) -> keras.Model:
    final = model.outputs[0]._keras_history.operation
    first = leading_layers(model) if len(model.inputs) == 1 else []

    def rebuild(layer: Any) -> Any:
        chosen = last if layer is final else inputs if layer in first else dtype
        if isinstance(layer, keras.Model):
            return _rebuilt(layer, dtype, inputs=inputs, last=chosen)
        return type(layer).from_config(layer.get_config() | {"dtype": chosen})

    # A sequential model has no ``input`` before it was called.
    structure = model.inputs if isinstance(model, keras.Sequential) else model.input
    images = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=inputs, name=x.name), structure
    )
    copy = keras.models.clone_model(model, input_tensors=images, clone_function=rebuild)
    # The model itself casts what enters it: in less precision it would round the gradient on its
    # way back.
    copy.dtype_policy = keras.DTypePolicy(inputs)
    return copy


def _normalizations(layer: Any) -> Iterator[keras.layers.Normalization]:
    """Those of a model and of the models in it that know their statistics from ``adapt``."""
    if isinstance(layer, keras.layers.Normalization):
        if layer.weights:  # none where mean and variance are arguments
            yield layer
        return
    for inner in getattr(layer, "layers", ()):
        yield from _normalizations(inner)
