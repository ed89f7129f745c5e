"""A folder of photographs, and a binary classifier of them after Keras' guides.

    python examples/photographs.py photos model.keras

Writes CIFAR-10's cars and frogs as JPEGs of several sizes, ``photos/car/0.jpg`` and so on, and
trains as "Image classification from scratch" does: pixels of 0 to 255, preprocessing and
augmentation inside, one sigmoid unit. The README's three commands then harden, attack and export
the model (docs/own-classifier.md). With photographs of your own leave out the first part, which
alone uses bcgan_tf.
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

CLASSES = {"car": 1, "frog": 6}


def write_folder(root: Path, count: int = 1000) -> None:
    """``count`` photographs of each class, 48 to 160 pixels wide and high."""
    data = bcgan_tf.load_dataset("cifar10").train
    rng = np.random.default_rng(0)
    for name, label in CLASSES.items():
        (root / name).mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(data.labels == label)[:count]):
            width, height = (int(side) for side in rng.integers(48, 161, 2))
            photograph = Image.fromarray(data.images[row]).resize((width, height))
            photograph.save(root / name / f"{number}.jpg", quality=90)


def train(root: Path, side: int = 64, epochs: int = 15) -> keras.Model:
    """With Keras alone."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    first, second = (
        keras.utils.image_dataset_from_directory(
            root,
            validation_split=0.2,
            subset=subset,
            seed=0,
            image_size=(side, side),
            label_mode="binary",
            verbose=False,
        )
        for subset in ("training", "validation")
    )
    inputs: Any = keras.Input((side, side, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.Rescaling(1.0 / 255)(x)
    for width in (16, 32, 64):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    model.fit(first, epochs=epochs, validation_data=second, verbose=2)
    return model


if __name__ == "__main__":
    folder, file = map(Path, sys.argv[1:3])
    if not folder.exists():
        write_folder(folder)
    train(folder).save(file)
