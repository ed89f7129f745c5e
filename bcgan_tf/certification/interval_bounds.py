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
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import calls_of
from bcgan_tf.networks.layers import ResumableDropout

# Largest relative error of one float32 operation, and the largest number that may be flushed to 0.
_UNIT, _TINY = 2.0**-24, 2.0**-126
# Roundings assumed for operations that are no long sums; generous, because kernels differ.
_FEW = 16


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

    def _around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
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

    def _around(self, center: Any, radius: Any, terms: int, size: Callable[[], Any]) -> Self:
        error = terms * _UNIT
        share = error / (1.0 - error) if error < 0.5 else math.inf
        radius += share * size() + terms * _TINY
        lower, upper = (tf.cast(side, tf.float32) for side in (center - radius, center + radius))
        # Nothing is known about what overflows.
        lower = tf.where(tf.math.is_nan(lower), -math.inf, lower)
        return type(self)(lower, tf.where(tf.math.is_nan(upper), math.inf, upper))


def _largest(lower: Any, upper: Any) -> Any:
    return tf.maximum(tf.abs(lower), tf.abs(upper))


def output_box(model: keras.Model, box: IntervalBound) -> IntervalBound:
    """Bounds on the outputs of a functional or sequential model at inference.

    Args:
        model: all its layers in :data:`LAYERS` and in float32.
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
    """Raises the UserError of :func:`output_box` for a model that cannot be bounded."""
    _steps(model)
    image = tf.zeros([1, *model.inputs[0].shape[1:]])
    output_box(model, IntervalBound(image, image))


# ---- The graph

# An operation, names of its inputs, name of its output.
_Step = tuple[Any, list[int], int]


def _steps(model: keras.Model) -> list[_Step]:
    """The calls of layers in the order of computing; the model's input is named 0."""
    if isinstance(model, keras.Sequential):
        _check_model(model)
        return [(layer, [place], place + 1) for place, layer in enumerate(model.layers)]
    # Its calls, not its layers: a layer may be called twice, or be part of other models.
    nodes = calls_of(model)
    if nodes is None:
        raise _unbounded(model, "is no functional model, so its layers are not known")
    _check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _unbounded(model, "needs exactly one input and one output")
    names = {id(model.inputs[0]): 0}
    steps: list[_Step] = []
    for node in nodes:
        if node.is_input:
            continue
        if len(node.outputs) != 1:
            raise _unbounded(node.operation, "has several outputs")
        name = names.setdefault(id(node.outputs[0]), len(names))
        steps.append((node.operation, [names[id(t)] for t in node.input_tensors], name))
    # The last call gives the output, because the graph holds only calls that lead to it.
    assert steps and names[id(model.outputs[0])] == steps[-1][2]
    return steps


def _walk(model: keras.Model, box: IntervalBound, *, before_last: bool = False) -> IntervalBound:
    """Bounds on the model's output, or on the input of its last layer."""
    known = {0: box}
    steps = _steps(model)
    for operation, sources, result in steps[:-1]:
        known[result] = _through(operation, [known[source] for source in sources])
    last, sources, _ = steps[-1]
    inputs = [known[source] for source in sources]
    return inputs[0] if before_last else _through(last, inputs)


# ---- One layer


def _through(operation: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if isinstance(operation, keras.Model):
        return output_box(operation, inputs[0])
    rule = LAYERS.get(type(operation))
    if rule is None:
        raise _unbounded(operation, "has no interval bounds here")
    _check_dtype(operation)
    return rule(operation, inputs)


def _activated(layer: Any, box: IntervalBound) -> IntervalBound:
    if layer.activation in _EXACT_FUNCTIONS:
        return box.rising(layer.activation)
    if layer.activation not in _RISING_FUNCTIONS:
        raise _unbounded(layer, "has an activation that is not known to be increasing")
    return _smooth(layer.activation, box)


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
        raise _unbounded(layer, "has its channels first")
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
        raise _unbounded(layer, "does not normalize the last axis")
    dtype = inputs[0].dtype
    scale = tf.math.rsqrt(tf.cast(layer.moving_variance, dtype) + layer.epsilon)
    if layer.scale:
        scale *= tf.cast(layer.gamma, dtype)
    shift = tf.cast(layer.moving_mean, dtype) * scale
    beta = tf.cast(layer.beta, dtype) if layer.center else tf.zeros([], dtype)
    return _pixelwise(inputs[0], scale, beta - shift, tf.abs(beta) + tf.abs(shift))


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
        raise _unbounded(layer, f"interpolates {interpolation}, with negative weights")
    largest = tf.reduce_max(_largest(inputs[0].lower, inputs[0].upper), axis=[1, 2], keepdims=True)
    return _rising(layer, inputs).rounded(
        _FEW, lambda size: size + tf.cast(largest, inputs[0].dtype)
    )


def _exponential_linear(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.alpha < 0:
        raise _unbounded(layer, "decreases below zero")
    return _smooth(layer, inputs[0], max(float(layer.alpha), 1.0))


def _rectified(layer: Any, inputs: list[IntervalBound]) -> IntervalBound:
    if layer.max_value is not None and layer.max_value < layer.threshold:
        raise _unbounded(layer, "decreases where it is clipped")
    return _rising(layer, inputs)


_Rule = Callable[[Any, list[IntervalBound]], IntervalBound]
# Exact classes: a subclass may compute something else.
LAYERS: dict[type, _Rule] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _convolution,
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


def _check_dtype(layer: Any) -> None:
    if layer.compute_dtype != "float32":
        raise _unbounded(layer, f"computes in {layer.compute_dtype}; build the network in float32")
    if getattr(layer, "quantization_mode", None) is not None:
        raise _unbounded(layer, f"is quantized ({layer.quantization_mode})")


def _check_model(model: keras.Model) -> None:
    """Refuses a model with its own ``call`` or with inputs that are not float32."""
    if not type(model).call.__module__.startswith("keras."):
        raise _unbounded(model, "is a subclass with its own call")
    for tensor in getattr(model, "inputs", None) or ():
        if tensor.dtype != "float32":
            raise _unbounded(model, f"takes its images in {tensor.dtype}, which rounds them")


def _unbounded(layer: Any, why: str) -> UserError:
    return UserError(f"no interval bounds: {type(layer).__name__} {layer.name!r} {why}")
