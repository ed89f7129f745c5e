"""Pixels cut off near black and near white, in front of a network."""

from __future__ import annotations

from typing import Any

import keras


def cut_off(images: Any, threshold: float, dtype: str | None) -> Any:
    """``clip((x - t) / (1 - 2 t), 0, 1)``, as two layers; with a threshold of 0 the images."""
    if not threshold:
        return images
    span = 1 - 2 * threshold
    x = keras.layers.Rescaling(1 / span, -threshold / span, name="stretch", dtype=dtype)(images)
    return keras.layers.ReLU(max_value=1.0, name="cut_off", dtype=dtype)(x)
