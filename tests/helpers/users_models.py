"""Classifiers as users of Keras make them: each with the images that it was trained on.

All are trained on the embedded digits, shown as each model wants them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

import bcgan_tf
from bcgan_tf import Convention
from bcgan_tf.keras_graph import all_layers
from helpers import own_layers

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
        tolerance: between its answers in and out of a graph: half precision has three digits.
        enlarged: how many times, for networks that want larger images.
        second: what its user does before a second training at a low learning rate.
        suffix: of the file that it is given as; "": a SavedModel; None: as an object.
        objects: layers of its own, and the Python file that has them.
        refused: by command, what the message says where it cannot be done.
    """

    make: Callable[[], keras.Model]
    shown: Callable[[np.ndarray], Any] = lambda images: images.astype("float32") / 255
    loss: Any = "sparse_categorical_crossentropy"
    convention: Convention = dataclasses.field(default_factory=Convention)
    classes: int = 10
    channels: int = 1
    output: str | None = None
    tolerance: float = 1e-5
    enlarged: int = 1
    second: Callable[[keras.Model], None] | None = None
    suffix: str | None = None
    objects: Mapping[str, type] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def options(self) -> str:
        """What has to be said of it on the command line."""
        said = [self.convention.options] if self.convention.stated else []
        said += [f"--output {self.output}"] if self.output else []
        return " ".join([*said, *(["--custom-objects FILE.py"] if self.objects else [])])

    def data(self, count: int = 400, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images ``[N, 8, 8, C]``, or enlarged ones, and labels."""
        split = bcgan_tf.load_dataset("digits").train.take(start + count)
        labels = split.labels if self.classes == 10 else np.int64(split.labels >= 5)
        images = split.images
        for axis, times in ((1, self.enlarged), (2, self.enlarged), (3, self.channels)):
            images = np.repeat(images, times, axis)
        return images[start:], labels[start:]

    def trained(self) -> keras.Model:
        keras.utils.set_random_seed(0)
        model, (images, labels) = self.make(), self.data()
        for layer in all_layers(model):  # a hundred steps are too few for the usual momentum
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.5
        target: Any = labels
        if self.output is not None:
            target = {self.output: labels, "brightness": images.mean((1, 2, 3)) / 255}
        shown = self.shown(images)
        fit(model, shown, target, self.loss, 3e-3, _EPOCHS)
        if self.second is not None:
            self.second(model)
            fit(model, shown, target, self.loss, 1e-4, 2)
        return model


def fit(
    model: keras.Model, images: Any, labels: Any, loss: Any, learning_rate: float, epochs: int
) -> None:
    """Plain Keras, ten steps at a time."""
    optimizer = keras.optimizers.Adam(learning_rate)
    if model.built:
        optimizer.build(model.trainable_variables)  # or the first step would be traced twice
    model.compile(optimizer, loss, metrics=[], steps_per_execution=10)
    model.fit(images, labels, epochs=epochs, batch_size=40, verbose=0)


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
    """As keras.io's transfer learning: a frozen base, with statistics of others, and a new head."""
    base = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()]
    )
    base.layers[1].momentum = 0.0
    others, _ = UsersModel(transfer, channels=3).data(400, 400)
    base(others / np.float32(127.5) - 1, training=True)
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(scale=1 / 127.5, offset=-1)(inputs)
    x = layers.Dropout(0.2)(layers.Flatten()(base(x, training=False)))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def unfrozen(model: keras.Model) -> None:
    """The base too, for a second training at a low learning rate."""
    for layer in model.layers:
        layer.trainable = True


def transformer() -> keras.Model:
    """As keras.io's vision transformer, of one block: two layers are the user's own."""
    images, _ = UsersModel(transformer).data()
    normalization = layers.Normalization()
    normalization.adapt(as_bytes(images))
    augmentation = keras.Sequential([normalization, layers.RandomFlip("horizontal")])
    inputs = keras.Input((8, 8, 1))
    x = own_layers.PatchEncoder(16, 16)(own_layers.Patches(2)(augmentation(inputs)))
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8, dropout=0.1)(y, y)])
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    y = layers.Dropout(0.1)(layers.Dense(32, activation="gelu")(y))
    x = layers.Add()([x, layers.Dense(16)(y)])
    x = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(10)(layers.Dropout(0.2)(x)))


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


def mixed(policy: str) -> keras.Model:
    """As Keras' guide to mixed precision: a policy for all, but for the last layer."""
    keras.config.set_dtype_policy(policy)
    try:
        convolution = layers.Conv2D(8, 3, activation="relu")
        hidden = layers.Dense(48, activation="relu")
        last = layers.Dense(10, activation="softmax", dtype="float32")
        return keras.Sequential(
            [keras.Input((8, 8, 1)), convolution, layers.Flatten(), hidden, last]
        )
    finally:
        keras.config.set_dtype_policy("float32")


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
    "transfer learning in two phases": UsersModel(
        transfer, as_bytes, convention=BYTES, channels=3, second=unfrozen
    ),
    "vision transformer": UsersModel(
        transformer,
        as_bytes,
        logits(),
        BYTES,
        suffix=".keras",
        objects={kind.__name__: kind for kind in (own_layers.Patches, own_layers.PatchEncoder)},
    ),
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
    "mixed_bfloat16": UsersModel(lambda: mixed("mixed_bfloat16"), tolerance=0.02),
    "mixed_float16": UsersModel(lambda: mixed("mixed_float16"), tolerance=0.005),
    "legacy .h5 file": UsersModel(network, as_bytes, convention=BYTES, suffix=".h5"),
    "SavedModel of model.export": UsersModel(
        network,
        as_bytes,
        convention=BYTES,
        suffix="",
        refused={
            "harden": "only a Keras model can be trained",
            "export": "is a SavedModel already",
        },
    ),
}
