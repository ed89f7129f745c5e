"""One exported classifier that the serving tests share."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
import tensorflow as tf

from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.serving.export import export
from helpers.exports import CARD, NAMES


@pytest.fixture(scope="session")
def classifier() -> keras.Model:
    model = small_cnn((8, 8, 1), 4, seed=0)
    model.compile("adam", "mse")  # an optimizer that must not be exported
    return model


@pytest.fixture(scope="session")
def exported(classifier, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved_models") / "digits"
    return export(classifier, directory, class_names=NAMES, card=CARD)


@pytest.fixture(scope="session")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures
