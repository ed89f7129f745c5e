"""Copies of a network within a process, with what its preprocessing layers were set to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def fresh_copy(model: keras.Model) -> keras.Model:
    """The same architecture with new initial weights, drawn with Keras' global seed.

    What was set rather than trained stays: the mean and variance of an adapted ``Normalization``
    layer, without which the network would see other images.
    """
    copy = keras.models.clone_model(model)
    for old, new in zip(_normalizations(model), _normalizations(copy), strict=True):
        new.set_weights(old.get_weights())
        new.finalize_state()
    return copy


def equal_copy(model: keras.Model) -> keras.Model:
    """The same architecture with the same weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in _normalizations(copy):
        layer.finalize_state()  # its mean is a constant, made from its weights here
    return copy


def _normalizations(layer: Any) -> Iterator[keras.layers.Normalization]:
    """Those of a model and of the models in it that know their statistics from ``adapt``."""
    if isinstance(layer, keras.layers.Normalization):
        if layer.weights:  # none where mean and variance are arguments
            yield layer
        return
    for inner in getattr(layer, "layers", ()):
        yield from _normalizations(inner)
