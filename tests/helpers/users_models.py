"""Classifiers as users of Keras make them: each with the images that it was trained on.

All are trained on the embedded digits, shown as each model wants them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

import bcgan_tf
from bcgan_tf import Convention
from bcgan_tf.keras_graph import all_layers

layers = keras.layers
_EPOCHS = 10


@dataclasses.dataclass(frozen=True)
class UsersModel:
    """A way to make a model, and how its user shows it images.

    Attributes:
        make: the untrained model.
        shown: uint8 ``[N, 8, 8, C]`` to what the model gets.
        loss: that it is trained with.
        convention: what has to be said of it.
        classes: how many digits it tells apart; 2: below 5 or not.
        channels: of the images.
        output: the part of its answer that is compared, of several.
        tolerance: between its answers in and out of a graph: bfloat16 has three digits.
    """

    make: Callable[[], keras.Model]
    shown: Callable[[np.ndarray], Any] = lambda images: images.astype("float32") / 255
    loss: Any = "sparse_categorical_crossentropy"
    convention: Convention = dataclasses.field(default_factory=Convention)
    classes: int = 10
    channels: int = 1
    output: str | None = None
    tolerance: float = 1e-5

    def data(self, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images ``[N, 8, 8, C]`` and labels."""
        split = bcgan_tf.load_dataset("digits").train.take(count)
        labels = split.labels if self.classes == 10 else np.int64(split.labels >= 5)
        return np.repeat(split.images, self.channels, axis=-1), labels

    def trained(self) -> keras.Model:
        keras.utils.set_random_seed(0)
        model, (images, labels) = self.make(), self.data()
        for layer in all_layers(model):  # a hundred steps are too few for the usual momentum
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.5
        model.compile(keras.optimizers.Adam(3e-3), self.loss, metrics=[])
        target: Any = labels
        if self.output is not None:
            target = {self.output: labels, "brightness": images.mean((1, 2, 3)) / 255}
        shown = self.shown(images)
        model.fit(shown, target, epochs=_EPOCHS, batch_size=40, verbose=0)
        return model


BYTES = Convention(input_range="0..255")


def as_bytes(images: np.ndarray) -> np.ndarray:
    return images.astype("float32")


def network(
    shape: Sequence[int] = (8, 8, 1),
    *,
    before: Sequence[Any] = (),
    units: int = 10,
    activation: str | None = "softmax",
    **options: Any,
) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(shape, **options),
            *before,
            layers.Flatten(),
            layers.Dense(48, activation="relu"),
            layers.Dense(units, activation=activation),
        ]
    )


def simple_convnet() -> keras.Model:
    """As keras.io's simple MNIST convnet."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def from_scratch() -> keras.Model:
    """As keras.io's image classification from scratch: cats and dogs, with a single unit."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1.0 / 255)(inputs)
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = previous = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(layers.BatchNormalization()(x))
    x = layers.add([x, layers.Conv2D(8, 1, strides=2, padding="same")(previous)])
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(1, activation=None)(x))


def transfer() -> keras.Model:
    """A frozen base in inference mode, and a head that is trained."""
    base = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()]
    )
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(scale=1 / 127.5, offset=-1)(inputs)
    x = layers.Flatten()(base(x, training=False))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def transformer() -> keras.Model:
    """A vision transformer of one block, of layers that Keras has."""
    inputs = keras.Input((8, 8, 1))
    patches = layers.Reshape((16, 16))(layers.Conv2D(16, 2, strides=2)(inputs))
    x = patches + layers.Embedding(16, 16)(keras.ops.arange(16))
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8, dropout=0.1)(y, y)])
    y = layers.Dense(32, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
    x = layers.Add()([x, layers.Dense(16)(layers.Dropout(0.1)(y))])
    x = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def two_outputs() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(48, activation="relu")(layers.Flatten()(inputs))
    return keras.Model(
        inputs,
        {
            "digit": layers.Dense(10, activation="softmax", name="digit")(x),
            "brightness": layers.Dense(1, name="brightness")(x),
        },
    )


def dict_input() -> keras.Model:
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Dense(48, activation="relu")(layers.Flatten()(inputs))
    return keras.Model({"image": inputs}, layers.Dense(10)(x))


def log_softmax() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(48, activation="relu")(layers.Flatten()(inputs))
    return keras.Model(inputs, keras.ops.log_softmax(layers.Dense(10)(x)))


@keras.saving.register_keras_serializable("users")
class Subclassed(keras.Model):
    """Hides its end: nothing shows that it is a softmax."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flatten, self.hidden = layers.Flatten(), layers.Dense(48, activation="relu")
        self.last = layers.Dense(10)

    def call(self, images: Any) -> Any:
        return keras.ops.softmax(self.last(self.hidden(self.flatten(images))))


def logits() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


MODELS = {
    "simple MNIST convnet": UsersModel(simple_convnet),
    "image classification from scratch": UsersModel(
        from_scratch, as_bytes, keras.losses.BinaryCrossentropy(from_logits=True), BYTES, 2, 3
    ),
    "transfer learning": UsersModel(transfer, as_bytes, convention=BYTES, channels=3),
    "vision transformer": UsersModel(transformer, loss=logits()),
    "one sigmoid unit": UsersModel(
        lambda: network(units=1, activation="sigmoid"), loss="binary_crossentropy", classes=2
    ),
    "two outputs": UsersModel(
        two_outputs,
        loss={"digit": "sparse_categorical_crossentropy", "brightness": "mse"},
        convention=Convention(output="digit"),
        output="digit",
    ),
    "log-softmax": UsersModel(log_softmax, loss=logits()),
    "nested": UsersModel(lambda: keras.Sequential([keras.Input((8, 8, 1)), network()])),
    "subclassed": UsersModel(Subclassed),
    "pixels of 0 to 255": UsersModel(network, as_bytes, convention=BYTES),
    "pixels of -1 to 1": UsersModel(
        network,
        lambda images: images / np.float32(127.5) - 1,
        convention=Convention(input_range="-1..1"),
    ),
    "standardized pixels": UsersModel(
        network,
        lambda images: (images / np.float32(255) - 0.3) / 0.35,
        convention=Convention(mean=(0.3,), std=(0.35,)),
    ),
    "caffe": UsersModel(
        lambda: network((8, 8, 3)),
        lambda images: keras.applications.imagenet_utils.preprocess_input(
            images.astype("float32"), mode="caffe"
        ),
        convention=Convention(input_range="caffe"),
        channels=3,
    ),
    "channels first": UsersModel(
        lambda: network((3, 8, 8)),
        lambda images: images.transpose(0, 3, 1, 2) / np.float32(255),
        channels=3,
    ),
    "no channel axis": UsersModel(
        lambda: network((8, 8)), lambda images: images[..., 0] / np.float32(255)
    ),
    "vectors": UsersModel(
        lambda: network((64,)), lambda images: images.reshape(-1, 64) / np.float32(255)
    ),
    "uint8": UsersModel(
        lambda: network(before=[layers.Rescaling(1 / 255)], dtype="uint8"),
        lambda images: images,
        convention=BYTES,
    ),
    "fixed batch": UsersModel(lambda: network(batch_size=40)),
    "dict of one input": UsersModel(
        dict_input, lambda images: {"image": images / np.float32(255)}, logits()
    ),
    "mixed_bfloat16": UsersModel(
        lambda: network(before=[layers.Conv2D(8, 3, activation="relu", dtype="mixed_bfloat16")]),
        tolerance=0.01,
    ),
}
