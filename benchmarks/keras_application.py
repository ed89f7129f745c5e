"""A network of keras.applications on CIFAR-10, as a Keras user trains it: plain compile and fit.

    python benchmarks/keras_application.py mobilenet.keras --epochs 10
    bcgan-tf harden --classifier mobilenet.keras --dataset cifar10 ...

The model takes pixels of 0 to 255 and ends in a softmax, its preprocessing is a layer of its own,
and its weights are drawn (ImageNet's are a download). It is trained behind layers of augmentation.
docs/benchmarks.md has the commands that harden and attack it, and what came out.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow_datasets as tfds


def behind(layers: list[keras.Layer], first: list[keras.Layer]) -> keras.Model:
    return keras.Sequential([keras.Input((32, 32, 3)), *first, *layers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="where the trained .keras file goes")
    parser.add_argument("--application", default="MobileNet")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, y = tfds.as_numpy(tfds.load("cifar10", split="train", batch_size=-1, as_supervised=True))
    test = tfds.as_numpy(tfds.load("cifar10", split="test", batch_size=-1, as_supervised=True))
    layers = [
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        getattr(keras.applications, arguments.application)(
            weights=None, input_shape=(32, 32, 3), classes=10
        ),
    ]
    augmentation: list[keras.Layer] = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(0.125, 0.125),
    ]
    model = behind(layers, augmentation)
    steps = arguments.epochs * -(-len(x) // arguments.batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=arguments.epochs, batch_size=arguments.batch_size, validation_data=test)
    behind(layers, []).save(arguments.path)


if __name__ == "__main__":
    main()
