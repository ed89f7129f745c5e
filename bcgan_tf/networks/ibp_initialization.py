"""Initial weights for interval bound propagation."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np


def reset_for_ibp(model: keras.Model, *, seed: int) -> None:
    """Draws all kernels from ``N(0, 2 pi / n^2)``, ``n`` the inputs of a unit; biases become 0.

    With these weights the width of interval bounds is equal in all layers at the start of training;
    with the usual ones each layer multiplies it by about the square root of ``n``. Batch
    normalization becomes the identity; frozen layers and those without kernels are left alone.

    Args:
        model: changed in place.
        seed: of the draws.

    Reference: Shi et al. 2021, "Fast Certified Robust Training with Short Warmup", section 4.1.
    """
    rng = np.random.default_rng(seed)
    for layer in _layers(model):
        if not layer.trainable:
            continue
        for weight in layer.weights:
            shape = tuple(weight.shape)
            if weight.name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
                alone = isinstance(layer, keras.layers.DepthwiseConv2D) or "depth" in weight.name
                scale = math.sqrt(2 * math.pi) / math.prod(shape[:2] if alone else shape[:-1])
                weight.assign(scale * rng.standard_normal(shape, np.float32))
            elif weight.name in ("bias", "beta", "moving_mean"):
                weight.assign(np.zeros(shape, np.float32))
            elif weight.name in ("gamma", "moving_variance"):
                weight.assign(np.ones(shape, np.float32))


def _layers(layer: Any) -> list[Any]:
    inner = getattr(layer, "layers", None)
    return [layer] if inner is None else [found for part in inner for found in _layers(part)]
