"""The two signatures of a served model, and warm-up requests for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.data.dataset import PIXEL_SCALE
from bcgan_tf.keras_graph import input_of
from bcgan_tf.loading.exported import EXTRA, probe_pixels, scale
from bcgan_tf.settings.convention import Convention

# Tolerance at both ends of [0, 1]: far above rounding, far below a wrong scale.
PIXEL_TOLERANCE = 1e-3
MAX_MEGAPIXELS = 64.0
# The first bytes of a PNG file; width and height follow.
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_ROWS_NAMED = 8

Signature = tuple[Callable[..., dict[str, tf.Tensor]], tf.TensorSpec]


def signatures_of(
    classifier: keras.Model,
    shape: tuple[int, ...],
    *,
    check_pixels: bool = True,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> dict[str, Signature]:
    """Name -> (function, its one input). The parameters' names are the names in a request.

    The functions raise ``InvalidArgumentError`` for invalid requests, and return empty outputs for
    an empty batch. See :func:`bcgan_tf.serving.export.export`.

    Args:
        classifier: images in [0, 1] to logits.
        shape: of one input; ``serve_bytes`` is left out unless it is an image of 1 or 3 channels.
        check_pixels: refuse rows with values that are not finite or, in images, not in [0, 1].
        max_megapixels: the size, in millions of pixels, above which ``serve_bytes`` decodes no
            image.
    """
    is_image = len(shape) == 3

    def answers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = _of_any_batch(lambda batch: classifier(batch, training=False), images)
        logits = tf.cast(logits, tf.float32)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "classes": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }

    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow does not enforce the signature's shape; kernels abort the process on others.
        images = tf.ensure_shape(images, [None, *shape])
        if check_pixels:
            images = _checked_pixels(images, is_image)
        return answers(images)

    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image_bytes = tf.ensure_shape(image_bytes, [None])
        return answers(_decoded(image_bytes, shape, max_megapixels))

    images_spec = tf.TensorSpec([None, *shape], tf.float32, name="images")
    signatures: dict[str, Signature] = {"serving_default": (serving_default, images_spec)}
    if is_image and shape[2] in (1, 3):
        bytes_spec = tf.TensorSpec([None], tf.string, name="image_bytes")
        signatures["serve_bytes"] = (serve_bytes, bytes_spec)
    return signatures


def own_signature(
    model: keras.Model,
    shape: tuple[int, ...],
    convention: Convention,
    *,
    check_pixels: bool = True,
) -> Signature:
    """The endpoint that takes and returns what a user's model does.

    Args:
        model: the user's.
        shape: of one image, for a model that does not know its own.
        convention: the pixels that it takes.
        check_pixels: refuse rows with values that are not finite or, in images, not in the range.
    """
    batch, dtype, key = None, "float32", None
    if (found := input_of(model)) is not None:
        tensor, key = found
        batch, shape = tensor.shape[0], tuple(tensor.shape[1:])
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    dtype = dtype if dtype in ("uint8", "int32") else "float32"

    def called(images: tf.Tensor) -> Any:
        return model({key: images} if key is not None else images, training=False)

    def serve(images: tf.Tensor) -> Any:
        images = tf.ensure_shape(images, [batch, *shape])
        if check_pixels and dtype == "float32":
            images = _checked_pixels(images, len(shape) == 3, convention)
        return _of_any_batch(called, images) if batch is None else called(images)

    return serve, tf.TensorSpec([batch, *shape], dtype, name=key or "images")


def _of_any_batch(function: Callable[[tf.Tensor], Any], images: tf.Tensor) -> Any:
    """What a function gives for a batch, which may be empty."""
    rows = tf.shape(images)[0]
    # Kernels fail on an empty batch, so a row is added and its outputs are dropped. tf.pad would
    # do too, but oneDNN fuses it into convolutions.
    missing = tf.cast(tf.equal(rows, 0), tf.int32)
    batch = tf.concat([images, tf.zeros([missing, *images.shape[1:]], images.dtype)], axis=0)
    return keras.tree.map_structure(lambda output: output[:rows], function(batch))


def _checked_pixels(
    images: tf.Tensor, is_image: bool, convention: Convention | None = None
) -> tf.Tensor:
    axes = list(range(1, len(images.shape)))
    convention = convention or Convention()
    if is_image and (convention.uniform or images.shape[-1] == convention.channels):
        unit = images if convention.identity else convention.to_unit(images)
        # NaN compares as false
        good = tf.reduce_all(tf.abs(unit - 0.5) <= 0.5 + PIXEL_TOLERANCE, axis=axes)
        mend = "divide pixels of 0 to 255 by 255, and clip what resampling leaves outside"
        if not convention.identity:
            mend = f"send {convention.told}"
        least, most = convention.limits
        wrong = f"NaN, infinite pixels or pixels outside [{least:g}, {most:g}]; {mend}"
    else:
        good = tf.reduce_all(tf.math.is_finite(images), axis=axes)
        wrong = "NaN or infinite values; send finite ones"
    return _refusing(images, "images", tf.logical_not(good), wrong)


def _refusing(values: tf.Tensor, name: str, bad: tf.Tensor, wrong: str) -> tf.Tensor:
    """``values``, or an error that names the rows of the input ``name`` where ``bad`` is true.

    The graph optimizer removes assertions on shapes, but not on values. The result depends on the
    assertion, so that it is not pruned.
    """

    def fail() -> tf.Tensor:
        rows = tf.strings.as_string(tf.where(bad)[:, 0])
        listed = tf.strings.reduce_join(rows[:_ROWS_NAMED], separator=", ")
        more = tf.cond(tf.size(rows) > _ROWS_NAMED, lambda: ", ...", lambda: "")
        text = tf.strings.join(
            [
                f"{name}: ",
                tf.strings.as_string(tf.size(rows)),
                " of ",
                tf.strings.as_string(tf.size(bad)),
                " rows refused (row ",
                listed,
                more,
                f", counted from 0): {wrong}",
            ]
        )
        with tf.control_dependencies([tf.debugging.Assert(False, [text])]):
            return tf.constant(False)

    good = tf.cond(tf.reduce_any(bad), fail, lambda: tf.constant(True))
    with tf.control_dependencies([good]):
        return tf.identity(values)


def _decoded(image_bytes: tf.Tensor, shape: tuple[int, ...], max_megapixels: float) -> tf.Tensor:
    """PNG and JPEG files ``[B]`` as float32 ``[B, *shape]`` in [0, 1]."""
    height, width, channels = shape
    max_pixels = int(max_megapixels * 1e6)

    def within_limit(sides: tf.Tensor, decode: Callable[..., tf.Tensor], **options: Any) -> Any:
        fits = tf.reduce_prod(tf.cast(sides, tf.int64)) <= max_pixels
        pixels = tf.cond(
            fits,
            lambda: decode(channels=channels, **options),
            lambda: tf.zeros([1, 1, channels], tf.uint8),
        )
        return fits, pixels

    def read(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The size is read from the header, before decoding. Bytes that are neither PNG nor JPEG are
        # an error.
        fits, pixels = tf.cond(
            tf.equal(tf.strings.substr(data, 0, len(_PNG_START)), _PNG_START),
            lambda: within_limit(
                tf.io.decode_raw(
                    tf.strings.substr(data, len(_PNG_START), 8), tf.int32, little_endian=False
                ),
                functools.partial(tf.io.decode_png, data),
            ),
            lambda: within_limit(
                tf.io.extract_jpeg_shape(data)[:2],
                functools.partial(tf.io.decode_jpeg, data),
                # The accurate transform gives the pixels of Pillow, which read the training data.
                dct_method="INTEGER_ACCURATE",
            ),
        )
        # Anti-aliasing matters for photographs much larger than the input; it leaves images of the
        # input's size unchanged. Scaling comes after: float32 takes four times the memory.
        resized = tf.image.resize(pixels, (height, width), antialias=True)
        return row, fits, tf.ensure_shape(resized * PIXEL_SCALE, shape)

    # A data set can skip elements that raise an error; a graph cannot. A file that cannot be read
    # has no element. The last element is a placeholder, because a batch needs one.
    last = (tf.constant(-1, tf.int64), tf.constant(True), tf.zeros(shape))
    dataset = tf.data.Dataset.from_tensor_slices(image_bytes).enumerate().map(read).ignore_errors()
    dataset = dataset.concatenate(tf.data.Dataset.from_tensors(last))
    total = tf.size(image_bytes, tf.int64)
    rows, fits, images = dataset.batch(total + 1).get_single_element()
    rows, fits, images = rows[:-1, tf.newaxis], fits[:-1], images[:-1]
    unread = tf.logical_not(tf.scatter_nd(rows, tf.ones_like(fits), [total]))
    large = tf.scatter_nd(rows, tf.logical_not(fits), [total])
    name = "image_bytes"
    images = _refusing(images, name, unread, "cannot be decoded as PNG or JPEG; send whole files")
    return _refusing(
        images, name, large, f"more than {max_megapixels:g} megapixels; send a smaller image"
    )


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
        for signature, (key, value) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
