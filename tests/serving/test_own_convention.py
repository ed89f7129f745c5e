"""A model of another convention is served in its own, as plain TensorFlow and Keras use it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.loading.model import load_model
from bcgan_tf.serving.export import export
from bcgan_tf.settings.convention import Convention

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
BYTES_RANGE = Convention(input_range="0..255")


def softmax_of_bytes() -> keras.Model:
    """As Keras' guides make it: pixels of 0 to 255, rescaled inside, and a softmax."""
    images = keras.Input((8, 8, 3))
    values = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(4, activation="softmax")(values))


def one_unit() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def two_outputs() -> keras.Model:
    images = keras.Input((8, 8, 3))
    values = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    kind = keras.layers.Dense(4, activation="softmax")(values)
    return keras.Model(images, {"kind": kind, "box": keras.layers.Dense(2)(values)})


CASES = {
    "softmax": (softmax_of_bytes, BYTES_RANGE),
    "one unit": (one_unit, BYTES_RANGE),
    "two outputs": (two_outputs, Convention(input_range="0..255", output="kind")),
}


@pytest.fixture(scope="module", params=CASES)
def served(request, tmp_path_factory) -> tuple[keras.Model, Convention, Path]:
    keras.utils.set_random_seed(0)
    make, convention = CASES[request.param]
    model = make()
    folder = tmp_path_factory.mktemp("served") / "net"
    return model, convention, export(model, folder, convention=convention)


def test_plain_tensorflow_and_keras_get_the_model_s_own_answers(served) -> None:
    model, _, path = served
    own = model(PIXELS.astype("float32"))
    expected = keras.tree.flatten(own)
    images = tf.constant(PIXELS, tf.float32)
    loaded = tf.saved_model.load(str(path))
    found = {
        "serve": loaded.serve(images),
        "layer": keras.layers.TFSMLayer(path)(images),
        "file": keras.models.load_model(path / "assets.extra/classifier.keras")(images),
    }
    for how, answers in found.items():
        for mine, other in zip(keras.tree.flatten(answers), expected, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-5, err_msg=how)
    default = loaded.signatures["serving_default"](images=images)
    names = own if isinstance(own, dict) else {"output_0": own}
    for name, answer in names.items():
        np.testing.assert_allclose(default[name], answer, atol=1e-5)


def test_files_of_images_get_logits_and_classes(served) -> None:
    model, convention, path = served
    classifier = adapted_classifier(model, convention=convention).classifier
    files = tf.stack([tf.io.encode_png(image) for image in PIXELS])
    answer = tf.saved_model.load(str(path)).signatures["serve_bytes"](image_bytes=files)
    logits = np.asarray(classifier(PIXELS / np.float32(255)))
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_array_equal(answer["classes"], logits.argmax(-1))


@pytest.mark.parametrize("kind", ["serving_default", "serve"])
def test_wrong_requests_are_errors(served, kind: str) -> None:
    signature = tf.saved_model.load(str(served[2])).signatures[kind]
    for images, words in (
        (tf.zeros([8, 8, 3]), "shape"),
        (tf.fill([2, 8, 8, 3], 300.0), r"outside \[0, 255\]"),
        (tf.fill([1, 8, 8, 3], np.nan), "NaN"),
    ):
        with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=words):
            signature(images=images)
    empty = signature(images=tf.zeros([0, 8, 8, 3]))
    assert all(len(answer) == 0 for answer in empty.values())


def test_the_card_says_the_convention_and_attacks_read_the_model_back(served) -> None:
    model, convention, path = served
    card = json.loads((path / "export.json").read_text())
    assert card["input"]["range"] == [0.0, 255.0]
    assert card["convention"]["input_range"] == "0..255" and card["convention"]["converted"]
    classes = len(card["classes"])
    found = load_model(path, image_shape=(8, 8, 3), num_classes=classes, convention=convention)
    assert isinstance(found, keras.Model)
    expected = adapted_classifier(model, convention=convention).classifier
    images = PIXELS / np.float32(255)
    np.testing.assert_allclose(found(images), expected(images), atol=1e-5)
