"""What a network does to its pixels before its first weights."""

from __future__ import annotations

from typing import Any

import keras


def leading_layers(model: keras.Model) -> list[Any]:
    """The chain of layers that begins at the input, without weights, each keeping the shape.

    Args:
        model: functional or built sequential, of one input.
    """
    found: list[Any] = []
    layers: list[Any] = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    within = getattr(model, "operations", layers)
    for layer in layers[:-1]:
        # Not a cast to another precision: it is noted as a reader, and is no part of the model.
        readers = [x for x in layer._outbound_nodes if x.operation in within]
        if layer.weights or layer.output.shape != model.inputs[0].shape or len(readers) != 1:
            break
        found.append(layer)
    return found
