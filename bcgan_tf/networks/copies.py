"""Copies of Keras models: with the same weights, new ones, or another precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from bcgan_tf.keras_graph import frozen_weights, last_operation, leading_layers


def clone_reinitialized(model: keras.Model) -> keras.Model:
    """The same architecture with new initial weights, drawn with Keras' global seed.

    An initializer with its own seed draws the same weights as in ``model``. Frozen layers keep
    their weights, and adapted ``Normalization`` layers their mean and variance.
    """
    copy = keras.models.clone_model(model)
    frozen = frozen_weights(model)
    for old, new in zip(model.weights, copy.weights, strict=True):
        if id(old) in frozen:
            new.assign(old)
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
        ends: the dtype of the images, of the preprocessing, and of the layer that gives the output;
            None: ``dtype``.

    Raises:
        Exception: a layer cannot be rebuilt from its configuration; of whatever type it raises.
    """
    return _filled(rebuilt(model, dtype, inputs=ends or dtype, last=ends or dtype), model)


def _filled(copy: keras.Model, model: keras.Model) -> keras.Model:
    """``copy`` with the weights of ``model``."""
    copy.set_weights(model.get_weights())
    for layer in _normalizations(copy):
        layer.finalize_state()  # copies the weights into the constants it uses
    return copy


def _in_dtype(layer: Any, dtype: str) -> Any:
    return type(layer).from_config(layer.get_config() | {"dtype": dtype})


def rebuilt(
    model: keras.Model,
    dtype: str,
    *,
    inputs: str,
    last: str,
    made: Callable[[Any, str], Any] = _in_dtype,
) -> keras.Model:
    """The same architecture in another precision, with new weights.

    Args:
        model: functional or sequential.
        dtype: a Keras dtype policy for its layers.
        inputs: that of the images and of the preprocessing.
        last: that of the layer that gives the output.
        made: a layer, no model, and its dtype to the layer that takes its place.

    Raises:
        Exception: as :func:`clone_with_dtype`.
    """
    final = last_operation(model)
    first = leading_layers(model) if len(model.inputs) == 1 else []

    def rebuild(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):  # an operation of keras.ops, which has no dtype
            return type(layer).from_config(layer.get_config())
        chosen = last if layer is final else inputs if layer in first else dtype
        if isinstance(layer, keras.Model):
            return rebuilt(layer, dtype, inputs=inputs, last=chosen, made=made)
        return made(layer, chosen)

    # A sequential model has no ``input`` before it was called.
    structure = model.inputs if isinstance(model, keras.Sequential) else model.input
    images = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=inputs, name=x.name), structure
    )
    copy = keras.models.clone_model(model, input_tensors=images, clone_function=rebuild)
    # The model casts its inputs; a cast to lower precision would round the gradient.
    copy.dtype_policy = keras.DTypePolicy(inputs)
    return copy


def _normalizations(layer: Any) -> Iterator[keras.layers.Normalization]:
    """The Normalization layers of a model, nested ones included, that have adapted statistics."""
    if isinstance(layer, keras.layers.Normalization):
        if layer.weights:  # none where mean and variance are arguments
            yield layer
        return
    for inner in getattr(layer, "layers", ()):
        yield from _normalizations(inner)
