"""A user's own case at real size: MNIST as a folder of PNGs, and a Keras classifier trained on it.

    python examples/own_classifier.py pictures mine.keras

Writes ``pictures/train/7/00042.png`` and so on, and ``mine.keras``; docs/own-classifier.md hardens
it. Only the first part uses bcgan_tf, to have MNIST; with images of your own start at the second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bcgan_tf

# isort: split
import keras


def write_folder(root: Path) -> None:
    """MNIST's 60,000 training and 10,000 test images, a folder a class."""
    data = bcgan_tf.load_dataset("mnist")
    for part, splits in (("train", (data.train, data.validation)), ("test", (data.test,))):
        images = np.concatenate([split.images for split in splits])
        labels = np.concatenate([split.labels for split in splits])
        for name in data.class_names:
            (root / part / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = root / part / data.class_names[label] / f"{number:05d}.png"
            Image.fromarray(image[..., 0]).save(file)


def train(root: Path, epochs: int = 3) -> keras.Model:
    """What one writes with Keras alone: images divided by 255, a Sequential model, logits."""

    def read(part: str) -> Any:
        images: Any = keras.utils.image_dataset_from_directory(
            root / part, color_mode="grayscale", image_size=(28, 28), batch_size=128
        )
        return images.map(lambda x, y: (x / 255, y)).cache()

    keras.utils.set_random_seed(0)
    images = read("train")
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(images.map(lambda x, _: x))
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            normalization,
            keras.layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 5, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    model.fit(images, epochs=epochs, validation_data=read("test"), verbose=2)
    return model


if __name__ == "__main__":
    folder, file = map(Path, sys.argv[1:3])
    if not folder.exists():
        write_folder(folder)
    train(folder).save(file)
