"""One undefended network, trained on real digits, that the attack tests share."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest

from bcgan_tf.data import load_dataset
from bcgan_tf.networks.strided_cnn import strided_cnn


@dataclass(frozen=True)
class Undefended:
    """A trained classifier with test images in [0, 1]."""

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def digits_cnn() -> Undefended:
    """A small CNN on the embedded 8x8 digits, and 100 test images."""
    data = load_dataset("digits")
    model = strided_cnn(data.image_shape, data.num_classes, seed=1)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    train = data.train
    model.fit(train.scaled(), train.labels, batch_size=64, epochs=12, verbose=0, shuffle=False)
    return Undefended(model, data.test.scaled(0, 100), data.test.labels[:100])
