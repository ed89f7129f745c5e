"""Interval bounds: exact where they must be, sound everywhere, refused where there are none."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.certification.interval_bounds import output_box, require_bounds
from bcgan_tf.certification.intervals import IntervalBound, RoundedIntervalBound
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import mlp, resnet18, small_cnn, strided_cnn
from bcgan_tf.networks.layers import ResumableDropout
from bcgan_tf.networks.oracle import oracle

L = keras.layers
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_draws():
    """The draws of a test do not depend on which tests ran before it in this process."""
    global RNG
    RNG = np.random.default_rng(0)


def functional(shape, *layers):
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


def bounds_of(model, lower, upper):
    box = output_box(
        model, IntervalBound(tf.constant(lower, tf.float32), tf.constant(upper, tf.float32))
    )
    return box.lower.numpy(), box.upper.numpy()


def randomized(model):
    """All weights random: biases and the statistics of batch normalisation too."""
    for weight in model.weights:
        if weight.dtype == "float32":
            positive = "variance" in weight.name
            draw = (
                RNG.normal(0, 0.4, weight.shape)
                if not positive
                else RNG.uniform(0.2, 2, weight.shape)
            )
            weight.assign(draw.astype(np.float32))
    return model


def test_a_dense_layer_by_hand():
    model = functional((2,), L.Dense(2))
    model.set_weights([np.float32([[1, -2], [3, 0.5]]), np.float32([1, 0])])
    lower, upper = bounds_of(model, [[0, -1]], [[1, 2]])
    # x in [0, 1], y in [-1, 2]: x + 3y + 1 and -2x + y/2
    np.testing.assert_allclose(lower, [[-2, -2.5]], atol=1e-6)
    np.testing.assert_allclose(upper, [[8, 1]], atol=1e-6)


def test_pixelwise_layers_by_hand():
    cases = {
        L.Rescaling(-2.0, offset=1.0): ([-1.0], [1.4]),
        L.Rescaling([3.0], offset=[-1.0]): ([-1.6], [2.0]),
        L.ReLU(): ([0.0], [1.0]),
        L.ReLU(max_value=0.5): ([0.0], [0.5]),
        L.ReLU(negative_slope=0.5): ([-0.1], [1.0]),
        L.LeakyReLU(0.25): ([-0.05], [1.0]),
        L.ELU(2.0): ([2 * np.expm1(-0.2)], [1.0]),
        L.Normalization(axis=None, mean=0.5, variance=0.25): ([-1.4], [1.0]),
        L.Normalization(axis=None, mean=0.5, variance=0.25, invert=True): ([0.4], [1.0]),
        L.Activation("relu"): ([0.0], [1.0]),
        L.Dropout(0.9): ([-0.2], [1.0]),
        ResumableDropout(0.9): ([-0.2], [1.0]),
    }
    for layer, (low, high) in cases.items():
        lower, upper = bounds_of(functional((1,), layer), [[-0.2]], [[1.0]])
        np.testing.assert_allclose([lower[0], upper[0]], [low, high], atol=1e-6, err_msg=layer.name)


def test_batch_normalisation_by_hand_with_a_negative_factor():
    layer = L.BatchNormalization(epsilon=0.0)
    model = functional((2,), layer)
    layer.set_weights([np.float32(v) for v in ([2, -3], [1, 0], [0.5, 1], [4, 9])])
    lower, upper = bounds_of(model, [[0, 0]], [[1, 1]])
    # 2 (x - 0.5) / 2 + 1 and -3 (y - 1) / 3
    np.testing.assert_allclose(lower, [[0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(upper, [[1.5, 1]], atol=1e-6)


def test_functions_with_a_minimum_by_hand():
    cases = {  # of [-2, 1], and of [-4, -2], where the first two fall
        "gelu": (-0.1699712, 0.8413447, -0.0455003, -0.0001267),
        "silu": (-0.2784645, 0.7310586, -0.2384058, -0.0719448),
        "hard_silu": (-0.375, 0.6666667, -0.3333333, 0.0),
    }
    for name, known in cases.items():
        lower, upper = bounds_of(functional((2,), L.Activation(name)), [[-2, -4]], [[1, -2]])
        found = [lower[0, 0], upper[0, 0], lower[0, 1], upper[0, 1]]
        np.testing.assert_allclose(found, known, atol=1e-6, err_msg=name)


def test_a_layer_normalization_by_hand():
    """Rows (x, y): x - y goes from 1 to 3, half of it is the deviation, and 1 its largest share."""
    layer = L.LayerNormalization(epsilon=1e-9)
    model = functional((2,), layer)
    layer.set_weights([np.float32(v) for v in ([2, -3], [1, 0])])
    lower, upper = bounds_of(model, [[2, 0]], [[3, 1]])
    # The deviation lies in [0.5, 1.5], so the first value in [0.5 / 1.5, 1], the second opposite.
    np.testing.assert_allclose(lower, [[2 / 3 + 1, 1]], atol=1e-5)
    np.testing.assert_allclose(upper, [[3, 3]], atol=1e-5)


def test_products_by_hand():
    pixels = keras.Input((3,))
    other = L.Rescaling(-2.0)(pixels)
    for product in (L.Multiply()([pixels, other]), pixels * other):
        lower, upper = bounds_of(keras.Model(pixels, product), [[-1, 1, -3]], [[2, 2, -1]])
        np.testing.assert_allclose(lower, [[-8, -8, -18]], atol=1e-5)  # corners; x * -2x
        np.testing.assert_allclose(upper, [[4, -2, -2]], atol=1e-5)
    model = keras.Model(pixels, (1.0 - pixels) / -4.0 + 0.5)
    lower, upper = bounds_of(model, [[-1, 1, -3]], [[2, 2, -1]])
    np.testing.assert_allclose(lower, [[0, 0.5, -0.5]], atol=1e-6)
    np.testing.assert_allclose(upper, [[0.75, 0.75, 0]], atol=1e-6)


CONVOLUTIONS = {
    "plain": lambda **options: L.Conv2D(3, 3, **options),
    "depthwise": lambda **options: L.DepthwiseConv2D(3, depth_multiplier=2, **options),
    "separable": lambda **options: L.SeparableConv2D(3, 3, **options),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_is_exact(kind, padding, strides, dilation):
    """Each output is reached at the corner that the signs of its weights point to."""
    layer = CONVOLUTIONS[kind](strides=strides, padding=padding, dilation_rate=dilation)
    model = randomized(functional((6, 6, 2), layer))
    center, radius = RNG.normal(size=(1, 6, 6, 2)), RNG.uniform(0, 1, (1, 6, 6, 2))
    lower, upper = bounds_of(model, center - radius, center + radius)
    points = tf.constant(center, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(points)
        outputs = tf.reshape(model(points), [-1])
    slopes = tape.jacobian(outputs, points).numpy()  # [outputs, 1, 6, 6, 2]
    reach = (np.abs(slopes) * radius[None]).sum(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(upper.ravel(), outputs + reach, atol=1e-4)
    np.testing.assert_allclose(lower.ravel(), outputs - reach, atol=1e-4)


def residual():
    image = keras.Input((6, 6, 1))
    x = L.Conv2D(4, 3, padding="same", use_bias=False)(image)
    x = L.ReLU()(L.BatchNormalization()(x))
    side = L.AveragePooling2D(2)(L.Conv2D(4, 3, padding="same", activation="relu")(x))
    x = L.Add()([L.MaxPooling2D(2)(x), side])
    return keras.Model(image, L.Dense(3)(L.Dropout(0.5)(L.Flatten()(x))))


def nested():
    inner = functional((6, 6, 1), L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D())
    return keras.Sequential([keras.Input((6, 6, 1)), L.Rescaling(2.0, -1.0), inner, L.Dense(3)])


def of_a_user():
    """What Keras' guides put in front of a network, and what predicts nothing."""
    normalization = L.Normalization()
    normalization.adapt(RNG.uniform(-1, 3, (50, 7, 8, 1)))
    shifting = [L.RandomFlip(), L.RandomRotation(0.1), L.RandomTranslation(0.1, 0.1)]
    coloring = [L.RandomContrast(0.2), L.RandomBrightness(0.2, value_range=(0, 1))]
    augmentation = keras.Sequential([*shifting, *coloring, L.RandomZoom(0.1), L.RandomShear(0.1)])
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            augmentation,
            L.Resizing(7, 8),
            normalization,
            L.RandomErasing(),
            L.CenterCrop(6, 6),
            L.Conv2D(4, 3, activation="elu"),
            L.Permute((3, 1, 2)),
            L.Flatten(),
            L.GaussianDropout(0.5),
            L.Dense(3),
        ]
    )


def nested_in_a_graph():
    """A part that stands in two models, and is the last layer of one."""
    image = keras.Input((6, 6, 1))
    inner = functional((6, 6, 1), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3))
    assert keras.Model(image, L.Activation("tanh")(inner(image)))
    return keras.Model(image, inner(L.Rescaling(2.0, -1.0)(image)))


def shared():
    """One layer called three times, twice on its own output."""
    image, layer = keras.Input((6, 6, 1)), L.Dense(36, activation="relu")
    first = layer(L.Flatten()(image))
    second = layer(first)
    return keras.Model(image, L.Dense(3)(L.Add()([first, layer(second)])))


def mobile():
    """Depthwise convolutions, and blocks of squeeze and excitation as MobileNetV3 has them."""
    image = keras.Input((6, 6, 1))
    x = L.Conv2D(4, 3, padding="same", activation="hard_swish")(image)
    x = L.DepthwiseConv2D(3, padding="same", activation="swish")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    x = L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid")(gate)])
    gate = L.ReLU(6.0)(L.Conv2D(4, 1)(L.GlobalAveragePooling2D(keepdims=True)(x)) + 3.0) * (1 / 6)
    x = L.ZeroPadding2D(1)(x * gate)
    x = L.Concatenate()([x, L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2)(x)])
    return keras.Model(image, L.Dense(3)(L.Flatten()(x)))


def mixer():
    """Layer normalization and GELU on patches, with a sum by an operator."""
    image = keras.Input((6, 6, 1))
    x = L.Reshape((9, 4))(L.Conv2D(4, 2, strides=2)(image / 0.5 - 1.0))
    x = x + L.Dense(4)(L.Dense(8, activation="gelu")(L.LayerNormalization()(x)))
    x = L.LayerNormalization(axis=[1, 2], scale=False)(x)
    return keras.Model(image, L.Dense(3)(L.Flatten()(x)))


NETWORKS = {
    "mobile": mobile,
    "mixer": mixer,
    "small_cnn": lambda: small_cnn((6, 6, 1), 3, seed=0),
    "thresholded": lambda: strided_cnn((6, 6, 1), 3, width=0.25, threshold=0.3, seed=0),
    "resnet18": lambda: resnet18((6, 6, 1), 3, width=1 / 16, seed=0),
    "oracle": lambda: oracle((6, 6, 1), 3),
    "residual": residual,
    "nested": nested,
    "of_a_user": of_a_user,
    "nested_in_a_graph": nested_in_a_graph,
    "shared": shared,
    "tanh": lambda: functional(
        (6, 6, 1), L.Flatten(), L.Dense(8, activation="tanh"), L.Activation("sigmoid"), L.Dense(3)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_contain_every_random_point_and_corner(name):
    """10,000 points of one box, half of them corners."""
    model = randomized(NETWORKS[name]())
    center, radius = RNG.uniform(0.2, 0.8, (1, 6, 6, 1)), RNG.uniform(0, 0.2, (1, 6, 6, 1))
    lower, upper = bounds_of(model, center - radius, center + radius)
    offsets = RNG.uniform(-1, 1, (10_000, 6, 6, 1))
    offsets[5000:] = np.sign(offsets[5000:])
    outputs = model(np.float32(center + offsets * radius), training=False).numpy()
    slack = 1e-5 * np.abs(upper - lower).max()
    assert (outputs >= lower - slack).all() and (outputs <= upper + slack).all()
    assert np.isfinite(upper).all() and (upper > lower).all()
    at_center = bounds_of(model, center, center)
    for side in at_center:  # a box of one point is that point's answer
        np.testing.assert_allclose(
            side, model(np.float32(center), training=False), rtol=1e-3, atol=1e-4
        )


def test_all_corners_of_a_small_box():
    model = randomized(mlp(6, 3, hidden=(5, 4), seed=0))
    center = RNG.normal(size=6)
    lower, upper = bounds_of(model, center[None] - 0.3, center[None] + 0.3)
    corners = np.float32(list(itertools.product(*[(v - 0.3, v + 0.3) for v in center])))
    outputs = model(corners).numpy()
    assert (outputs >= lower - 1e-5).all() and (outputs <= upper + 1e-5).all()


def two_inputs():
    images = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(images, L.Add()(images))


class Doubling(keras.layers.Dense):
    """A subclass may compute something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class OwnCall(keras.Model):
    """Functional by its layers; what it computes is another thing."""

    def call(self, inputs, training=None, mask=None):
        return 1.0 - super().call(inputs, training=training, mask=mask)


def own_call():
    pixels = keras.Input((4,))
    return OwnCall(pixels, L.Dense(2)(pixels))


def quantized(mode):
    model = functional((4,), L.Dense(2, name="small"))
    model.quantize(mode)
    return model


def divided():
    pixels = keras.Input((4,))
    return keras.Model(pixels, pixels / L.Dense(4, "sigmoid")(pixels))


def rounded_input():
    pixels = keras.Input((4,), dtype="bfloat16")
    return keras.Model(pixels, L.Dense(2, dtype="float32")(pixels))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: functional((4, 4, 1), L.Conv2DTranspose(2, 3, name="wide")),
            "Conv2DTranspose 'wide' has no",
        ),
        (lambda: functional((4,), L.Softmax(name="end")), "Softmax 'end' has no interval bounds"),
        (lambda: functional((4,), L.Dense(2, "softmax", name="p")), "Dense 'p' has an activation"),
        (lambda: functional((4,), L.Dense(2, "mish", name="g")), r"'g' has an act.* \(mish\)"),
        (divided, "divides by what is no constant"),
        (lambda: functional((4,), Doubling(2, name="twice")), "Doubling 'twice' has no"),
        (lambda: functional((4,), L.Dense(2, dtype="mixed_bfloat16")), "computes in bfloat16"),
        (lambda: functional((4,), L.ReLU(max_value=1.0, threshold=2.0)), "where it is clipped"),
        (lambda: functional((4,), L.ELU(-1.0)), "decreases below zero"),
        (lambda: functional((4, 4, 1), L.Resizing(8, 8, "bicubic")), "interpolates bicubic"),
        (lambda: functional((4, 3), L.BatchNormalization(axis=1)), "the last axis"),
        (two_inputs, "needs exactly one input"),
        (Subclassed, "Subclassed .* is no functional model"),
        (own_call, "OwnCall .* is a subclass with its own call"),
        (lambda: quantized("int8"), r"Dense .* is quantized \(int8\)"),
        (rounded_input, "takes its images in bfloat16"),
    ],
)
def test_what_cannot_be_bounded_is_named(build, message):
    model = build()
    if isinstance(model, Subclassed):
        model(np.zeros((1, 4), np.float32))
    with pytest.raises(UserError, match=message) as caught:
        require_bounds(model)
    assert "\n" not in str(caught.value)


def test_all_that_cannot_be_bounded_is_named_at_once():
    image = keras.Input((4, 4, 2))
    inner = functional((6, 6, 2), L.Conv2DTranspose(2, 1, name="inside"), L.Activation("mish"))
    x = inner(L.Conv2DTranspose(2, 3, name="outside")(image))
    x = L.MultiHeadAttention(1, 2, name="attention")(x, x)
    for number in range(7):
        x = L.UnitNormalization(name=f"unit{number}")(x)
    model = keras.Model(image, L.Dense(2, name="end")(L.Flatten()(x)))
    with pytest.raises(UserError) as caught:
        require_bounds(model)
    assert str(caught.value) == (
        "no interval bounds: each of Conv2DTranspose 'outside', 'inside' has no interval bounds "
        f"here; Activation '{inner.layers[-1].name}' has an activation without interval bounds "
        "here (mish); MultiHeadAttention 'attention' has no interval bounds here; each of "
        "UnitNormalization 'unit0', 'unit1', 'unit2', 'unit3', 'unit4' and 2 more has no interval "
        "bounds here"
    )


ROUNDED = {
    "layer normalization": lambda: (L.LayerNormalization(),),
    "of all axes": lambda: (L.LayerNormalization(axis=[1, 2, 3], epsilon=1e-6),),
    "gelu": lambda: (L.Activation("gelu"),),
    "silu": lambda: (L.Activation("silu"),),
    "hard_silu": lambda: (L.Activation("hard_silu"),),
    "depthwise": lambda: (L.DepthwiseConv2D(3),),
    "separable": lambda: (L.SeparableConv2D(4, 3, depth_multiplier=2),),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_bounds_contain_what_float32_and_float64_compute(name):
    """At points alone, of all sizes; and far from 0, where a variance is mostly rounding."""
    model = randomized(functional((6, 6, 5), *ROUNDED[name]()))
    exact = keras.models.clone_model(
        model,
        input_tensors=keras.Input((6, 6, 5), dtype="float64"),
        clone_function=lambda one: type(one).from_config({**one.get_config(), "dtype": "float64"}),
    )
    exact.set_weights(model.get_weights())
    sizes = 10.0 ** RNG.uniform(-4, 4, (400, 1, 1, 1))
    points = RNG.normal(size=(400, 6, 6, 5)) * sizes
    points[::2] += 100 * sizes[::2]
    points = np.float32(points)
    box = output_box(model, RoundedIntervalBound(tf.constant(points), tf.constant(points)))
    lower, upper = box.lower.numpy(), box.upper.numpy()
    for answers in (model(points).numpy(), np.asarray(exact(points.astype(np.float64)))):
        assert (answers >= lower).all() and (answers <= upper).all()
    # And they are of use: within a thousandth of the inputs' size.
    assert np.median((upper - lower).max((1, 2, 3)) / np.abs(points).max((1, 2, 3))) < 1e-3
