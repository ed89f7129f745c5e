"""Taking in a user's own Keras classifier: read it, check it, convert it, say what was converted.

What can be known without data is checked here, once, so that a wrong model fails with one message
instead of with meaningless robustness figures later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.errors import UserError, first_line
from bcgan_tf.keras_graph import calls_of, final_activation, graph_of
from bcgan_tf.loading.adapted import Adapted, adapt, answers
from bcgan_tf.loading.keras_file import read_keras_file
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.fields import refuse

# Scaling by 1/255, 1/127.5 or a standard deviation of 0 ... 255 pixels leaves less of [0, 1].
_SMALLEST_SPAN = 0.02
# Layers and operations that move or scale pixels one by one, as found in front of a network.
_PIXELWISE = re.compile(
    r"Rescaling|Normalization|TrueDivide|Divide|Multiply|Subtract|Add|Cast|Reshape|ExpandDims|"
    r"Flatten|Permute|Transpose|Resizing|CenterCrop|ZeroPadding2D|Flip|Random.*|GaussianNoise"
)


def load_classifier(
    model_or_path: keras.Model | str | os.PathLike[str],
    *,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    convention: Convention | None = None,
) -> keras.Model:
    """A user's classifier, checked, from float32 images in [0, 1] to logits ``[B, K]``.

    A softmax or a sigmoid at its end is taken off where the graph shows it; a single unit becomes
    two logits; type, batch size and axes of its input are converted. Whether the model was
    *trained* on [0, 1] cannot be known without data
    (:func:`bcgan_tf.loading.usual_conventions.check_convention`); a rescaling from [0, 255] in its
    first layers is recognized.

    Args:
        model_or_path: a Keras model, functional, Sequential or subclassed, or a ``.keras`` (or
            legacy ``.h5``) file of one. Custom classes in a file must be registered before
            (``keras.saving.register_keras_serializable``).
        image_shape: the images it will get, ``(H, W, C)``, or ``(D,)`` for vectors. Needed for a
            model that does not know its own input shape.
        num_classes: the number of logits it must have.
        convention: the pixels that it takes, and which of its outputs classifies.

    Returns:
        The given object itself (an unbuilt one has then been built) where nothing is to convert, or
        the model read, without its optimizer; else a model around its layers.

    Raises:
        UserError: missing, broken or weights-only file; custom objects; several inputs, or outputs
            of which none is named; wrong input shape or class count; pixels expected in
            [0, 255]; NaN.
    """
    return adapted_classifier(
        model_or_path, image_shape=image_shape, num_classes=num_classes, convention=convention
    ).classifier


def adapted_classifier(
    model_or_path: keras.Model | str | os.PathLike[str],
    *,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    convention: Convention | None = None,
) -> Adapted:
    """As :func:`load_classifier`, with the user's model and what was converted of it."""
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
    convention = convention or Convention()
    declared = input_shape(model)
    shape = _shape_of_images(name, declared) if image_shape is None else tuple(image_shape)
    if isinstance(model, keras.Sequential) and not model.built:
        try:
            model.build((None, *shape))  # or the first batch's size would be part of the shape
        except Exception as error:  # a user's own code runs here
            raise UserError(f"{name} cannot be built for {shape} ({first_line(error)})") from error
    found = adapt(name, model, image_shape=shape, declared=declared, convention=convention)
    outputs = answers(name, found.classifier, shape)
    refuse(
        [*_range_faults(name, found.classifier, shape), *_logit_faults(name, outputs, num_classes)]
    )
    if final_activation(model, convention.output) == "hard_sigmoid":
        raise UserError(
            f"{name} ends in hard_sigmoid, which answers 0 or 1 to most images; end it in a layer "
            "without activation"
        )
    return found


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


def _shape_of_images(name: str, declared: tuple[int | None, ...] | None) -> tuple[int, ...]:
    """The shape of one image of a model that is given without images."""
    if declared is None or None in declared:
        raise UserError(
            f"{name} does not fix its input shape ({declared}); say which images it gets: "
            "image_shape=(height, width, channels)"
        )
    sides = tuple(side for side in declared if side is not None)
    return (*sides, 1) if len(sides) == 2 else sides


def _range_faults(name: str, model: keras.Model, shape: tuple[int, ...]) -> list[str]:
    """What is wrong with a model whose first layers scale [0, 1] to a range below 0.02."""
    if len(shape) != 3:
        return []  # vectors have no fixed range
    black_and_white = np.stack([np.zeros(shape, "float32"), np.ones(shape, "float32")])
    black, white = np.asarray(_after_pixelwise(model, black_and_white)[0], "float32")
    span = float(np.abs(white - black).max())
    if span >= _SMALLEST_SPAN:
        return []
    return [
        f"{name} seems to expect pixels in [0, 255] (its first layers scale a range of 1 down to "
        f"{span:.2g}); say so: --input-range 0..255, or in Python "
        'convention=Convention(input_range="0..255")'
    ]


def _after_pixelwise(model: keras.Model, images: Any) -> tuple[Any, bool]:
    """``images`` after the leading pixelwise layers, and whether all layers are pixelwise.

    Includes nested models, such as an augmentation. A subclassed model has no known layers.
    """
    graph = graph_of(model)
    nodes, values = calls_of(graph), images
    if nodes is None:
        return images, False
    for node in nodes:
        if node.is_input:
            continue
        if isinstance(node.operation, keras.Model):
            values, all_pixelwise = _after_pixelwise(node.operation, values)
            if not all_pixelwise:
                return values, False
            continue
        if not _PIXELWISE.fullmatch(type(node.operation).__name__):
            return values, False
        values = keras.Model(graph.inputs[0], node.outputs[0])(images, training=False)
    return values, True


def _logit_faults(name: str, outputs: np.ndarray, num_classes: int | None) -> list[str]:
    if outputs.ndim != 2:
        return [
            f"{name} returns shape {outputs.shape} for {len(outputs)} images, not logits "
            f"({len(outputs)}, K); flatten or pool before its last Dense layer"
        ]
    faults = []
    classes = outputs.shape[1]
    if num_classes is not None and classes != num_classes:
        faults.append(
            f"{name} has {classes} outputs, but there are {num_classes} classes; choose the "
            f"dataset that it was trained on, or end it in Dense({num_classes})"
        )
    if np.isnan(outputs).any() or np.isposinf(outputs).any():
        faults.append(
            f"{name} returns NaN or infinite logits for images in [0, 1]; its training diverged, "
            "so train it again or take an earlier checkpoint"
        )
    return faults
