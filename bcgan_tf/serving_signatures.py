"""What a served model computes: its two signatures, and the warm-up requests for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.data.dataset import PIXEL_SCALE

# A server reads what it knows in this folder of a version, and leaves the rest alone.
EXTRA = "assets.extra"
_PROBE_ROWS = 16

Signature = tuple[Callable[..., dict[str, tf.Tensor]], tf.TensorSpec]


def signatures_of(classifier: keras.Model, shape: tuple[int, ...]) -> dict[str, Signature]:
    """Name -> (function, its one input). The parameters' names are the names in a request.

    Args:
        classifier: images in [0, 1] to logits.
        shape: of one input; ``serve_bytes`` is left out unless it is an image of 1 or 3 channels.
    """

    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.cast(classifier(images, training=False), tf.float32)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "classes": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }

    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(
            lambda data: _decode(data, shape),
            image_bytes,
            fn_output_signature=tf.TensorSpec(shape, tf.float32),
        )
        return serving_default(images)

    images_spec = tf.TensorSpec([None, *shape], tf.float32, name="images")
    signatures: dict[str, Signature] = {"serving_default": (serving_default, images_spec)}
    if len(shape) == 3 and shape[2] in (1, 3):
        bytes_spec = tf.TensorSpec([None], tf.string, name="image_bytes")
        signatures["serve_bytes"] = (serve_bytes, bytes_spec)
    return signatures


def _decode(data: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """One PNG or JPEG as float32 ``shape`` in [0, 1]."""
    height, width, channels = shape
    pixels = tf.cond(
        tf.io.is_jpeg(data),
        # The accurate transform gives the very pixels that Pillow read for training.
        lambda: tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(data, channels=channels),
    )
    # Anti-aliasing matters for photographs much larger than the input; equal sizes stay exact.
    images = tf.image.resize(scale(pixels), (height, width), antialias=True)
    return tf.ensure_shape(images, shape)


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


def write_warm_up(
    folder: Path, name: str, shape: tuple[int, ...], signatures: Sequence[str]
) -> None:
    """One request for each signature, where TensorFlow Serving looks for them.

    Does nothing without the package ``tensorflow-serving-api``.

    Args:
        folder: of the SavedModel.
        name: of the model.
        shape: of one input.
        signatures: their names.
    """
    try:
        from tensorflow_serving.apis import (  # pyright: ignore[reportMissingImports]
            predict_pb2,
            prediction_log_pb2,
        )
    except ImportError:
        return
    pixels = probe_pixels(shape)[:1]
    inputs = {"serving_default": ("images", scale(pixels))}
    if "serve_bytes" in signatures:
        inputs["serve_bytes"] = ("image_bytes", tf.io.encode_png(pixels[0])[tf.newaxis])
    extra = folder / EXTRA
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for signature in signatures:
            key, value = inputs[signature]
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
