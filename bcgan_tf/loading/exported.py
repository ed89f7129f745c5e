"""The Keras file inside an exported model: what an attack needs to look into its layers."""

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
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.loading.digest import model_digest

# A server ignores files that it does not know in this folder of a version.
EXTRA = "assets.extra"
CARD = "export.json"
FILE = f"{EXTRA}/classifier.keras"
CARD_KEY = "keras_file"
_TOLERANCE = 1e-4
_PROBE_ROWS = 16


def write(classifier: keras.Model, folder: Path) -> dict[str, str] | None:
    """Saves the classifier into the folder of an exported version.

    Args:
        classifier: not changed; without its optimizer in the file.
        folder: of the version.

    Returns:
        For the card: ``path``, ``sha256`` of the file, and ``model_sha256`` of what it holds
        (:func:`bcgan_tf.loading.digest.model_digest`), by which runs of ``bcgan-tf attack`` know a
        model. None, and no file, where Keras could not read it back by itself: custom classes,
        Lambda layers.

    Raises:
        OSError: the file cannot be written: a full disk, say.
    """
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    try:
        classifier.save(file)
        load_classifier(file).save(file)  # again, without the optimizer
    except OSError:  # says nothing of the model: a version must not lack its file for it
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
) -> keras.Model | None:
    """The Keras model of an exported version, which answers what the SavedModel does.

    Args:
        folder: of the version.
        serve: the SavedModel, images to logits.
        image_shape: of one image.
        num_classes: the number of logits.

    Returns:
        None where the export has no Keras file.

    Raises:
        UserError: the file is not the one that was exported, or answers something else.
    """
    file, told = folder / FILE, _on_card(folder)
    if told is None and not file.exists():
        return None
    if told is None or not file.is_file() or file_digest(file) != told.get("sha256"):
        raise UserError(
            f"{file} is not the file that was exported with the SavedModel; export it again"
        )
    model = load_classifier(file, image_shape=image_shape, num_classes=num_classes)
    images = scale(probe_pixels(image_shape))
    answers = np.asarray(tf.function(serve)(images))
    own = np.asarray(tf.function(lambda x: model(x, training=False))(images), np.float32)
    if not np.allclose(below_top(own), below_top(answers), rtol=_TOLERANCE, atol=_TOLERANCE):
        raise UserError(
            f"{file} does not answer what the SavedModel beside it answers; export it again"
        )
    return model


def scale(pixels: Any) -> tf.Tensor:
    """uint8 to float32 in [0, 1], to the bit as the training data was; floats stay."""
    pixels = tf.convert_to_tensor(pixels)
    return tf.cast(pixels, tf.float32) * PIXEL_SCALE if pixels.dtype == tf.uint8 else pixels


def probe_pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed random inputs to try a model on: uint8 images, or float32 vectors, ``[16, *shape]``."""
    rng = np.random.default_rng(0)
    if len(shape) == 3:
        return rng.integers(0, 256, (_PROBE_ROWS, *shape), dtype=np.uint8)
    return rng.normal(size=(_PROBE_ROWS, *shape)).astype("float32")


def _on_card(folder: Path) -> dict[str, Any] | None:
    """What the card says of the file; None without a card, or one that has none."""
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        return None
    told = card.get(CARD_KEY) if isinstance(card, dict) else None
    return told if isinstance(told, dict) else None
