"""What a served graph refuses, and that it lives on: shapes, pixels, bytes, empty batches."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bcgan_tf.attacks import PGD
from bcgan_tf.errors import UserError
from bcgan_tf.loading.model import load_model
from bcgan_tf.networks.classifiers import mlp
from bcgan_tf.serving.export import export
from helpers.exports import NAMES, encoded, pixels, scaled
from helpers.requests import MALFORMED_SHAPES, answers_to_malformed_shapes

REFUSED = tf.errors.InvalidArgumentError
(PNG,) = encoded(pixels(1, 8, 8, 1))
(JPEG,) = encoded(pixels(1, 8, 8, 1), "JPEG")


def test_other_shapes_are_an_error_and_do_not_end_the_process(exported: Path) -> None:
    (answers,) = answers_to_malformed_shapes([exported])
    assert len(answers) == len(MALFORMED_SHAPES)
    for shape, answer in answers.items():
        told = shape.replace(" ", "")
        assert answer.startswith(f"InvalidArgumentError: Shape of tensor images {told} is not")
        assert answer.endswith("compatible with expected shape [?,8,8,1].")


def ask(signatures: Any, images: np.ndarray) -> np.ndarray:
    return signatures["serving_default"](images=tf.constant(images))["logits"].numpy()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 255.0, 1.01, -0.01])
def test_a_pixel_that_is_none_is_an_error_that_names_its_row(signatures, value: float) -> None:
    images = scaled(pixels(4, 8, 8, 1))
    images[1, 2, 3, 0] = images[3, 0, 0, 0] = value
    with pytest.raises(REFUSED, match=r"images: 2 of 4 rows refused \(row 1, 3, counted from 0\)"):
        ask(signatures, images)
    with pytest.raises(REFUSED, match=r"outside \[0, 1\]; divide pixels of 0 to 255 by 255"):
        ask(signatures, images[:2])


def test_many_rows_are_counted_and_some_named(signatures) -> None:
    with pytest.raises(
        REFUSED, match=r"20 of 20 rows refused \(row 0, 1, 2, 3, 4, 5, 6, 7, \.\.\."
    ):
        ask(signatures, np.full((20, 8, 8, 1), 255, "float32"))


def test_rounding_at_the_ends_of_the_range_is_no_mistake(signatures, classifier) -> None:
    images = np.full((2, 8, 8, 1), 1.0009, "float32")
    images[1] = -0.0009
    np.testing.assert_allclose(ask(signatures, images), classifier(images), atol=1e-5)


def test_gradients_through_the_checks_are_the_models_to_the_bit(exported, classifier) -> None:
    loaded = tf.saved_model.load(str(exported))  # which keeps the variables alive

    def gradient(function: Any, images: np.ndarray) -> np.ndarray:
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(loss, x).numpy()

    images = scaled(pixels(5, 8, 8, 1))
    images[0], images[1] = 0.0, 1.0  # the ends of the box, where attacks are most of the time
    served = gradient(lambda x: loaded.signatures["serving_default"](images=x)["logits"], images)
    own = gradient(tf.function(lambda x: classifier(x, training=False)), images)
    assert np.abs(own).max() > 0
    np.testing.assert_array_equal(served, own)


def test_an_attack_reaches_the_corners_of_the_box(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, use_bias=False)]
    )
    model.set_weights([np.float32([[1, -1]] * 4)])
    path = export(model, tmp_path / "m", class_names="ab", card={}, keras_file=False)
    served = load_model(path, image_shape=(2, 2, 1), num_classes=2)
    images = np.full((3, 2, 2, 1), 0.5, "float32")
    attack = PGD(1.0, steps=3)  # all of the box: the loss pulls to its corners
    found = attack(served, images, np.zeros(3, np.int64)).adversarials
    assert found.min() >= 0 and found.max() <= 1
    expected = attack(model, images, np.zeros(3, np.int64)).adversarials
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def lenient(classifier, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("lenient") / "m"
    options: Any = {"check_pixels": False, "max_megapixels": 1e-3}
    return export(classifier, directory, class_names=NAMES, card={}, keras_file=False, **options)


def test_the_check_of_pixels_can_be_left_off(classifier, lenient: Path) -> None:
    loaded = tf.saved_model.load(str(lenient)).signatures
    images = np.full((2, 8, 8, 1), 255, "float32")
    np.testing.assert_allclose(ask(loaded, images), classifier(images), rtol=1e-4)
    with pytest.raises(REFUSED, match="Shape of tensor images"):
        ask(loaded, images[0])
    checks = json.loads((lenient / "export.json").read_text())["checks"]
    assert checks == {"pixels": False, "max_megapixels": 0.001}


def test_vectors_have_no_range_but_are_finite(tmp_path: Path) -> None:
    path = export(mlp(2, 2), tmp_path / "toy", class_names="ab", card={})
    loaded = tf.saved_model.load(str(path)).signatures
    points = np.float32([[-3e5, 2], [0, np.nan], [np.inf, 0]])
    assert np.isfinite(ask(loaded, points[:1])).all() and ask(loaded, points[:0]).shape == (0, 2)
    with pytest.raises(REFUSED, match=r"2 of 3 rows refused \(row 1, 2, .* NaN or infinite values"):
        ask(loaded, points)


def test_an_empty_batch_has_an_empty_answer(signatures) -> None:
    for answer in (
        signatures["serving_default"](images=tf.zeros([0, 8, 8, 1])),
        signatures["serve_bytes"](image_bytes=tf.constant([], tf.string)),
    ):
        found = {name: (value.shape.as_list(), value.dtype) for name, value in answer.items()}
        assert found == {
            "logits": ([0, 4], tf.float32),
            "probabilities": ([0, 4], tf.float32),
            "classes": ([0], tf.int64),
        }


# ---- Bytes


def png_that_says(height: int, width: int) -> bytes:
    """A PNG whose header claims a size, with next to no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels_ = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels_ + chunk(b"IEND", b"")


def other_format(name: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(1, 8, 8, 3)[0]).save(stream, name)
    return stream.getvalue()


def flipped(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 6
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


BROKEN = {
    "empty": b"",
    "garbage": b"no image",
    "header alone": PNG[:20],
    "PNG cut short": PNG[: len(PNG) // 2],
    "PNG with a flipped byte": flipped(PNG),
    "PNG without a width": png_that_says(10, 0),
    "JPEG's first bytes": JPEG[:3],
    "JPEG without pixels": JPEG[:30],
    "JPEG cut short": JPEG[: len(JPEG) // 2],
    **{name: other_format(name) for name in ("GIF", "BMP", "WEBP", "TIFF")},
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=list(BROKEN))
def test_bytes_that_are_no_image_are_an_error_that_names_their_row(signatures, data) -> None:
    batch = tf.constant([PNG, JPEG, data, PNG])
    with pytest.raises(REFUSED) as error:
        signatures["serve_bytes"](image_bytes=batch)
    assert (
        "image_bytes: 1 of 4 rows refused (row 2, counted from 0): cannot be decoded as PNG or JPEG"
    ) in str(error.value)


@pytest.mark.parametrize("sides", [(60000, 60000), (8001, 8000), (2**31 - 1, 2**31 - 1)])
def test_a_large_image_is_refused_by_its_header(signatures, sides: tuple[int, int]) -> None:
    batch = tf.constant([PNG, png_that_says(*sides)])
    with pytest.raises(REFUSED, match=r"\(row 1, counted from 0\): more than 64 megapixels"):
        signatures["serve_bytes"](image_bytes=batch)


def test_the_largest_image_can_be_chosen(lenient: Path) -> None:
    serve = tf.saved_model.load(str(lenient)).signatures["serve_bytes"]
    for file_format in ("PNG", "JPEG"):
        (fits,), (larger,) = (encoded(pixels(1, n, 50, 1), file_format) for n in (20, 21))
        assert serve(image_bytes=tf.constant([fits]))["logits"].shape == (1, 4)
        with pytest.raises(REFUSED, match=r"\(row 1, .*: more than 0\.001 megapixels"):
            serve(image_bytes=tf.constant([fits, larger]))


@pytest.mark.parametrize("limit", [0, -1, np.nan, np.inf])
def test_a_limit_that_is_none_is_refused(classifier, tmp_path: Path, limit: float) -> None:
    with pytest.raises(UserError, match="give a number above 0"):
        export(classifier, tmp_path / "m", class_names=NAMES, card={}, max_megapixels=limit)
    assert not (tmp_path / "m").exists()


def test_bytes_of_another_rank_are_an_error(signatures) -> None:
    for strings in (tf.constant(PNG), tf.constant([[PNG]])):
        with pytest.raises(REFUSED, match="Shape of tensor image_bytes"):
            signatures["serve_bytes"](image_bytes=strings)


def test_checks_hold_in_a_session_as_servers_run_it(exported: Path) -> None:
    """TensorFlow Serving runs graphs in a session, which prunes and optimizes them."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))

        def run(name: str, value: np.ndarray) -> np.ndarray:
            signature = meta.signature_def[name]
            ((_, told),) = signature.inputs.items()
            return session.run(signature.outputs["classes"].name, {told.name: value})

        images = scaled(pixels(2, 8, 8, 1))
        strings = np.array([PNG, b"garbage"], dtype=object)
        assert run("serving_default", images).shape == run("serve_bytes", strings[[0, 0]]).shape
        images[1, 0, 0, 0] = np.nan
        with pytest.raises(REFUSED, match=r"row 1, counted from 0.*NaN"):
            run("serving_default", images)
        with pytest.raises(REFUSED, match=r"row 1, counted from 0.*cannot be decoded"):
            run("serve_bytes", strings)
