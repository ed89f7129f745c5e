"""The bounds of each kind of layer: a box around its inputs to a box around its outputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.certification.intervals import FEW, TINY, IntervalBound
from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import internal_name
from bcgan_tf.networks.layers import ResumableDropout


class Unbounded(UserError):
    """A layer that has no bounds."""

    def __init__(self, layer: Any, why: str) -> None:
        self.kind, self.layer, self.why = type(layer).__name__, layer.name, why
        super().__init__(f"no interval bounds: {self.kind} {self.layer!r} {why}")


def layer_box(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    """Bounds on a layer's outputs at inference.

    Args:
        layer: one of :data:`LAYERS` or :data:`INTERNAL`, in float32.
        inputs: bounds on each of its inputs.

    Raises:
        Unbounded: there are none.
    """
    rule = LAYERS.get(type(layer)) or INTERNAL.get(internal_name(layer))
    if rule is None:
        raise Unbounded(layer, "has no interval bounds here")
    check_dtype(layer)
    return rule(layer, inputs)


def _activated(layer: Any, box: IntervalBound) -> IntervalBound:
    if layer.activation in _EXACT_FUNCTIONS:
        return box.rising(layer.activation)
    if layer.activation in _VALLEYS:
        return _valley(layer.activation, _VALLEYS[layer.activation], box)
    if layer.activation not in _RISING_FUNCTIONS:
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        raise Unbounded(layer, f"has an activation without interval bounds here ({name})")
    return _smooth(layer.activation, box)


def _valley(function: Callable[[Any], Any], bottom: float, box: IntervalBound) -> IntervalBound:
    """Bounds of a function that falls up to ``bottom`` and rises from there.

    It is least at the point of the box that is nearest to the bottom, and largest at an end.
    """
    nearest = tf.minimum(tf.maximum(bottom, box.lower), box.upper)
    found = type(box)(function(nearest), tf.maximum(function(box.lower), function(box.upper)))
    # x times a function in [0, 1] that may be rounded by a share of 1.
    return found.rounded(FEW, lambda _: tf.maximum(box.magnitudes, 1.0))


def _smooth(
    function: Callable[[Any], Any], box: IntervalBound, scale: float = 1.0
) -> IntervalBound:
    """Bounds of an increasing function whose computation rounds values of up to ``scale``."""
    return box.rising(function).rounded(FEW, lambda size: tf.maximum(size, scale))


def _weights(layer: Any, box: IntervalBound) -> tuple[Any, Any]:
    bias = tf.cast(layer.bias, box.dtype) if layer.use_bias else tf.zeros([], box.dtype)
    return tf.cast(layer.kernel, box.dtype), bias


def _dense(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    kernel, bias = _weights(layer, inputs[0])
    terms = int(kernel.shape[0]) + 2
    return _activated(layer, inputs[0].affine(keras.ops.matmul, kernel, bias, terms=terms))


def _convolution(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.data_format != "channels_last":
        raise Unbounded(layer, "has its channels first")
    kernel, bias = _weights(layer, inputs[0])

    def convolved(x: Any, factors: Any) -> Any:
        return keras.ops.conv(
            x,
            factors,
            strides=list(layer.strides),
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    terms = math.prod(kernel.shape[:-1]) + 2
    return _activated(layer, inputs[0].affine(convolved, kernel, bias, terms=terms))


def _depthwise(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    bias = layer.bias if layer.use_bias else None
    return _activated(layer, _by_channel(layer, layer.kernel, bias, inputs[0]))


def _separable(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    """A depthwise convolution, then one of 1 x 1; exact where the multiplier of depth is 1."""
    box = _by_channel(layer, layer.depthwise_kernel, None, inputs[0])
    kernel = tf.cast(layer.pointwise_kernel, box.dtype)[0, 0]
    bias = tf.cast(layer.bias, box.dtype) if layer.use_bias else tf.zeros([], box.dtype)
    terms = int(kernel.shape[0]) + 2
    return _activated(layer, box.affine(keras.ops.matmul, kernel, bias, terms=terms))


def _by_channel(layer: Any, kernel: Any, bias: Any, box: IntervalBound) -> IntervalBound:
    if layer.data_format != "channels_last":
        raise Unbounded(layer, "has its channels first")

    def convolved(x: Any, factors: Any) -> Any:
        return keras.ops.depthwise_conv(
            x,
            factors,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    constant = tf.zeros([], box.dtype) if bias is None else tf.cast(bias, box.dtype)
    terms = math.prod(kernel.shape[:2]) + 2
    return box.affine(convolved, tf.cast(kernel, box.dtype), constant, terms=terms)


def _pixelwise(
    box: IntervalBound, factors: Any, constant: Any, size_of_constant: Any
) -> IntervalBound:
    return box.affine(
        lambda x, factors: x * factors,
        factors,
        constant,
        terms=FEW,
        size=lambda x: x * tf.abs(factors) + size_of_constant,
    )


def _rescaling(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    # Rounded to float32 first, as in the layer.
    scale, offset = (
        tf.cast(tf.convert_to_tensor(value, tf.float32), inputs[0].dtype)
        for value in (layer.scale, layer.offset)
    )
    return _pixelwise(inputs[0], scale, offset, tf.abs(offset))


def _normalization(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    mean, variance = (tf.cast(value, inputs[0].dtype) for value in (layer.mean, layer.variance))
    deviation = tf.maximum(tf.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return _pixelwise(inputs[0], deviation, mean, tf.abs(mean))
    return _pixelwise(inputs[0], 1.0 / deviation, -mean / deviation, tf.abs(mean) / deviation)


def _batch_normalization(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.axis not in (-1, len(inputs[0].lower.shape) - 1):
        raise Unbounded(layer, "does not normalize the last axis")
    dtype = inputs[0].dtype
    scale = tf.math.rsqrt(tf.cast(layer.moving_variance, dtype) + layer.epsilon)
    if layer.scale:
        scale *= tf.cast(layer.gamma, dtype)
    shift = tf.cast(layer.moving_mean, dtype) * scale
    beta = tf.cast(layer.beta, dtype) if layer.center else tf.zeros([], dtype)
    return _pixelwise(inputs[0], scale, beta - shift, tf.abs(beta) + tf.abs(shift))


def _layer_normalization(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    """Bounds of ``gamma (x - mean) / sqrt(variance + epsilon) + beta`` over a row of D values.

    With ``x = c + d``, c the center of the box and ``|d| <= r``:

    - ``x_i - mean(x)`` lies within ``r_i (1 - 1/D) + sum_j!=i r_j / D`` of ``c_i - mean(c)``;
    - ``sqrt(D variance) = |x - mean(x)|`` lies within ``|r|`` of ``|c - mean(c)|``, lengths of
      vectors, because ``x -> x - mean(x)`` is an orthogonal projection, which lengthens nothing;
    - ``|x_i - mean(x)| <= sqrt(D - 1) sqrt(variance)`` (Samuelson's inequality).

    The quotient of the first by the second is cut off by the third. In float32 the mean of D
    numbers of up to A is off by ``e A``, e the relative error of D roundings, and the variance, a
    mean of squared differences from it, by a share e and ``(e A)^2`` at most.
    """
    if layer.rms_scaling:
        raise Unbounded(layer, "scales by the variance without subtracting the mean")
    box, shape = inputs[0], inputs[0].lower.shape
    axes = sorted(axis % len(shape) for axis in layer.axis)
    lower, upper = (tf.cast(side, box.dtype) for side in (box.lower, box.upper))
    center, radius = (lower + upper) / 2.0, (upper - lower) / 2.0
    count = math.prod(shape[axis] for axis in axes)
    error = box.relative_error(count + FEW)
    total = functools.partial(tf.reduce_sum, axis=axes, keepdims=True)

    def length(x: Any) -> Any:  # the least number keeps the slope at 0 finite
        return tf.sqrt(total(tf.square(x)) + TINY)

    middle = center - total(center) / count
    reach = radius + (total(radius) - 2.0 * radius) / count
    row = tf.reduce_max(box.magnitudes, axes, keepdims=True)
    least = tf.square(tf.maximum(length(middle) - length(radius), 0.0)) / count
    most = tf.square(length(middle) + length(radius)) / count + tf.square(error * row)
    steepest = (1.0 + error) * tf.math.rsqrt((1.0 - error) * least + layer.epsilon)
    flattest = (1.0 - error) * tf.math.rsqrt((1.0 + error) * most + layer.epsilon)
    low, high = middle - reach, middle + reach
    limit = math.sqrt(count - 1) * (1.0 + error) ** 2
    low = tf.maximum(low * tf.where(low < 0, steepest, flattest), -limit)
    high = tf.minimum(high * tf.where(high > 0, steepest, flattest), limit)

    around = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    gamma, beta = (
        tf.reshape(tf.cast(weight, box.dtype), around) if weight is not None else default
        for weight, default in (
            (layer.gamma, tf.ones([], box.dtype)),
            (layer.beta, tf.zeros([], box.dtype)),
        )
    )
    # Computed as x s + (beta - mean s), s = gamma / sqrt(variance + epsilon).
    return box.around(
        gamma * (low + high) / 2.0 + beta,
        tf.abs(gamma) * (high - low) / 2.0,
        count + FEW,
        lambda: (box.magnitudes + 2.0 * row) * steepest * tf.abs(gamma) + tf.abs(beta),
    )


def _product(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    """The products of two sides each: the least and the largest of the four."""
    layer = isinstance(operation, keras.layers.Layer)

    def multiplied(one: IntervalBound, other: IntervalBound) -> IntervalBound:
        pairs = [(a, b) for a in (one.lower, one.upper) for b in (other.lower, other.upper)]
        return _of_corners(one, [operation([a, b]) if layer else a * b for a, b in pairs])

    return functools.reduce(multiplied, inputs)


def _of_corners(box: IntervalBound, corners: list[Any]) -> IntervalBound:
    corners = tf.stack(corners)
    unknown = tf.reduce_any(tf.math.is_nan(corners), axis=0)  # 0 times what overflowed
    lower = tf.where(unknown, -math.inf, tf.reduce_min(corners, axis=0))
    upper = tf.where(unknown, math.inf, tf.reduce_max(corners, axis=0))
    return type(box)(lower, upper).rounded(FEW, lambda size: size)


def _sum(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    del operation
    one, other = inputs
    found = type(one)(one.lower + other.lower, one.upper + other.upper)
    return found.rounded(FEW, lambda _: one.magnitudes + other.magnitudes)


def _difference(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    one, other = inputs
    return _sum(operation, [one, type(other)(-other.upper, -other.lower)])


def _quotient(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    one, other = inputs
    if other.lower is not other.upper:
        raise Unbounded(operation, "divides by what is no constant")
    return _of_corners(one, [one.lower / other.lower, one.upper / other.lower])


def _scaled(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    zero = tf.zeros([], inputs[0].dtype)
    return _pixelwise(inputs[0], tf.cast(layer.gamma, inputs[0].dtype), zero, zero)


def _identity(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    del layer
    return inputs[0]


def _rising(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    return inputs[0].rising(layer, *inputs[1:])


def _averaged(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    """Bounds of sums and means, within one box or over several."""
    if len(inputs) > 1:
        terms = len(inputs) + 1
    else:
        sides: Any = inputs[0].lower.shape
        channels_last = getattr(layer, "data_format", "") == "channels_last"
        pool = getattr(layer, "pool_size", sides[1:-1] if channels_last else sides[2:])
        terms = math.prod(pool) + 1
    sizes = [tf.cast(box.magnitudes, tf.float32) for box in inputs]
    size = layer(sizes if len(inputs) > 1 else sizes[0])
    return _rising(layer, inputs).rounded(terms, lambda _: tf.cast(size, inputs[0].dtype))


def _resizing(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    interpolation = getattr(layer, "interpolation", "bilinear")
    if interpolation not in ("nearest", "bilinear"):
        raise Unbounded(layer, f"interpolates {interpolation}, with negative weights")
    largest = tf.reduce_max(inputs[0].magnitudes, axis=[1, 2], keepdims=True)
    return _rising(layer, inputs).rounded(FEW, lambda size: size + largest)


def _exponential_linear(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.alpha < 0:
        raise Unbounded(layer, "decreases below zero")
    return _smooth(layer, inputs[0], max(float(layer.alpha), 1.0))


def _rectified(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.max_value is not None and layer.max_value < layer.threshold:
        raise Unbounded(layer, "decreases where it is clipped")
    return _rising(layer, inputs)


_Rule = Callable[[Any, list[IntervalBound]], IntervalBound]
# Exact classes: a subclass may compute something else.
LAYERS: dict[type, _Rule] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.LayerNormalization: _layer_normalization,
    keras.layers.Multiply: _product,
    keras.layers.Rescaling: _rescaling,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Activation: lambda layer, inputs: _activated(layer, inputs[0]),
    keras.layers.ReLU: _rectified,
    keras.layers.ELU: _exponential_linear,
    keras.layers.Resizing: _resizing,
    keras.layers.CenterCrop: _resizing,  # where the image is smaller
    keras.layers.Normalization: _normalization,
    **dict.fromkeys(
        (
            keras.layers.AveragePooling2D,
            keras.layers.GlobalAveragePooling2D,
            keras.layers.Add,
            keras.layers.Average,
        ),
        _averaged,
    ),
    **dict.fromkeys(
        (
            keras.layers.LeakyReLU,
            keras.layers.Flatten,
            keras.layers.Reshape,
            keras.layers.Permute,
            keras.layers.ZeroPadding2D,
            keras.layers.Cropping2D,
            keras.layers.MaxPooling2D,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.Maximum,
            keras.layers.Minimum,
            keras.layers.Concatenate,
        ),
        _rising,
    ),
    # The identity at inference.
    **dict.fromkeys(
        (
            keras.layers.Dropout,
            keras.layers.SpatialDropout2D,
            keras.layers.AlphaDropout,
            keras.layers.GaussianDropout,
            keras.layers.GaussianNoise,
            ResumableDropout,
            keras.layers.Identity,
            keras.layers.RandomBrightness,
            keras.layers.RandomContrast,
            keras.layers.RandomErasing,
            keras.layers.RandomFlip,
            keras.layers.RandomRotation,
            keras.layers.RandomShear,
            keras.layers.RandomTranslation,
            keras.layers.RandomZoom,
        ),
        _identity,
    ),
}
# By :func:`internal_name`.
INTERNAL: dict[str, _Rule] = {
    "ops.numpy.Add": _sum,
    "ops.numpy.Subtract": _difference,
    "ops.numpy.Multiply": _product,
    "ops.numpy.TrueDivide": _quotient,
    "ops.numpy.Divide": _quotient,
    "applications.convnext.LayerScale": _scaled,
}
# Non-decreasing in float32 too.
_EXACT_FUNCTIONS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.leaky_relu,
)
_RISING_FUNCTIONS = (
    keras.activations.elu,
    keras.activations.selu,
    keras.activations.celu,
    keras.activations.sigmoid,
    keras.activations.hard_sigmoid,
    keras.activations.tanh,
    keras.activations.softplus,
    keras.activations.softsign,
)
# Functions with one minimum, falling before and rising behind, and where it is.
_VALLEYS = {
    keras.activations.gelu: -0.7517916,
    keras.activations.silu: -1.2784645,
    keras.activations.hard_silu: -1.5,
}


def check_dtype(layer: Any) -> None:
    """Refuses a layer that does not compute in float32."""
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise Unbounded(layer, f"computes in {layer.compute_dtype}; build the network in float32")
    if getattr(layer, "quantization_mode", None) is not None:
        raise Unbounded(layer, f"is quantized ({layer.quantization_mode})")
