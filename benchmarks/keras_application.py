"""A network of keras.applications on CIFAR-10, as a Keras user trains it: plain compile and fit.

    python benchmarks/keras_application.py mobilenet.keras --epochs 10
    bcgan-tf harden --classifier mobilenet.keras --dataset cifar10 ...

The model takes pixels of 0 to 255 and ends in a softmax, its preprocessing and augmentation are
layers of its own, and its weights are drawn (ImageNet's are a download). docs/benchmarks.md has
the commands that harden and attack it, and what came out.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow_datasets as tfds


def classifier(name: str) -> keras.Model:
    """The application in its smallest size, for CIFAR-10."""
    layers = keras.layers
    application = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10
    )
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(0.125, 0.125),
            layers.Rescaling(1 / 127.5, offset=-1),
            application,
        ]
    )


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
    model = classifier(arguments.application)
    steps = arguments.epochs * -(-len(x) // arguments.batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=arguments.epochs, batch_size=arguments.batch_size, validation_data=test)
    model.save(arguments.path)


if __name__ == "__main__":
    main()
