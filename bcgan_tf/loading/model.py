"""Loads a classifier from a Keras file, a SavedModel or Python code."""

from __future__ import annotations

import dataclasses
import functools
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
from bcgan_tf.loading.adapted import HALF_TOLERANCE, LOGARITHM, logarithm, probes, two_classes
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.loading.digest import KERAS_SUFFIXES, model_digest
from bcgan_tf.loading.python_code import import_attribute, source_file, split_spec
from bcgan_tf.loading.reload import remember_loader
from bcgan_tf.loading.saved_model import folder_digest, read_saved_model, version_folder
from bcgan_tf.settings.convention import Convention


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
    spec: str | os.PathLike[str],
    *,
    image_shape: Sequence[int],
    num_classes: int,
    convention: Convention | None = None,
    told: Callable[[str], None] | None = None,
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
        convention: the pixels that it takes, and which of its outputs classifies.
        told: called with a sentence for each thing that is converted.

    Returns:
        A Keras model, or a :class:`SourceModel`, which has a ``fingerprint``.

    Raises:
        UserError: it is missing or damaged, cannot be imported or traced, has other inputs or
            outputs, or its logits depend on more than the image
            (:func:`bcgan_tf.attacks.answers.check_answers`).
    """
    convention = convention or Convention()
    shape = tuple(int(side) for side in image_shape)
    again = functools.partial(
        load_model, spec, image_shape=shape, num_classes=num_classes, convention=convention
    )
    model = _loaded(os.fspath(spec), shape, num_classes, convention, told or (lambda line: None))
    remember_loader(model, again)
    return model


def _loaded(
    text: str,
    shape: tuple[int, ...],
    num_classes: int,
    convention: Convention,
    told: Callable[[str], None],
) -> Any:
    path = Path(text)

    def keras_classifier(given: Any) -> keras.Model:
        found = adapted_classifier(
            given, image_shape=shape, num_classes=num_classes, convention=convention
        )
        for line in found.lines:
            told(line)
        return found.classifier

    if path.suffix in KERAS_SUFFIXES:
        return keras_classifier(path)
    if path.is_dir():
        version = version_folder(path)
        function = read_saved_model(version, shape, convention.output)
        model = _converted(SourceModel(function, folder_digest(version)), convention, shape, told)
        _check(text, model, shape, num_classes)
        twin = exported.read(
            version,
            model.function,
            image_shape=shape,
            num_classes=num_classes,
            convention=convention,
        )
        return model if twin is None else twin
    if (code := split_spec(text)) is not None:
        found, digest = import_attribute(*code), source_digest(text)
        if isinstance(found, keras.Model):
            try:
                return keras_classifier(found)
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
        model = _converted(model, convention, shape, told)
    else:
        what = "is no model" if path.exists() else "does not exist"
        raise UserError(
            f"{text} {what}; give a .keras file, the folder of a SavedModel, or module:function"
        )
    _check(text, model, shape, num_classes)
    return model


def _converted(
    model: SourceModel,
    convention: Convention,
    shape: tuple[int, ...],
    told: Callable[[str], None],
) -> SourceModel:
    """A function of images in [0, 1] to logits, made of one of another convention."""
    if not convention.identity:
        told(f"takes pixels as of {convention.options}")

    def behind_pixels(function: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
        if convention.identity:
            return function
        return lambda images: function(convention.from_unit(images))

    plain = behind_pixels(model.function)
    try:
        answers = np.asarray(plain(tf.constant(probes(shape))), np.float32)
    except Exception:  # a user's own code; the check that follows says what is wrong
        return model
    ending: Callable[[Any], Any] | None = None
    if answers.shape[1:] == (1,):
        share = bool((answers >= 0).all() and (answers <= 1).all())
        told("its single unit becomes the logits of two classes")
        ending = functools.partial(two_classes, probability=share)
    elif answers.ndim == 2 and checks.look_like_probabilities(answers, HALF_TOLERANCE):
        told(LOGARITHM)
        ending = logarithm
    if ending is None and convention.identity:
        return model
    end = ending or (lambda outputs: outputs)

    def converted(function: Callable[[tf.Tensor], Any] | None) -> Any:
        if function is None:
            return None
        inner = behind_pixels(function)
        return lambda images: end(inner(images))

    return SourceModel(converted(model.function), model.fingerprint, converted(model.backward))


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
    images = probes(shape)
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
    if outputs.ndim != 2 or len(outputs) != len(images):
        raise UserError(
            f"{name} returns shape {outputs.shape} for {len(images)} images, not logits "
            f"({len(images)}, {num_classes})"
        )
    if outputs.shape[1] != num_classes:
        raise UserError(
            f"{name} has {outputs.shape[1]} outputs, but there are {num_classes} classes; choose "
            "the dataset that it was trained on"
        )
    if np.isnan(outputs).any() or np.isposinf(outputs).any():
        raise UserError(f"{name} returns NaN or infinite logits for images in [0, 1]")
    try:
        check_answers(model, images)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
