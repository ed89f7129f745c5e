"""Interval bounds: bounds on a network's outputs when every pixel varies in an interval.

Each layer turns a box around its inputs into a box around its outputs (interval arithmetic). The
bounds hold for every point of the box and grow looser with depth. An :class:`IntervalBound`
ignores rounding, which is enough for training; a :class:`RoundedIntervalBound` also contains what
the network computes in float32.

Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
Verifiably Robust Models", section 3; for the rounding, Higham 2002, "Accuracy and Stability of
Numerical Algorithms", section 3.1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import calls_of, graph_of, internal_name
from bcgan_tf.networks.layers import ResumableDropout

# Largest relative error of one float32 operation, and the largest number that may be flushed to 0.
_UNIT, _TINY = 2.0**-24, 2.0**-126
# Roundings assumed for operations that are no long sums; generous, because kernels differ.
_FEW = 16
# Layers of one kind that a message names.
_SHOWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class IntervalBound:
    """All points between two float32 tensors of one shape, ``lower <= upper``."""

    lower: tf.Tensor
    upper: tf.Tensor

    # The dtype in which bounds are computed.
    dtype: ClassVar[str] = "float32"

    def affine(
        self,
        apply: Callable[[Any, Any], Any],
        factors: Any,
        constant: Any,
        *,
        terms: int,
        size: Callable[[Any], Any] | None = None,
    ) -> Self:
        """Bounds of an affine map.

        Args:
            apply: a bilinear function of the points and the factors.
            factors: in ``dtype``.
            constant: in ``dtype``, added to the result.
            terms: number of roundings of a result, such as the terms of its sum.
            size: magnitudes of the points to the sum of the magnitudes of all terms, the constant's
                included; None: ``apply`` to the magnitudes.
        """
        lower, upper = (tf.cast(side, self.dtype) for side in (self.lower, self.upper))
        center = apply((lower + upper) / 2.0, factors) + constant
        radius = apply((upper - lower) / 2.0, tf.abs(factors))

        def all_of(points: Any) -> Any:
            return apply(points, tf.abs(factors)) + tf.abs(constant)

        sized = size or all_of
        return self._around(center, radius, terms, lambda: sized(_largest(lower, upper)))

    def rising(self, function: Callable[[Any], Any], *others: IntervalBound) -> Self:
        """Bounds of a non-decreasing function of this box, or of a list of several boxes."""
        boxes = (self, *others)
        ends = ([box.lower for box in boxes], [box.upper for box in boxes])
        lower, upper = (function(end if others else end[0]) for end in ends)
        return type(self)(lower, upper)

    def rounded(self, terms: int, size: Callable[[Any], Any]) -> Self:
        """The bounds, widened by the rounding error of their computation in float32.

        Args:
            terms: number of roundings of a result.
            size: magnitudes of the bounds to magnitudes of the rounded values.
        """
        del terms, size
        return self

    @staticmethod
    def relative_error(terms: int) -> float:
        """Largest relative error of a result of ``terms`` roundings."""
        del terms
        return 0.0

    def _around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
        """``center`` plus and minus ``radius``, wider by the rounding of terms of that size."""
        del terms, size
        return type(self)(center - radius, center + radius)


class RoundedIntervalBound(IntervalBound):
    """Bounds on what a network computes in float32, in whatever order it sums.

    Bounds are computed in float64 and widened by the largest rounding error of the network's
    float32: ``n u / (1 - n u)`` times the sum of the magnitudes, for ``n`` roundings of at most
    ``u``. Rounding the bounds to float32 keeps them valid, because they bound float32 numbers.

    Valid for full float32 and plain sums, not for TensorFloat-32 or transforms such as Winograd's.
    """

    dtype: ClassVar[str] = "float64"

    def rounded(self, terms: int, size: Callable[[Any], Any]) -> Self:
        lower, upper = (tf.cast(side, self.dtype) for side in (self.lower, self.upper))
        center, radius = (lower + upper) / 2.0, (upper - lower) / 2.0
        # Twice: the bounds were computed in float32 as well.
        return self._around(center, radius, 2 * terms, lambda: size(_largest(lower, upper)))

    @staticmethod
    def relative_error(terms: int) -> float:
        error = terms * _UNIT
        return error / (1.0 - error) if error < 0.5 else math.inf

    def _around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
        radius += self.relative_error(terms) * size() + terms * _TINY
        lower, upper = (tf.cast(side, tf.float32) for side in (center - radius, center + radius))
        # Nothing is known about what overflows.
        lower = tf.where(tf.math.is_nan(lower), -math.inf, lower)
        return type(self)(lower, tf.where(tf.math.is_nan(upper), math.inf, upper))


def _largest(lower: Any, upper: Any) -> Any:
    return tf.maximum(tf.abs(lower), tf.abs(upper))


def output_box(model: keras.Model, box: IntervalBound) -> IntervalBound:
    """Bounds on the outputs of a functional or sequential model at inference.

    Args:
        model: all its layers in :data:`LAYERS` or :data:`INTERNAL`, and in float32.
        box: bounds on its inputs, float32 ``[B, ...]``.

    Returns:
        Bounds that contain the model's output for every point of the box.

    Raises:
        UserError: there is no bound for one of its layers; the message names it.
    """
    return _walk(model, box)


def last_layer_box(
    model: keras.Model, box: IntervalBound
) -> tuple[IntervalBound, keras.layers.Dense | None]:
    """Bounds on the inputs of the last layer and that layer, if it is a linear Dense layer.

    Otherwise the bounds on the outputs and None. Arguments and errors as of :func:`output_box`.
    """
    last = _steps(model)[-1][0]
    if isinstance(last, keras.Model):
        return last_layer_box(last, _walk(model, box, before_last=True))
    if type(last) is keras.layers.Dense and last.activation is keras.activations.linear:
        _check_dtype(last)
        return _walk(model, box, before_last=True), last
    return output_box(model, box), None


def require_bounds(model: keras.Model) -> None:
    """Refuses a model that cannot be bounded, and names all layers that have no bounds.

    Raises:
        UserError: some layers have none.
    """
    faults: list[_Unbounded] = []
    _steps(model)
    _walk(model, _zeros(model.inputs[0]), faults=faults)
    if not faults:
        return
    layers: dict[tuple[str, str], dict[str, None]] = {}
    for fault in faults:  # a layer may be called twice
        layers.setdefault((fault.kind, fault.why), {})[repr(fault.layer)] = None
    texts = []
    for (kind, why), names in layers.items():
        shown = ", ".join([*names][:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        texts.append(f"{'each of ' if len(names) > 1 else ''}{kind} {shown}{more} {why}")
    raise UserError(f"no interval bounds: {'; '.join(texts)}")


# ---- The graph

# An operation, names of its inputs (or constants among them), name of its output, that output.
_Step = tuple[Any, list[Any], int, Any]


def _zeros(tensor: Any) -> IntervalBound:
    """A box of one point, of the shape of one example."""
    image = tf.zeros([1, *tensor.shape[1:]])
    return IntervalBound(image, image)


def _steps(model: keras.Model) -> list[_Step]:
    """The calls of layers in the order of computing; the model's input is named 0."""
    # Its calls, not its layers: a layer may be called twice, or be part of other models.
    nodes = calls_of(graph_of(model))
    if nodes is None:
        raise _Unbounded(model, "is no functional model, so its layers are not known")
    _check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _Unbounded(model, "needs exactly one input and one output")
    graph = graph_of(model)
    names = {id(graph.inputs[0]): 0}
    steps: list[_Step] = []
    for node in nodes:
        if node.is_input:
            continue
        if len(node.outputs) != 1:
            raise _Unbounded(node.operation, "has several outputs")
        name = names.setdefault(id(node.outputs[0]), len(names))
        inputs = [names[id(tensor)] for tensor in node.input_tensors]
        if internal_name(node.operation):  # such as x + 3.0
            given = node.arguments.args
            inputs = [names.get(id(part), _Constant(part)) for part in given]
        steps.append((node.operation, inputs, name, node.outputs[0]))
    # The last call gives the output, because the graph holds only calls that lead to it.
    assert steps and names[id(graph.outputs[0])] == steps[-1][2]
    return steps


@dataclasses.dataclass(frozen=True)
class _Constant:
    """A number or an array among the inputs of an operation."""

    value: Any

    def like(self, box: IntervalBound) -> IntervalBound:
        """As a box of one point."""
        point = tf.convert_to_tensor(self.value, tf.float32)
        return type(box)(point, point)


def _walk(
    model: keras.Model,
    box: IntervalBound,
    *,
    before_last: bool = False,
    faults: list[_Unbounded] | None = None,
) -> IntervalBound:
    """Bounds on the model's output, or on the input of its last layer.

    With ``faults``, what cannot be bounded is added to them, and the walk goes on with zeros.
    """
    known = {0: box}
    steps = _steps(model)
    for operation, sources, result, output in steps:
        inputs = [
            part.like(box) if isinstance(part, _Constant) else known[part] for part in sources
        ]
        if before_last and result == steps[-1][2]:
            return inputs[0]
        try:
            known[result] = _through(operation, inputs, faults)
        except _Unbounded as fault:
            if faults is None:
                raise
            faults.append(fault)
            known[result] = _zeros(output)
    return known[steps[-1][2]]


# ---- One layer


def _through(
    operation: Any, inputs: list[IntervalBound], faults: list[_Unbounded] | None = None
) -> IntervalBound:
    if isinstance(operation, keras.Model):
        return _walk(operation, inputs[0], faults=faults)
    rule = LAYERS.get(type(operation)) or INTERNAL.get(internal_name(operation))
    if rule is None:
        raise _Unbounded(operation, "has no interval bounds here")
    _check_dtype(operation)
    return rule(operation, inputs)


def _activated(layer: Any, box: IntervalBound) -> IntervalBound:
    if layer.activation in _EXACT_FUNCTIONS:
        return box.rising(layer.activation)
    if layer.activation in _VALLEYS:
        return _valley(layer.activation, _VALLEYS[layer.activation], box)
    if layer.activation not in _RISING_FUNCTIONS:
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        raise _Unbounded(layer, f"has an activation without interval bounds here ({name})")
    return _smooth(layer.activation, box)


def _valley(function: Callable[[Any], Any], bottom: float, box: IntervalBound) -> IntervalBound:
    """Bounds of a function that falls up to ``bottom`` and rises from there.

    It is least at the point of the box that is nearest to the bottom, and largest at an end.
    """
    nearest = tf.minimum(tf.maximum(bottom, box.lower), box.upper)
    found = type(box)(function(nearest), tf.maximum(function(box.lower), function(box.upper)))
    # x times a function in [0, 1] that may be rounded by a share of 1.
    inputs = tf.cast(_largest(box.lower, box.upper), box.dtype)
    return found.rounded(_FEW, lambda _: tf.maximum(inputs, 1.0))


def _smooth(
    function: Callable[[Any], Any], box: IntervalBound, scale: float = 1.0
) -> IntervalBound:
    """Bounds of an increasing function whose computation rounds values of up to ``scale``."""
    return box.rising(function).rounded(_FEW, lambda size: tf.maximum(size, scale))


def _weights(layer: Any, box: IntervalBound) -> tuple[Any, Any]:
    bias = tf.cast(layer.bias, box.dtype) if layer.use_bias else tf.zeros([], box.dtype)
    return tf.cast(layer.kernel, box.dtype), bias


def _dense(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    kernel, bias = _weights(layer, inputs[0])
    terms = int(kernel.shape[0]) + 2
    return _activated(layer, inputs[0].affine(keras.ops.matmul, kernel, bias, terms=terms))


def _convolution(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.data_format != "channels_last":
        raise _Unbounded(layer, "has its channels first")
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
        raise _Unbounded(layer, "has its channels first")

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
        terms=_FEW,
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
        raise _Unbounded(layer, "does not normalize the last axis")
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
        raise _Unbounded(layer, "scales by the variance without subtracting the mean")
    box, shape = inputs[0], inputs[0].lower.shape
    axes = sorted(axis % len(shape) for axis in layer.axis)
    lower, upper = (tf.cast(side, box.dtype) for side in (box.lower, box.upper))
    center, radius = (lower + upper) / 2.0, (upper - lower) / 2.0
    count = math.prod(shape[axis] for axis in axes)
    error = box.relative_error(count + _FEW)
    total = functools.partial(tf.reduce_sum, axis=axes, keepdims=True)

    def length(x: Any) -> Any:  # the least number keeps the slope at 0 finite
        return tf.sqrt(total(tf.square(x)) + _TINY)

    middle = center - total(center) / count
    reach = radius + (total(radius) - 2.0 * radius) / count
    largest = _largest(lower, upper)
    row = tf.reduce_max(largest, axes, keepdims=True)
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
    return box._around(
        gamma * (low + high) / 2.0 + beta,
        tf.abs(gamma) * (high - low) / 2.0,
        count + _FEW,
        lambda: (largest + 2.0 * row) * steepest * tf.abs(gamma) + tf.abs(beta),
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
    return type(box)(lower, upper).rounded(_FEW, lambda size: size)


def _sum(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    del operation
    one, other = inputs
    size = _largest(one.lower, one.upper) + _largest(other.lower, other.upper)
    found = type(one)(one.lower + other.lower, one.upper + other.upper)
    return found.rounded(_FEW, lambda _: tf.cast(size, one.dtype))


def _difference(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    one, other = inputs
    return _sum(operation, [one, type(other)(-other.upper, -other.lower)])


def _quotient(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    one, other = inputs
    if other.lower is not other.upper:
        raise _Unbounded(operation, "divides by what is no constant")
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
    sizes = [tf.cast(_largest(box.lower, box.upper), tf.float32) for box in inputs]
    size = layer(sizes if len(inputs) > 1 else sizes[0])
    return _rising(layer, inputs).rounded(terms, lambda _: tf.cast(size, inputs[0].dtype))


def _resizing(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    interpolation = getattr(layer, "interpolation", "bilinear")
    if interpolation not in ("nearest", "bilinear"):
        raise _Unbounded(layer, f"interpolates {interpolation}, with negative weights")
    largest = tf.reduce_max(_largest(inputs[0].lower, inputs[0].upper), axis=[1, 2], keepdims=True)
    return _rising(layer, inputs).rounded(
        _FEW, lambda size: size + tf.cast(largest, inputs[0].dtype)
    )


def _exponential_linear(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.alpha < 0:
        raise _Unbounded(layer, "decreases below zero")
    return _smooth(layer, inputs[0], max(float(layer.alpha), 1.0))


def _rectified(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.max_value is not None and layer.max_value < layer.threshold:
        raise _Unbounded(layer, "decreases where it is clipped")
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


def _check_dtype(layer: Any) -> None:
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise _Unbounded(layer, f"computes in {layer.compute_dtype}; build the network in float32")
    if getattr(layer, "quantization_mode", None) is not None:
        raise _Unbounded(layer, f"is quantized ({layer.quantization_mode})")


def _check_model(model: keras.Model) -> None:
    """Refuses a model with its own ``call`` or with inputs that are not float32."""
    if not type(model).call.__module__.startswith("keras."):
        raise _Unbounded(model, "is a subclass with its own call")
    for tensor in getattr(model, "inputs", None) or ():
        if tensor.dtype != "float32":
            raise _Unbounded(model, f"takes its images in {tensor.dtype}, which rounds them")


class _Unbounded(UserError):
    """A layer that has no bounds."""

    def __init__(self, layer: Any, why: str) -> None:
        self.kind, self.layer, self.why = type(layer).__name__, layer.name, why
        super().__init__(f"no interval bounds: {self.kind} {self.layer!r} {why}")
