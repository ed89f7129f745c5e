"""Versioned SavedModels for TensorFlow Serving, published atomically.

``saved_models/NAME/VERSION/`` holds the model, and beside it ``export.json``, its card. A server
polls ``saved_models/NAME`` and loads every folder whose name is an integer. A version is therefore
written under a hidden name, read back and compared, and then renamed.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.logits import below_top
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import model_digest
from bcgan_tf.files import DiskFull, check_name, disk_full, move_into_place, write_json
from bcgan_tf.keras_graph import input_of
from bcgan_tf.loading import exported
from bcgan_tf.loading.adapted import Adapted
from bcgan_tf.loading.classifier import adapted_classifier, input_shape
from bcgan_tf.loading.exported import probe_pixels, scale
from bcgan_tf.loading.saved_model import versions
from bcgan_tf.runs.environment import environment
from bcgan_tf.serving.card import of_evaluation
from bcgan_tf.serving.signatures import (
    MAX_MEGAPIXELS,
    own_signature,
    signatures_of,
    write_warm_up,
)
from bcgan_tf.settings.convention import Convention

CARD = exported.CARD
_STAGING = ".export-"
# Hidden folders older than this were left by a killed export: an export takes minutes.
_LEFTOVER_SECONDS = 24 * 3600
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
# Card keys for the caller to fill; null: not measured.
_MEASURED = ("defense", "clean_accuracy", "robust_accuracy", "run")
_ROBUST_KEYS = {"attack", "eps", "n", "accuracy"}


def export(
    classifier: keras.Model,
    directory: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    convention: Convention | None = None,
    evaluation: Evaluation | None = None,
    card: Mapping[str, Any] | None = None,
    keras_file: bool = True,
    check_pixels: bool = True,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Path:
    """Writes the next version of a served model.

    The endpoint ``serve``, which ``keras.layers.TFSMLayer`` takes by default, is the model as it
    was given. A model of another convention than images in [0, 1] to logits is served in its own:
    ``serving_default`` is then ``serve`` too, and ``serve_bytes`` as below.

    Signatures, both returning ``logits`` float32 ``[B, K]``, ``probabilities`` float32 ``[B, K]``
    and ``classes`` int64 ``[B]`` (indices into ``class_names``):

    - ``serving_default(images)``: float32 ``[B, H, W, C]`` in [0, 1] (``[B, D]`` for vectors);
    - ``serve_bytes(image_bytes)``: strings ``[B]``, PNG or JPEG of any size, decoded to gray or
      color and resized in the graph. Only for images of 1 or 3 channels.

    An invalid request gets an ``InvalidArgumentError`` that names the rows at fault and what to do:
    another shape, pixels that are not finite or leave [0, 1] by more than 1e-3 (values of vectors:
    not finite), bytes that are no whole PNG or JPEG, an image of more than ``max_megapixels`` by
    its header. An empty batch gets an empty answer.

    With ``tensorflow-serving-api`` installed (the extra ``serving``) one warm-up request for each
    signature is stored with the model, so that a server answers its first client at full speed.

    The classifier's Keras file is stored in ``assets.extra``, which servers ignore. With it,
    attacks on an exported model know its layers: they can differentiate through preprocessing and
    compute interval bounds, which a SavedModel's graph does not allow.

    Args:
        classifier: of any convention that :func:`bcgan_tf.loading.classifier.load_classifier`
            takes; it is not changed.
        directory: ``saved_models/NAME``, with a NAME of ASCII letters, digits, dots, dashes and
            underscores; made when missing. The new version is the highest present plus one;
            nothing that is there is overwritten.
        class_names: of the K logits, in order; None: their numbers.
        convention: the pixels that the classifier takes, where not those of [0, 1], and which of
            its outputs classifies.
        evaluation: what :func:`bcgan_tf.evaluate` found of this very model: its clean and its
            robust accuracy, with interval and verdict, go on the card.
        card: what else is known of the model, any JSON: ``defense`` (name or configuration, None
            for none), ``clean_accuracy``, ``robust_accuracy`` (a list, each entry with ``attack``,
            ``eps``, ``n`` and ``accuracy``), ``run`` (where it comes from). Classes, input,
            signatures and versions are added. :mod:`bcgan_tf.serving.card` makes one.
        keras_file: whether to store the Keras file, which holds every weight a second time. A model
            of custom classes has none in any case.
        check_pixels: whether ``serving_default`` looks at the pixels; shapes are always checked.
        max_megapixels: the largest image that ``serve_bytes`` decodes, in millions of pixels.
            Decoding takes about 10 bytes of memory per pixel, one image at a time.

    Returns:
        The folder of the new version.

    Raises:
        UserError: an invalid name or limit, a model that ``load_classifier`` refuses, a class count
            or a card that does not fit, an evaluation of another model, a folder that cannot be
            written, a full disk, or a model that reads back different.
    """
    directory = Path(directory)
    check_name(directory.name, "a served model")
    if not 0 < max_megapixels < math.inf:
        raise UserError(
            f"max_megapixels is {max_megapixels}; give a number above 0, such as {MAX_MEGAPIXELS:g}"
        )
    found = adapted_classifier(
        classifier, num_classes=len(class_names) if class_names else None, convention=convention
    )
    shape = _static_shape(found.classifier)
    if class_names is None:
        logits: Any = found.classifier(np.zeros((1, *shape), np.float32), training=False)
        class_names = [str(number) for number in range(logits.shape[-1])]
    if evaluation is not None:
        if evaluation.identity.get("model") != model_digest(found.classifier):
            raise UserError("the evaluation is of another model; evaluate the one to export")
        card = {**of_evaluation(evaluation), **(card or {})}
    checks = {"pixels": check_pixels, "max_megapixels": max_megapixels}
    signatures = signatures_of(
        found.classifier, shape, check_pixels=check_pixels, max_megapixels=max_megapixels
    )
    own = own_signature(classifier, shape, convention or Convention(), check_pixels=check_pixels)
    signatures["serve"] = own
    if found.changed:
        signatures["serving_default"] = own
    content = _card(
        found, convention or Convention(), directory.name, class_names, card or {},
        [name for name in signatures if name != "serve"], checks,
    )  # fmt: skip
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(directory)
        staging = directory / f"{_STAGING}{os.getpid()}-{secrets.token_hex(4)}"
        staging.mkdir()
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error.strerror}); choose another folder"
        ) from error
    try:
        # No archive.track(classifier): the endpoints hold their variables already, and track would
        # write each a second time.
        archive = keras.export.ExportArchive()
        for name, (function, spec) in signatures.items():
            archive.add_endpoint(name, function, input_signature=[spec])
        archive.write_out(str(staging), verbose=False)
        if not found.changed:
            write_warm_up(staging, directory.name, shape, list(signatures))
        if keras_file:
            content[exported.CARD_KEY] = exported.write(classifier, staging, convention)
        write_json(staging / CARD, content)
        if found.changed:
            _verify_own(staging, classifier, convention or Convention())
        else:
            verify(staging, classifier)
        return _publish(staging, directory)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if disk_full(error):
            raise DiskFull(
                f"the disk of {directory} is full; make room on it, or choose another folder"
            ) from error
        raise


def verify(
    path: str | os.PathLike[str],
    classifier: keras.Model | None = None,
    *,
    tolerance: float = 1e-5,
) -> float:
    """Reads an exported model back and checks its outputs on fixed random inputs.

    The three outputs must agree with each other, PNG bytes with the images they encode, and the
    logits with the classifier's where one is given. Runs on the CPU, in full float32.

    Args:
        path: a version folder, or the model's folder for its newest version.
        classifier: the model that was exported.
        tolerance: absolute plus relative difference allowed.

    Returns:
        The largest absolute difference of the logits from the classifier's (0.0 without one).

    Raises:
        UserError: no exported model there, or outputs that differ.
    """
    path = Path(path)
    if not (path / "saved_model.pb").is_file():
        found = versions(path)
        if not found:
            raise UserError(f"{path} holds no exported model; export one there first")
        return verify(path / str(max(found)), classifier, tolerance=tolerance)

    def compare(what: str, found: Any, expected: Any) -> None:
        if not np.allclose(found, expected, rtol=tolerance, atol=tolerance):
            worst = np.abs(np.asarray(found, "float64") - expected).max()
            raise UserError(f"{path}: {what} differ by up to {worst:.3g}; export the model again")

    with tf.device("/CPU:0"):
        try:
            signatures = tf.saved_model.load(os.fspath(path)).signatures
            serve = signatures["serving_default"]
            (spec,) = serve.structured_input_signature[1].values()
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} is no model exported by bcgan_tf; export it again") from error
        pixels = probe_pixels(tuple(spec.shape[1:]))
        images = scale(pixels)
        answer = serve(images=images)
        logits = answer["logits"].numpy()
        if not np.isfinite(logits.max(axis=1)).all():  # minus infinity masks a class
            raise UserError(f"{path} gives NaN or infinite logits; train the model again")
        compare("probabilities and softmax(logits)", answer["probabilities"], tf.nn.softmax(logits))
        compare("classes and argmax(logits)", answer["classes"], logits.argmax(-1))
        if "serve_bytes" in signatures:
            png = tf.stack([tf.io.encode_png(image) for image in pixels])
            from_bytes = signatures["serve_bytes"](image_bytes=png)["logits"]
            compare(
                "logits of images and of the same images as PNG",
                below_top(from_bytes),
                below_top(logits),
            )
        if classifier is None:
            return 0.0
        expected = tf.function(lambda x: classifier(x, training=False))(images)
        expected = tf.cast(expected, tf.float32).numpy()
        if expected.shape != logits.shape:
            raise UserError(f"{path} has {logits.shape[1]} classes, not {expected.shape[1]}")
        compare("logits and those of the given classifier", below_top(logits), below_top(expected))
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(below_top(logits) - below_top(expected))))


def _verify_own(staging: Path, classifier: keras.Model, convention: Convention) -> None:
    """Reads an exported model back and compares its answers with those of the user's.

    Raises:
        UserError: they differ.
    """
    loaded: Any = tf.saved_model.load(os.fspath(staging))
    serve = loaded.signatures["serving_default"]
    ((key, spec),) = serve.structured_input_signature[1].items()
    unit = np.random.default_rng(0).random([side or 8 for side in spec.shape], "float32")
    images = tf.cast(convention.probe(unit), spec.dtype)
    expected = keras.tree.flatten(loaded.serve(images))
    with tf.device("/CPU:0"):
        taken = input_of(classifier)
        given = {key: images} if taken is not None and taken[1] is not None else images
        answers = keras.tree.flatten(tf.function(classifier)(given, training=False))
        for served, own in zip(expected, answers, strict=True):
            if not np.allclose(served, own, rtol=1e-5, atol=1e-5):
                raise UserError(f"{staging}: answers differ from the model's; export it again")


def _static_shape(classifier: keras.Model) -> tuple[int, ...]:
    shape = input_shape(classifier)
    if shape is None or None in shape:
        raise UserError(
            f"a served model needs a fixed input shape, not {shape}; put one in front: "
            "keras.Sequential([keras.Input((height, width, channels)), model])"
        )
    return tuple(side for side in shape if side is not None)


def _card(
    found: Adapted,
    convention: Convention,
    name: str,
    class_names: Sequence[str],
    given: Mapping[str, Any],
    signatures: list[str],
    checks: Mapping[str, Any],
) -> dict[str, Any]:
    built_with = environment()
    shape = _static_shape(found.classifier)
    own = {
        "model": name,
        "classes": [str(class_name) for class_name in class_names],
        "input": {
            "shape": list(shape),
            "dtype": "float32",
            "range": list(convention.limits) if len(shape) == 3 else None,
        },
        "signatures": signatures,
        "checks": dict(checks),
        "parameters": found.classifier.count_params(),
        "versions": {key: built_with[key] for key in ("bcgan_tf", "tensorflow", "keras", "python")},
    }
    if found.changed:
        own["convention"] = {**convention.to_dict(), "converted": list(found.lines)}
    clash = sorted({*own, exported.CARD_KEY} & set(given))
    if clash:
        raise UserError(f"the card's {', '.join(clash)} is filled in by export; leave it out")
    for entry in given.get("robust_accuracy") or ():
        missing = _ROBUST_KEYS - set(entry) if isinstance(entry, Mapping) else _ROBUST_KEYS
        if missing:
            raise UserError(
                f"a robust accuracy on the card lacks {', '.join(sorted(missing))}; say for every "
                "one which attack, at which eps (None for unbounded), on how many images n"
            )
    return own | dict.fromkeys(_MEASURED) | dict(given)


def served_name(dataset: str, kind: str) -> str:
    """The default name of a run's model.

    Args:
        dataset: its name; characters that are not allowed become dashes.
        kind: the defence, or ``"original"``.

    Raises:
        UserError: ``kind`` is not a valid name.
    """
    return f"{_UNFIT.sub('-', dataset)}-{check_name(kind, 'a defence')}"


def _publish(staging: Path, directory: Path) -> Path:
    """Renames to the next free version; tries the one after it if another export was faster."""
    version = max(versions(directory), default=0) + 1
    while True:
        target = directory / str(version)
        try:
            return move_into_place(staging, target)
        except OSError:  # a rename never replaces a folder that is not empty
            if not target.exists():
                raise
            version += 1


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(f"{_STAGING}*"):
        if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
