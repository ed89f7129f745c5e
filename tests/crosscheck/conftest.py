"""A small trained network that independent implementations are compared on."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.data import load_dataset


@pytest.fixture(scope="session")
def network() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A small CNN trained on 8x8 digits, and 40 test images that it classifies right."""
    data = load_dataset("digits")
    model = keras.Sequential(
        [
            keras.Input(data.image_shape),
            keras.layers.Conv2D(
                16, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal(3)
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(4)),
        ]
    )
    model.compile(
        keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    train, test = data.train, data.test
    model.fit(train.scaled(), train.labels, batch_size=64, epochs=6, verbose=0, shuffle=False)
    images, labels = test.scaled(0, 60), test.labels[:60]
    right = model.predict(images, verbose=0).argmax(-1) == labels
    assert right.sum() >= 40
    return model, images[right][:40], labels[right][:40]
