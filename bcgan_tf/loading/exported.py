"""The Keras file inside an exported SavedModel, by which attacks see its layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.logits import below_top
from bcgan_tf.data.dataset import PIXEL_SCALE
from bcgan_tf.errors import UserError
from bcgan_tf.files import file_digest
from bcgan_tf.loading.classifier import adapted_classifier, load_classifier
from bcgan_tf.loading.digest import model_digest
from bcgan_tf.settings.convention import Convention

# A server ignores files that it does not know in this folder of a version.
EXTRA = "assets.extra"
CARD = "export.json"
FILE = f"{EXTRA}/classifier.keras"
CARD_KEY = "keras_file"
_TOLERANCE = 1e-4
_PROBE_ROWS = 16


def write(
    classifier: keras.Model, folder: Path, convention: Convention | None = None
) -> dict[str, str] | None:
    """Saves the classifier into the folder of an exported version.

    Args:
        classifier: not changed; without its optimizer in the file.
        folder: of the version.
        convention: of the classifier.

    Returns:
        For the card: ``path``, ``sha256`` of the file, and ``model_sha256``
        (:func:`bcgan_tf.loading.digest.model_digest`), by which ``bcgan-tf attack`` identifies a
        model. None, and no file, where Keras alone cannot read it back: custom classes, Lambda
        layers.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    try:
        classifier.save(file)
        # Again, without the optimizer.
        adapted_classifier(file, convention=convention).given.save(file)
    except OSError:  # a full disk must not look like a model without a Keras file
        raise
    except Exception:  # a class of a user's own may fail in any way
        file.unlink(missing_ok=True)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
        return None
    return {"path": FILE, "sha256": file_digest(file), "model_sha256": model_digest(file)}


def read(
    folder: Path,
    serve: Callable[[tf.Tensor], Any],
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    convention: Convention | None = None,
) -> keras.Model | None:
    """The Keras model of an exported version, after a check that it gives the SavedModel's logits.

    Args:
        folder: of the version.
        serve: the SavedModel, images to logits.
        image_shape: of one image.
        num_classes: the number of logits.
        convention: of the model.

    Returns:
        None where the export has no Keras file.

    Raises:
        UserError: the file is not the one that was exported, or gives other logits.
    """
    file, told = folder / FILE, _on_card(folder)
    if told is None and not file.exists():
        return None
    if told is None or not file.is_file() or file_digest(file) != told.get("sha256"):
        raise UserError(
            f"{file} is not the file that was exported with the SavedModel; export it again"
        )
    model = load_classifier(
        file, image_shape=image_shape, num_classes=num_classes, convention=convention
    )
    images = scale(probe_pixels(image_shape))
    answers = np.asarray(tf.function(serve)(images))
    own = np.asarray(tf.function(lambda x: model(x, training=False))(images), np.float32)
    if not np.allclose(below_top(own), below_top(answers), rtol=_TOLERANCE, atol=_TOLERANCE):
        raise UserError(f"{file} gives other logits than the SavedModel beside it; export it again")
    return model


def scale(pixels: Any) -> tf.Tensor:
    """uint8 to float32 in [0, 1], bit-equal to the training data; floats are unchanged."""
    pixels = tf.convert_to_tensor(pixels)
    return tf.cast(pixels, tf.float32) * PIXEL_SCALE if pixels.dtype == tf.uint8 else pixels


def probe_pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed random test inputs: uint8 images, or float32 vectors, ``[16, *shape]``."""
    rng = np.random.default_rng(0)
    if len(shape) == 3:
        return rng.integers(0, 256, (_PROBE_ROWS, *shape), dtype=np.uint8)
    return rng.normal(size=(_PROBE_ROWS, *shape)).astype("float32")


def _on_card(folder: Path) -> dict[str, Any] | None:
    """The card's entry on the file; None without a card or without an entry."""
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        return None
    told = card.get(CARD_KEY) if isinstance(card, dict) else None
    return told if isinstance(told, dict) else None
