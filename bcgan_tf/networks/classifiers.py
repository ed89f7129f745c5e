"""The classifiers of the package: functional Keras models with logits as output.

Every one takes float32 images in [0, 1] (NHWC; the MLP takes unbounded vectors), does its own
rescaling inside and ends in a float32 layer called ``logits``. They contain built-in Keras layers
only, so that Keras alone can load a saved one. Layer names are fixed: weights are loaded by them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import keras

from bcgan_tf.errors import UserError
from bcgan_tf.networks.building import (
    Seeds,
    check_width,
    image_shape,
    logits_layer,
    relu_dense,
)
from bcgan_tf.networks.deep_cnn import deep_cnn
from bcgan_tf.networks.strided_cnn import strided_cnn
from bcgan_tf.settings.fields import Range, checked
from bcgan_tf.settings.kinds import Classes, Width
from bcgan_tf.settings.presets import NETWORKS

# Convolutions of the small networks, each followed by a 2x2 maximum pooling.
_SMALL_CNN_FILTERS = (32, 64)
_PAPER_CNN_FILTERS = (16, 32)
_RESNET_CHANNELS = (64, 128, 256, 512)
_RESNET_BLOCKS_PER_STAGE = 2


@checked
def small_cnn(
    input_shape: Sequence[int],
    num_classes: Classes,
    *,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """The paper's network for MNIST, twice as wide: two convolutions and one fully connected layer.

    Conv 5x5, 32, ReLU; max-pool 2; conv 5x5, 64, ReLU; max-pool 2; dense K. The images in [0, 1]
    are used as they are. The paper gives only the number of layers; :func:`paper_cnn` has the
    sizes of the code that its figures most likely come from.

    Args:
        input_shape: ``(H, W, C)``, at least 4x4 pixels.
        num_classes: ``K``, the number of logits.
        seed: of the initial weights (Glorot uniform); None takes Keras' global seed.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the logits stay float32.

    Returns:
        A functional model, float32 ``[B, H, W, C]`` to float32 logits ``[B, K]``.

    Raises:
        UserError: when the shape is no image of at least 4x4 pixels, or K < 2.
    """
    shape = image_shape("small_cnn", input_shape, smallest=4)
    seeds = Seeds(seed)
    images = keras.Input(shape, name="images")
    x = _pooled_convolutions(images, _SMALL_CNN_FILTERS, seeds.glorot, dtype)
    return keras.Model(images, logits_layer(x, num_classes, seeds.glorot()), name="small_cnn")


@checked
def paper_cnn(
    input_shape: Sequence[int],
    num_classes: Classes,
    *,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """The network of the code that the paper's figures most likely come from; see docs/audit.md.

    Pixels mapped to [-1, 1]; conv 5x5, 16, ReLU; max-pool 2; conv 5x5, 32, ReLU; max-pool 2; dense
    K: 28,938 weights for MNIST.

    Args:
        input_shape: ``(H, W, C)``, at least 4x4 pixels.
        num_classes: ``K``, the number of logits.
        seed: of the initial kernels, uniform within ``1 / sqrt(fan-in)``; biases are 0. None takes
            Keras' global seed.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the logits stay float32.

    Returns:
        A functional model, float32 ``[B, H, W, C]`` in [0, 1] to float32 logits ``[B, K]``.

    Raises:
        UserError: when the shape is no image of at least 4x4 pixels, or K < 2.
    """
    shape = image_shape("paper_cnn", input_shape, smallest=4)
    seeds = Seeds(seed)
    images = keras.Input(shape, name="images")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale", dtype="float32")(images)
    x = _pooled_convolutions(x, _PAPER_CNN_FILTERS, seeds.fan_in, dtype)
    return keras.Model(images, logits_layer(x, num_classes, seeds.fan_in()), name="paper_cnn")


def _pooled_convolutions(
    x: Any, filters: Sequence[int], initializer: Callable[[], Any], dtype: str | None
) -> Any:
    for i, channels in enumerate(filters, start=1):
        x = keras.layers.Conv2D(
            channels,
            5,
            padding="same",
            activation="relu",
            kernel_initializer=initializer(),
            name=f"conv_{i}",
            dtype=dtype,
        )(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool_{i}", dtype=dtype)(x)
    return keras.layers.Flatten(name="flatten", dtype=dtype)(x)


@checked
def resnet18(
    input_shape: Sequence[int],
    num_classes: Classes,
    *,
    width: Width = 1.0,
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """ResNet-18 as used for 32x32 images: a 3x3 stem, four stages of two basic blocks.

    He et al. 2016, "Deep Residual Learning for Image Recognition", with projection shortcuts and
    without the stem's stride and pooling. Images in [0, 1] are mapped to [-1, 1] first.
    Batch normalization is synchronized over replicas; its momentum is 0.9, because Keras' 0.99
    leaves the inference statistics far behind in runs of a few epochs.

    Args:
        input_shape: ``(H, W, C)``; the last stage works at an eighth of the resolution.
        num_classes: ``K``, the number of logits.
        width: factor on all channels; 1 has stages of 64, 128, 256 and 512.
        seed: of the initial weights (He normal); None takes Keras' global seed.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the logits stay float32.

    Returns:
        A functional model, float32 ``[B, H, W, C]`` to float32 logits ``[B, K]``.

    Raises:
        UserError: when the shape is no image, K < 2, or the width leaves a stage no channels.
    """
    shape = image_shape("resnet18", input_shape, smallest=1)
    check_width(width, _RESNET_CHANNELS[0])
    channels = [round(c * width) for c in _RESNET_CHANNELS]
    seeds = Seeds(seed)

    def conv(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
        x = keras.layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=seeds.he(),
            name=f"{name}_conv",
            dtype=dtype,
        )(x)
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=True, name=f"{name}_norm", dtype=dtype
        )(x)

    def relu(x: Any, name: str) -> Any:
        return keras.layers.ReLU(name=name, dtype=dtype)(x)

    images = keras.Input(shape, name="images")
    # float32 even under a mixed policy: the perturbations of interest are finer than bfloat16.
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale", dtype="float32")(images)
    x = relu(conv(x, channels[0], 3, 1, "stem"), "stem_relu")
    previous = channels[0]
    for stage, filters in enumerate(channels, start=1):
        for block in range(1, _RESNET_BLOCKS_PER_STAGE + 1):
            name = f"stage_{stage}_block_{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            shortcut = x
            if stride != 1 or filters != previous:
                shortcut = conv(x, filters, 1, stride, f"{name}_shortcut")
            x = relu(conv(x, filters, 3, stride, f"{name}_1"), f"{name}_1_relu")
            x = conv(x, filters, 3, 1, f"{name}_2")
            x = keras.layers.Add(name=f"{name}_add", dtype=dtype)([x, shortcut])
            x = relu(x, f"{name}_relu")
            previous = filters
    x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(x)
    return keras.Model(images, logits_layer(x, num_classes, seeds.glorot()), name="resnet18")


@checked
def mlp(
    input_dim: Annotated[int, Range(1, 10_000_000)],
    num_classes: Classes,
    *,
    hidden: Sequence[int] = (64, 64),
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """Fully connected ReLU network for vectors: the toy of the paper's Figure 2.

    Args:
        input_dim: ``D``, the length of the vectors, which are used as they are.
        num_classes: ``K``, the number of logits.
        hidden: units of each hidden layer; none makes a linear classifier.
        seed: of the initial weights (Glorot uniform); None takes Keras' global seed.
        dtype: a Keras dtype policy such as ``"mixed_bfloat16"``; the logits stay float32.

    Returns:
        A functional model, float32 ``[B, D]`` to float32 logits ``[B, K]``.

    Raises:
        UserError: when a size is not positive, or K < 2.
    """
    if any(units < 1 for units in hidden):
        raise UserError(f"hidden is {tuple(hidden)}; choose layers of at least 1 unit")
    seeds = Seeds(seed)
    vectors = keras.Input((input_dim,), name="vectors")
    x = relu_dense(vectors, hidden, seeds=seeds, dtype=dtype)
    return keras.Model(vectors, logits_layer(x, num_classes, seeds.glorot()), name="mlp")


_FOR_IMAGES = (small_cnn, paper_cnn, strided_cnn, deep_cnn, resnet18)
CLASSIFIERS: dict[str, Callable[..., keras.Model]] = {
    **dict(zip(NETWORKS, _FOR_IMAGES, strict=True)),
    "mlp": mlp,
}


def classifier(
    name: str, input_shape: Sequence[int], num_classes: int, **options: Any
) -> keras.Model:
    """Build a classifier by its name.

    Args:
        name: one of :data:`CLASSIFIERS`.
        input_shape: ``(H, W, C)`` of the images, or ``(D,)`` for vectors (``mlp`` only).
        num_classes: ``K``, the number of logits.
        **options: keyword options of the function of that name.

    Returns:
        A functional model, float32 inputs to float32 logits ``[B, K]``.

    Raises:
        UserError: for an unknown name or option, or a shape the classifier cannot take.
    """
    if name not in CLASSIFIERS:
        raise UserError(f"unknown classifier {name!r}; choose one of {', '.join(CLASSIFIERS)}")
    build = CLASSIFIERS[name]
    known = list(inspect.signature(build).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(
            f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
        )
    if name == "mlp":
        if len(input_shape) != 1:
            raise UserError(
                f"mlp takes vectors (D,), not images {tuple(input_shape)}; "
                f"choose one of {', '.join(NETWORKS)}"
            )
        return mlp(input_shape[0], num_classes, **options)
    return build(input_shape, num_classes, **options)
