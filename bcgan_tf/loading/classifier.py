"""Taking in a user's own Keras classifier: read it, check it, and say how to repair it.

What the package needs of a classifier: one input, float32 images in [0, 1], NHWC (or vectors), and
one output, logits ``[B, K]``. Everything that can be known without data is checked here, once, so
that a wrong model fails with one line instead of with meaningless robustness figures later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks.checks import look_like_probabilities
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.keras_graph import PROBABILITY_ACTIVATIONS, final_activation
from bcgan_tf.loading.keras_file import read_keras_file

_PROBE_ROWS = 8
# Scaling by 1/255, 1/127.5 or a standard deviation of 0 ... 255 pixels leaves less of [0, 1].
_SMALLEST_SPAN = 0.02
# Layers and operations that move or scale pixels one by one, as found in front of a network.
_PIXELWISE = re.compile(
    r"Rescaling|Normalization|TrueDivide|Divide|Multiply|Subtract|Add|Cast|Reshape|ExpandDims|"
    r"Flatten|Permute|Transpose|Resizing|CenterCrop|ZeroPadding2D|Random.*|GaussianNoise"
)


def load_classifier(
    model_or_path: keras.Model | str | os.PathLike[str],
    *,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> keras.Model:
    """A user's classifier, checked.

    Takes functional, Sequential and subclassed models. Whether the model was *trained* on [0, 1]
    cannot be checked in general; a rescaling from [0, 255] in its first layers is recognized.

    Args:
        model_or_path: a Keras model, or a ``.keras`` (or legacy ``.h5``) file of one. Custom
            classes in a file must be registered before
            (``keras.saving.register_keras_serializable``).
        image_shape: the images it will get, ``(H, W, C)``, or ``(D,)`` for vectors. Needed for a
            model that does not know its own input shape.
        num_classes: the number of logits it must have.

    Returns:
        The given object itself (an unbuilt one has then been built), or the model read, without
        its optimizer.

    Raises:
        UserError: missing, broken or weights-only file; custom objects; several inputs or outputs;
            wrong input shape or class count; pixels expected in [0, 255]; NaN; probabilities
            instead of logits.
    """
    if isinstance(model_or_path, str | os.PathLike):
        name = os.fspath(model_or_path)
        model = read_keras_file(Path(model_or_path))
    else:
        name = "the classifier"
        model = model_or_path
    if not isinstance(model, keras.Model):
        raise UserError(
            f"{name} is a {type(model).__module__}.{type(model).__name__}, not a Keras 3 model; "
            "give a keras.Model or a .keras file"
        )
    shape = _checked_shape(name, model, image_shape)
    outputs = _probe(name, model, shape)
    _check_pixel_range(name, model, shape)
    _check_logits(name, model, outputs, num_classes)
    return model


def input_shape(classifier: keras.Model) -> tuple[int | None, ...] | None:
    """The shape of one input, ``(H, W, C)`` or ``(D,)``, None where a side is free.

    Returns None for a model that was never built and does not know its shape.

    Raises:
        UserError: when the model has several inputs.
    """
    try:
        shape = classifier.input_shape
    except AttributeError:  # subclassed, or not built yet
        shape = (classifier.get_build_config() or {}).get("input_shape")
    if shape is None:
        return None
    if isinstance(shape, dict) or any(isinstance(side, list | tuple | dict) for side in shape):
        raise UserError(
            "the classifier has several inputs; give a model with one, the images "
            "(keras.Model(images, logits))"
        )
    return tuple(shape[1:])


def _checked_shape(name: str, model: keras.Model, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one example to probe with."""
    declared = input_shape(model)
    dtypes = {keras.backend.standardize_dtype(tensor.dtype) for tensor in _inputs(model)}
    if any(not dtype.startswith(("float", "bfloat")) for dtype in dtypes):
        raise UserError(
            f"{name} takes {dtypes.pop()} inputs; attacks differentiate with respect to the "
            "images, so build it with a float32 input in [0, 1]"
        )
    if wanted is None:
        if declared is None or None in declared:
            raise UserError(
                f"{name} does not fix its input shape ({declared}); say which images it gets: "
                "image_shape=(height, width, channels)"
            )
        return tuple(side for side in declared if side is not None)
    wanted = tuple(int(side) for side in wanted)
    if declared is not None and (
        len(declared) != len(wanted)
        or any(d not in (None, w) for d, w in zip(declared, wanted, strict=True))
    ):
        raise UserError(
            f"{name} takes inputs of shape {declared}, but the images are {wanted}; "
            + _shape_advice(declared, wanted)
        )
    return wanted


def _shape_advice(declared: tuple[int | None, ...], wanted: tuple[int, ...]) -> str:
    sides = [side for side in declared if side is not None]
    adapter = None
    if len(wanted) == 3 and declared == (wanted[2], *wanted[:2]):  # channels first
        adapter = "Permute((3, 1, 2))"
    elif len(sides) == len(declared) and np.prod(sides) == np.prod(wanted):
        adapter = f"Reshape({declared})"
    elif len(wanted) == len(sides) == 3 and declared[2] == wanted[2]:
        adapter = f"Resizing({declared[0]}, {declared[1]})"
    if adapter is None:
        return "choose the dataset that it was trained on, or a classifier for these images"
    return f"put an adapter in front: {_in_front(wanted, adapter)}"


def _in_front(shape: tuple[int, ...], layer: str) -> str:
    return f"keras.Sequential([keras.Input({shape}), keras.layers.{layer}, model])"


def _check_pixel_range(name: str, model: keras.Model, shape: tuple[int, ...]) -> None:
    """Refuses a model whose first layers scale [0, 1] to a range below 0.02."""
    if len(shape) != 3:
        return  # vectors have no fixed range
    black_and_white = np.stack([np.zeros(shape, "float32"), np.ones(shape, "float32")])
    black, white = np.asarray(_after_pixelwise(model, black_and_white)[0], "float32")
    span = float(np.abs(white - black).max())
    if span < _SMALLEST_SPAN:
        raise UserError(
            f"{name} seems to expect pixels in [0, 255] (its first layers scale a range of 1 down "
            f"to {span:.2g}), but every image here is in [0, 1]; scale it back in front: "
            + _in_front(shape, "Rescaling(255.0)")
        )


def _after_pixelwise(model: keras.Model, images: Any) -> tuple[Any, bool]:
    """``images`` after the leading pixelwise layers, and whether all layers are pixelwise.

    Includes nested models, such as an augmentation. A subclassed model has no known layers.
    """
    inputs = _inputs(model)
    if not inputs:
        return images, False
    values = images
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        if isinstance(operation, keras.Model):
            values, all_pixelwise = _after_pixelwise(operation, values)
            if not all_pixelwise:
                return values, False
            continue
        if not _PIXELWISE.fullmatch(type(operation).__name__):
            return values, False
        try:
            result = operation.output
        except AttributeError:  # a layer that is used twice has no single output
            return values, False
        values = keras.Model(inputs[0], result)(images, training=False)
    return values, True


def _probe(name: str, model: keras.Model, shape: tuple[int, ...]) -> np.ndarray:
    """Outputs for a few random inputs, rows ``[_PROBE_ROWS, K]``."""
    rng = np.random.default_rng(0)
    images = rng.random((_PROBE_ROWS, *shape), "float32")
    outputs: Any = None
    try:
        if isinstance(model, keras.Sequential) and not model.built:
            model.build((None, *shape))  # or the first batch's size would be part of the shape
        for rows in (1, _PROBE_ROWS):  # two sizes: a batch dimension must be free
            outputs = model(images[:rows], training=False)
    except Exception as error:  # a user's own code runs here
        raise UserError(
            f"{name} fails on a batch of float32 images {shape} in [0, 1], training=False "
            f"({first_line(error)}); check its input shape"
        ) from error
    if isinstance(outputs, dict | list | tuple):
        raise UserError(
            f"{name} returns a {type(outputs).__name__}, not one tensor of logits; give the part "
            "that classifies: keras.Model(model.inputs[0], logits)"
        )
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))


def _check_logits(
    name: str, model: keras.Model, outputs: np.ndarray, num_classes: int | None
) -> None:
    if outputs.ndim != 2 or len(outputs) != _PROBE_ROWS:
        raise UserError(
            f"{name} returns shape {outputs.shape} for {_PROBE_ROWS} images, not logits "
            f"({_PROBE_ROWS}, K); flatten or pool before its last Dense layer"
        )
    classes = outputs.shape[1]
    if classes == 1:
        raise UserError(
            f"{name} has a single output unit; logits need one per class, so end in Dense(2) "
            "without activation (a trained unit w, b becomes the kernel [0, w], the bias [0, b])"
        )
    if num_classes is not None and classes != num_classes:
        raise UserError(
            f"{name} has {classes} outputs, but there are {num_classes} classes; choose the "
            f"dataset that it was trained on, or end it in Dense({num_classes})"
        )
    if np.isnan(outputs).any() or np.isposinf(outputs).any():
        raise UserError(
            f"{name} returns NaN or infinite logits for images in [0, 1]; its training diverged, "
            "so train it again or take an earlier checkpoint"
        )
    activation, removal = final_activation(model)
    # 1e-3: softmax in bfloat16 or float16 sums to 1 only roughly.
    by_values = look_like_probabilities(outputs, 1e-3)
    if activation in PROBABILITY_ACTIVATIONS or by_values:
        what = f"ends in {activation}" if activation else "returns rows >= 0 that sum to 1"
        raise UserError(
            f"{name} {what}: probabilities, not logits, which makes attacks fail silently; "
            f"remove it: {removal}"
        )


def _inputs(model: keras.Model) -> list[Any]:
    """The symbolic inputs; none for a subclassed or unbuilt model."""
    try:
        return list(model.inputs)
    except AttributeError:
        return []
