"""Loads a classifier from a Keras file, a SavedModel or Python code."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import check_answers
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.files import file_digest
from bcgan_tf.loading import exported
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.loading.digest import KERAS_SUFFIXES, model_digest
from bcgan_tf.loading.python_code import import_attribute, source_file, split_spec
from bcgan_tf.loading.saved_model import folder_digest, read_saved_model, version_folder

_PROBE_ROWS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class SourceModel:
    """A model other than a Keras model: float32 images in [0, 1] to logits ``[B, K]``.

    Attributes:
        function: on tensors, of any batch size.
        fingerprint: SHA-256 of its files, or the attribute ``fingerprint`` of the user's function.
        backward: a differentiable stand-in (:func:`bcgan_tf.attacks.bpda.bpda`), or None.
    """

    function: Callable[[tf.Tensor], Any]
    fingerprint: str
    backward: Callable[[tf.Tensor], Any] | None = None

    def __call__(self, images: Any, training: bool = False) -> Any:
        """The logits. ``training`` is ignored; callers pass it as to a Keras model."""
        del training
        return self.function(tf.convert_to_tensor(images, tf.float32))


def load_model(
    spec: str | os.PathLike[str], *, image_shape: Sequence[int], num_classes: int
) -> Any:
    """A checked classifier that every attack takes.

    ``spec`` is one of

    - a ``.keras`` or ``.h5`` file (:func:`bcgan_tf.loading.classifier.load_classifier`);
    - the folder of a SavedModel, or one with integer versions of it, of which the newest is
      taken: the signature ``serving_default``, or the only one, with one float input and an output
      ``logits``, or one output. For one that this package exported with a Keras file, that Keras
      model is returned, after a check that both give the same logits;
    - ``module:attribute`` or ``file.py:attribute``: a Keras model, or a function on tensors,
      float32 images in [0, 1] to logits, that ``tf.function`` can trace. The current folder, or
      that of the file, is added to ``sys.path``. An attribute ``backward`` of the function is kept
      (:func:`bcgan_tf.attacks.bpda.bpda`), and its attribute ``fingerprint``, a text, replaces
      the digest of its source file. An evaluation also identifies it by its logits, in which
      weights that it reads show.

    Args:
        spec: see above.
        image_shape: of one image, ``(H, W, C)``, or ``(D,)`` for vectors.
        num_classes: the number of logits it must have.

    Returns:
        A Keras model, or a :class:`SourceModel`, which has a ``fingerprint``.

    Raises:
        UserError: it is missing or damaged, cannot be imported or traced, has other inputs or
            outputs, gives probabilities, or its logits depend on more than the image
            (:func:`bcgan_tf.attacks.answers.check_answers`).
    """
    text, shape = os.fspath(spec), tuple(int(side) for side in image_shape)
    path = Path(text)
    if path.suffix in KERAS_SUFFIXES:
        return load_classifier(path, image_shape=shape, num_classes=num_classes)
    if path.is_dir():
        version = version_folder(path)
        model = SourceModel(read_saved_model(version, shape), folder_digest(version))
        _check(text, model, shape, num_classes)
        twin = exported.read(version, model.function, image_shape=shape, num_classes=num_classes)
        return model if twin is None else twin
    if (code := split_spec(text)) is not None:
        found, digest = import_attribute(*code), source_digest(text)
        if isinstance(found, keras.Model):
            try:
                return load_classifier(found, image_shape=shape, num_classes=num_classes)
            except UserError as error:
                raise UserError(f"{text}: {error}") from error
        if not callable(found):
            raise UserError(
                f"{text} is a {type(found).__name__}; give a Keras model, or a function from "
                "images to logits"
            )
        own = getattr(found, "fingerprint", None)
        model = SourceModel(
            found, own if isinstance(own, str) else digest, getattr(found, "backward", None)
        )
    else:
        what = "is no model" if path.exists() else "does not exist"
        raise UserError(
            f"{text} {what}; give a .keras file, the folder of a SavedModel, or module:function"
        )
    _check(text, model, shape, num_classes)
    return model


def source_digest(spec: str | os.PathLike[str]) -> str:
    """SHA-256 of the Keras file's content, of the SavedModel, or of the source file.

    Runs and imports nothing.

    Raises:
        UserError: it does not exist.
    """
    text = os.fspath(spec)
    path = Path(text)
    if path.is_file():
        return model_digest(path)
    if path.is_dir():
        return folder_digest(version_folder(path))
    if (code := split_spec(text)) is not None:
        file = source_file(code[0])
        return file_digest(file) if file else hashlib.sha256(code[0].encode()).hexdigest()
    raise UserError(f"{text} does not exist")


def _check(name: str, model: SourceModel, shape: tuple[int, ...], num_classes: int) -> None:
    """Traces the model as attacks do and checks its logits on a few random images."""
    images = np.random.default_rng(0).random((_PROBE_ROWS, *shape), "float32")
    spec = tf.TensorSpec([None, *shape], tf.float32)
    try:
        traced = tf.function(checks.as_logits_fn(model), input_signature=[spec], autograph=False)
        traced.get_concrete_function()
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # a user's own code runs here
        raise UserError(
            f"{name} cannot be traced for float32 images [None, {', '.join(map(str, shape))}] "
            f"({first_line(error)}); write it with TensorFlow's operations, and wrap what is not "
            "in tf.numpy_function"
        ) from error
    try:
        traced(images[:1])  # a second size: a batch dimension must be free
        outputs = traced(images).numpy()
    except Exception as error:
        raise UserError(
            f"{name} fails on a batch of float32 images {shape} in [0, 1] ({first_line(error)}); "
            "check its input shape"
        ) from error
    if outputs.ndim != 2 or len(outputs) != _PROBE_ROWS:
        raise UserError(
            f"{name} returns shape {outputs.shape} for {_PROBE_ROWS} images, not logits "
            f"({_PROBE_ROWS}, {num_classes})"
        )
    if outputs.shape[1] != num_classes:
        raise UserError(
            f"{name} has {outputs.shape[1]} outputs, but there are {num_classes} classes; choose "
            "the dataset that it was trained on"
        )
    if np.isnan(outputs).any() or np.isposinf(outputs).any():
        raise UserError(f"{name} returns NaN or infinite logits for images in [0, 1]")
    # 1e-3 as in load_classifier: softmax in half precision sums to 1 only roughly.
    if checks.look_like_probabilities(outputs, 1e-3):
        raise UserError(
            f"{name} returns rows >= 0 that sum to 1: probabilities, not logits, which makes "
            "attacks fail silently; return what goes into its softmax"
        )
    try:
        check_answers(model, images)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
