"""Networks of keras.applications as a base that is frozen, with a new head.

The base is trained on other digits than the head, because ImageNet's weights are a download.
"""

from __future__ import annotations

import keras
import numpy as np

from bcgan_tf import Convention
from bcgan_tf.keras_graph import all_layers
from helpers.users_models import BYTES, UsersModel, as_bytes, fit

layers = keras.layers
_SIDE, _BASE_EPOCHS = 32, 12


def minus_one_to_one(images: np.ndarray) -> np.ndarray:
    """``preprocess_input`` of mode ``tf``, outside of the model."""
    return keras.applications.imagenet_utils.preprocess_input(as_bytes(images), mode="tf")


def application(name: str, case: UsersModel) -> keras.Model:
    base = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(_SIDE, _SIDE, 3), pooling="avg"
    )
    for layer in all_layers(base):  # some hundred steps are too few for the usual momentum
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9
    images, labels = case.data(880, 400)
    with_head = keras.Sequential([base, layers.Dense(10, activation="softmax")])
    loss = "sparse_categorical_crossentropy"
    fit(with_head, case.shown(images), labels, loss, 1e-3, _BASE_EPOCHS)
    base.trainable = False
    inputs = keras.Input((_SIDE, _SIDE, 3))
    x = layers.Dropout(0.2)(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def _case(name: str) -> UsersModel:
    outside = name == "ResNet50V2"
    case = UsersModel(
        lambda: application(name, case),
        minus_one_to_one if outside else as_bytes,
        convention=Convention(input_range="-1..1") if outside else BYTES,
        channels=3,
        enlarged=4,
    )
    return case


# They stand in the table of docs/own-classifier.md: benchmarks/keras_models.py runs them.
_NAMES = ("MobileNetV3Small", "EfficientNetV2B0", "ResNet50V2", "ConvNeXtTiny")
APPLICATIONS = {name: _case(name) for name in _NAMES}
