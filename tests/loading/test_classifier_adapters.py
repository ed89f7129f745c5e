"""Users' models of another shape, range or output: the advice works as printed."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.networks.classifiers import small_cnn
from helpers.classifiers import SHAPE, Subclassed, functional, on_top, refused, repaired

# Shapes, with adapters that work as printed


@pytest.mark.parametrize(
    ("declared", "wanted", "adapter"),
    [
        ((8, 8), (8, 8, 1), "Reshape"),
        ((64,), (8, 8, 1), "Reshape"),
        ((3, 8, 8), (8, 8, 3), "Permute"),
        ((16, 16, 3), (8, 8, 3), "Resizing"),
    ],
)
def test_a_shape_that_an_adapter_solves(declared, wanted, adapter):
    model = functional(shape=declared)
    message = refused(model, re.escape(str(wanted)), adapter, image_shape=wanted)
    adapted = repaired(model, message)
    load_classifier(adapted, image_shape=wanted, num_classes=3)


def test_channels_first_gets_the_right_pixels():
    model = functional(shape=(3, 8, 8))
    message = refused(model, image_shape=(8, 8, 3))
    images = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    expected = model(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(repaired(model, message)(images), expected, atol=1e-6)


def test_a_shape_that_nothing_solves():
    refused(small_cnn((28, 28, 1), 3), "choose the dataset", image_shape=(32, 32, 3))


# The range of the pixels


def by_255(pixels):
    return pixels / 255.0


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [keras.layers.Rescaling(1 / 255)],
        lambda: [keras.layers.Rescaling(1 / 127.5, offset=-1)],
        lambda: [keras.layers.Normalization(mean=33.3, variance=78.6**2)],
        lambda: [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.Rescaling(1 / 255)],
        lambda: [by_255],
        lambda: [lambda x: (x - 127.5) * (1 / 127.5)],
        lambda: [keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255)])],
        lambda: [keras.Sequential([keras.layers.RandomBrightness(0.2, (0, 255))]), by_255],
    ],
)
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_pixels_expected_up_to_255(layers, kind):
    model = functional(*layers())
    if kind == "sequential":
        model = keras.Sequential([keras.Input(SHAPE), model])
    message = refused(model, r"\[0, 255\]", r"Rescaling\(255.0\)")
    adapted = repaired(model, message)
    assert load_classifier(adapted, image_shape=SHAPE, num_classes=3) is adapted
    images = np.random.default_rng(0).random((2, *SHAPE), "float32")
    expected = model(255 * images, training=False)
    np.testing.assert_allclose(adapted(images, training=False), expected, atol=1e-5)


# Probabilities, with a removal that works as printed


def softmax_layer(x):
    return keras.layers.Softmax()(x)


PROBABILITIES = {
    "dense": lambda: functional(activation="softmax"),
    "sigmoids": lambda: functional(activation="sigmoid"),
    "activation layer": lambda: on_top(functional(), keras.layers.Activation("softmax")),
    "softmax layer": lambda: on_top(functional(), keras.layers.Softmax()),
    "operation": lambda: on_top(functional(), keras.ops.softmax),
    "sigmoid operation": lambda: on_top(functional(), keras.ops.sigmoid),
    "sequential": lambda: keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
            keras.layers.Softmax(),
        ]
    ),
    "nested": lambda: keras.Sequential([keras.Input(SHAPE), functional(activation="softmax")]),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_are_found_and_the_removal_works(kind):
    keras.utils.set_random_seed(3)
    model = PROBABILITIES[kind]()
    images = np.random.default_rng(0).random((4, *SHAPE), "float32")
    probabilities = np.asarray(model(images))
    function = "sigmoid" if "sigmoid" in kind else "softmax"
    message = refused(model, f"ends in {function}", "not logits")
    logits_model = load_classifier(repaired(model, message), image_shape=SHAPE, num_classes=3)
    expected = getattr(keras.ops, function)(logits_model(images))
    np.testing.assert_allclose(expected, probabilities, atol=1e-6)


def test_the_removal_survives_saving(tmp_path):
    model = functional(activation="softmax")
    repaired(model, refused(model)).save(tmp_path / "model.keras")
    load_classifier(tmp_path / "model.keras")


def test_a_softmax_layer_deep_inside():
    inner = on_top(functional(), keras.layers.Softmax())
    model = keras.Sequential([keras.Input(SHAPE), inner])
    refused(model, "ends in softmax", "rebuild the model inside")


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_hidden_softmax_is_seen_by_its_values(dtype):
    class Hidden(Subclassed):
        def call(self, images):
            return keras.ops.softmax(super().call(images))

    refused(
        Hidden(dtype=dtype), "rows >= 0 that sum to 1", "into the final softmax", image_shape=SHAPE
    )
