"""Interval bounds: what a network can answer when every pixel may move within its own interval.

Each layer turns a box around its inputs into a box around its outputs (interval arithmetic). The
bounds hold for every point of the box, up to the rounding of float32, and grow looser with depth.

Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
Verifiably Robust Models", section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.networks.layers import ResumableDropout


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """All points between two tensors of one shape, ``lower <= upper``."""

    lower: tf.Tensor
    upper: tf.Tensor

    def affine(self, linear: Callable[[Any], Any], size: Callable[[Any], Any]) -> Box:
        """Bounds of an affine map.

        Args:
            linear: the map.
            size: the map without its constant, its factors replaced by their absolute values.
        """
        centre = linear((self.lower + self.upper) / 2.0)
        radius = size((self.upper - self.lower) / 2.0)
        return Box(centre - radius, centre + radius)

    def rising(self, function: Callable[[Any], Any]) -> Box:
        """Bounds of a function that falls nowhere."""
        return Box(function(self.lower), function(self.upper))


def output_box(model: keras.Model, box: Box) -> Box:
    """Bounds on the outputs of a functional or sequential model, as it predicts.

    Args:
        model: of the layers that :data:`LAYERS` names, in float32.
        box: its inputs, float32 ``[B, ...]``.

    Returns:
        Contains the model's output for every point of the box.

    Raises:
        UserError: there is no bound for one of its layers; the message names it.
    """
    return _walk(model, box)


def last_layer_box(model: keras.Model, box: Box) -> tuple[Box, keras.layers.Dense | None]:
    """Bounds on what the last layer sees, and that layer, where it is linear: dense, no activation.

    Else the bounds on the outputs, and None. Arguments and errors as of :func:`output_box`.
    """
    last = _steps(model)[-1][0]
    if isinstance(last, keras.Model):
        return last_layer_box(last, _walk(model, box, before_last=True))
    if type(last) is keras.layers.Dense and last.activation is keras.activations.linear:
        _check_dtype(last)
        return _walk(model, box, before_last=True), last
    return output_box(model, box), None


def require_bounds(model: keras.Model) -> None:
    """Nothing for a model that can be bounded, else the UserError of :func:`output_box`."""
    _steps(model)
    image = tf.zeros([1, *model.inputs[0].shape[1:]])
    output_box(model, Box(image, image))


# ---- The graph

# An operation, names of its inputs, name of its output.
_Step = tuple[Any, list[int], int]


def _steps(model: keras.Model) -> list[_Step]:
    """The calls of layers in the order of computing; the model's input is named 0."""
    if isinstance(model, keras.Sequential):
        _check_model(model)
        return [(layer, [place], place + 1) for place, layer in enumerate(model.layers)]
    # By its calls, not its layers: one may be called twice, or stand in other models too.
    by_depth = getattr(model, "_nodes_by_depth", None)
    if by_depth is None:
        raise _unbounded(model, "is no functional model, so its layers are not known")
    _check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _unbounded(model, "has not one input and one output")
    names = {id(model.inputs[0]): 0}
    steps: list[_Step] = []
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            if len(node.outputs) != 1:
                raise _unbounded(node.operation, "has several outputs")
            name = names.setdefault(id(node.outputs[0]), len(names))
            steps.append((node.operation, [names[id(t)] for t in node.input_tensors], name))
    # What is computed last is the output, as nothing is computed that does not lead to it.
    assert steps and names[id(model.outputs[0])] == steps[-1][2]
    return steps


def _walk(model: keras.Model, box: Box, *, before_last: bool = False) -> Box:
    """The box of the model's output, or of what its last layer sees."""
    known = {0: box}
    steps = _steps(model)
    for operation, sources, result in steps[:-1]:
        known[result] = _through(operation, [known[source] for source in sources])
    last, sources, _ = steps[-1]
    inputs = [known[source] for source in sources]
    return inputs[0] if before_last else _through(last, inputs)


# ---- One layer


def _through(operation: Any, inputs: list[Box]) -> Box:
    if isinstance(operation, keras.Model):
        return output_box(operation, inputs[0])
    rule = LAYERS.get(type(operation))
    if rule is None:
        raise _unbounded(operation, "has no interval bounds here")
    _check_dtype(operation)
    return rule(operation, inputs)


def _activated(layer: Any, box: Box) -> Box:
    if layer.activation not in _RISING_FUNCTIONS:
        raise _unbounded(layer, "has an activation that is not known to rise")
    return box.rising(layer.activation)


def _dense(layer: Any, inputs: list[Box]) -> Box:
    kernel = tf.convert_to_tensor(layer.kernel)
    bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else 0.0
    box = inputs[0].affine(
        lambda x: keras.ops.matmul(x, kernel) + bias,
        lambda x: keras.ops.matmul(x, tf.abs(kernel)),
    )
    return _activated(layer, box)


def _convolution(layer: Any, inputs: list[Box]) -> Box:
    kernel = tf.convert_to_tensor(layer.kernel)
    if layer.data_format != "channels_last":
        raise _unbounded(layer, "has its channels first")
    bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else 0.0

    def convolved(x: Any, factors: Any) -> Any:
        return keras.ops.conv(
            x,
            factors,
            strides=list(layer.strides),
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    box = inputs[0].affine(
        lambda x: convolved(x, kernel) + bias, lambda x: convolved(x, tf.abs(kernel))
    )
    return _activated(layer, box)


def _rescaling(layer: Any, inputs: list[Box]) -> Box:
    scale = tf.convert_to_tensor(layer.scale, tf.float32)
    offset = tf.convert_to_tensor(layer.offset, tf.float32)
    return inputs[0].affine(lambda x: x * scale + offset, lambda x: x * tf.abs(scale))


def _batch_normalization(layer: Any, inputs: list[Box]) -> Box:
    if layer.axis not in (-1, len(inputs[0].lower.shape) - 1):
        raise _unbounded(layer, "does not normalise the last axis")
    scale = tf.math.rsqrt(tf.convert_to_tensor(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * tf.convert_to_tensor(layer.gamma)
    offset = -tf.convert_to_tensor(layer.moving_mean) * scale
    if layer.center:
        offset = offset + tf.convert_to_tensor(layer.beta)
    return inputs[0].affine(lambda x: x * scale + offset, lambda x: x * tf.abs(scale))


def _identity(layer: Any, inputs: list[Box]) -> Box:
    del layer
    return inputs[0]


def _rising(layer: Any, inputs: list[Box]) -> Box:
    if len(inputs) == 1:
        return inputs[0].rising(layer)
    return Box(layer([box.lower for box in inputs]), layer([box.upper for box in inputs]))


def _resizing(layer: Any, inputs: list[Box]) -> Box:
    if layer.interpolation not in ("nearest", "bilinear"):
        raise _unbounded(layer, f"interpolates {layer.interpolation}, with negative weights")
    return _rising(layer, inputs)


def _exponential_linear(layer: Any, inputs: list[Box]) -> Box:
    if layer.alpha < 0:
        raise _unbounded(layer, "falls below zero")
    return _rising(layer, inputs)


def _rectified(layer: Any, inputs: list[Box]) -> Box:
    if layer.max_value is not None and layer.max_value < layer.threshold:
        raise _unbounded(layer, "falls where it is cut off")
    return _rising(layer, inputs)


_Rule = Callable[[Any, list[Box]], Box]
# By the very class: a subclass may compute something else.
LAYERS: dict[type, _Rule] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _convolution,
    keras.layers.Rescaling: _rescaling,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Activation: lambda layer, inputs: _activated(layer, inputs[0]),
    keras.layers.ReLU: _rectified,
    keras.layers.ELU: _exponential_linear,
    keras.layers.Resizing: _resizing,
    **dict.fromkeys(
        (
            keras.layers.LeakyReLU,
            keras.layers.Normalization,  # by a standard deviation, which is positive
            keras.layers.Flatten,
            keras.layers.Reshape,
            keras.layers.Permute,
            keras.layers.ZeroPadding2D,
            keras.layers.Cropping2D,
            keras.layers.CenterCrop,
            keras.layers.MaxPooling2D,
            keras.layers.AveragePooling2D,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.GlobalAveragePooling2D,
            keras.layers.Add,
            keras.layers.Average,
            keras.layers.Maximum,
            keras.layers.Minimum,
            keras.layers.Concatenate,
        ),
        _rising,
    ),
    # As the model predicts.
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
_RISING_FUNCTIONS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.leaky_relu,
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
        raise _unbounded(layer, f"is quantised ({layer.quantization_mode})")


def _check_model(model: keras.Model) -> None:
    """Refuses what the layers alone do not tell: a call, or inputs, of the model's own."""
    if not type(model).call.__module__.startswith("keras."):
        raise _unbounded(model, "computes in its own way (a subclass with a call)")
    for tensor in getattr(model, "inputs", None) or ():
        if tensor.dtype != "float32":
            raise _unbounded(model, f"takes its images in {tensor.dtype}, which rounds them")


def _unbounded(layer: Any, why: str) -> UserError:
    return UserError(f"no interval bounds: {type(layer).__name__} {layer.name!r} {why}")
