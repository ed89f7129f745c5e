"""Classifiers as users build them, and what a refusal must say."""

from __future__ import annotations

import re

import keras
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import load_classifier

SHAPE = (8, 8, 1)


def functional(*layers, shape=SHAPE, classes=3, activation=None) -> keras.Model:
    images = x = keras.Input(shape)
    for layer in [*layers, keras.layers.Flatten()]:
        x = layer(x)
    return keras.Model(images, keras.layers.Dense(classes, activation=activation)(x))


def linear_digits(seed: int = 0) -> keras.Model:
    """Untrained; of one seed it is always the same."""
    kernel = keras.initializers.GlorotUniform(seed=seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer=kernel)]
    return keras.Sequential([keras.Input(SHAPE), *layers])


class Subclassed(keras.Model):
    """Knows no input shape until it is built, and cannot be read without its class."""

    def __init__(self, classes: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(classes)

    def call(self, images):
        return self.dense(self.flatten(images))


def refused(model, *patterns: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(model, **options)
    message = str(caught.value)
    assert "\n" not in message
    for pattern in patterns:
        assert re.search(pattern, message), message
    return message


def repaired(model: keras.Model, advice: str) -> keras.Model:
    """The model after running the Python that a message ends with."""
    code = advice.split(": ", maxsplit=advice.count(": "))[-1]
    if "model = " in advice:
        code = advice[advice.index("model = ") :]
    names = {"keras": keras, "model": model}
    if code.startswith("keras.Sequential"):
        code = f"model = {code}"
    exec(code, names)
    return names["model"]


def on_top(model: keras.Model, step) -> keras.Model:
    return keras.Model(model.inputs[0], step(model.outputs[0]))
