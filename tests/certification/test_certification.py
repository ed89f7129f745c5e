"""Certified accuracy: exact for linear models, sound against attacks, tighter by elision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.certification import certified as module
from bcgan_tf.certification.certified import certified, certified_accuracy, worst_margins
from bcgan_tf.certification.interval_bounds import output_box
from bcgan_tf.certification.intervals import IntervalBound, RoundedIntervalBound
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.networks.copies import clone_with_dtype

RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True)
def own_draws():
    """The draws of a test do not depend on which tests ran before it in this process."""
    global RNG
    RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def linear():
    """Images well inside [0, 1], so that the ball is not cut off, and exact distances."""
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    draw = np.random.default_rng(1)
    kernel, bias = draw.normal(size=(16, 3)), draw.normal(size=3)
    model.set_weights([kernel, bias])
    images = draw.uniform(0.45, 0.55, (40, 4, 4, 1)).astype(np.float32)
    logits = images.reshape(40, 16) @ kernel + bias
    labels = logits.argmax(1)
    gaps = logits[np.arange(40), labels][:, None] - logits
    slopes = np.abs(kernel.T[labels][:, None] - kernel.T[None]).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(gaps == 0, np.inf, gaps / slopes).min(1)
    return model, images, labels, distances


def test_a_linear_model_is_certified_up_to_its_exact_distance(linear):
    model, images, labels, distances = linear
    # A hundredth of a smaller distance is what certification leaves to float32's rounding.
    near = (distances > 0.01) & (distances < 0.4)
    assert near.sum() >= 10
    for image, label, distance in zip(
        images[near][:10], labels[near][:10], distances[near][:10], strict=True
    ):
        for factor, expected in ((0.99, True), (1.01, False)):
            found = certified(model, image[None], [label], factor * distance)
            assert found.tolist() == [expected]


def test_a_wrong_answer_is_never_certified(linear):
    model, images, labels, _ = linear
    assert certified(model, images, (labels + 1) % 3, 0.0).sum() == 0
    assert certified_accuracy(model, images, labels, 0.0) == 1.0


def test_pixels_stay_within_0_and_1():
    """A black image has only one way to go."""
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    model.set_weights([np.float32([[0, -1]]), np.float32([0, -0.1])])
    black = np.zeros((1, 1, 1, 1), np.float32)  # z_1 - z_0 = -0.1 - x: positive for x < -0.1
    assert certified(model, black, [0], 0.5).tolist() == [True]
    assert certified(model, black + 0.3, [0], 0.5).tolist() == [True]


def test_worst_margins_are_at_least_every_margin_and_elision_is_tighter():
    model = small_cnn((6, 6, 1), 4, seed=3)
    images = RNG.uniform(0.2, 0.8, (3, 6, 6, 1)).astype(np.float32)
    labels = np.array([0, 3, 1])
    lower, upper = images - 0.1, images + 0.1
    found = worst_margins(model, tf.constant(lower), tf.constant(upper), labels).numpy()
    np.testing.assert_allclose(found[np.arange(3), labels], 0, atol=1e-6)
    for _ in range(40):
        offsets = RNG.uniform(-0.1, 0.1, (50, 3, 6, 6, 1))
        offsets[25:] = 0.1 * np.sign(offsets[25:])
        logits = model(np.float32(images + offsets).reshape(150, 6, 6, 1)).numpy()
        logits = logits.reshape(50, 3, 4)
        margins = logits - logits[:, np.arange(3), labels][..., None]
        assert (margins <= found + 1e-5).all()
    box = output_box(model, IntervalBound(tf.constant(lower), tf.constant(upper)))
    plain = box.upper.numpy() - box.lower.numpy()[np.arange(3), labels][:, None]
    others = np.arange(4)[None] != labels[:, None]
    assert (found[others] < plain[others] - 1e-3).all()


def test_a_last_layer_with_an_activation_is_bounded_without_elision(linear):
    model, images, labels, _ = linear
    softened = keras.Model(model.inputs[0], keras.layers.Activation("tanh")(model(model.inputs[0])))
    strict, loose = (
        worst_margins(m, tf.constant(images - 0.05), tf.constant(images + 0.05), labels).numpy()
        for m in (model, softened)
    )
    assert np.isfinite(loose).all()
    np.testing.assert_allclose(loose[np.arange(40), labels], 0)
    # tanh rises: nothing is proved of it that is not so of what is inside.
    assert ((loose < 0) <= (strict < 0)).all()


def test_a_nested_last_layer_is_elided_too(linear):
    model, images, labels, _ = linear
    outer = keras.Sequential([keras.Input((4, 4, 1)), model])
    low, high = tf.constant(images - 0.05), tf.constant(images + 0.05)
    np.testing.assert_allclose(
        worst_margins(outer, low, high, labels), worst_margins(model, low, high, labels), atol=1e-6
    )


@pytest.mark.parametrize("eps", [0.002, 0.01])
def test_no_attack_breaks_what_is_certified(eps):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(16, "relu", kernel_initializer=keras.initializers.HeNormal(0))
    logits = keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(1))
    model = keras.Model(image, logits(x(keras.layers.Flatten()(image))))
    images = RNG.uniform(0, 1, (60, 8, 8, 1)).astype(np.float32)
    labels = model(images).numpy().argmax(1)
    proved = certified(model, images, labels, eps)
    assert 0 < proved.sum() < 60
    survived = PGD(eps, steps=50, restarts=2)(model, images, labels).robust
    assert (proved <= survived).all()
    np.testing.assert_array_equal(proved, certified(model, images, labels, eps, batch_size=7))


def test_a_negative_radius_is_refused(linear):
    with pytest.raises(UserError, match=r"eps is -0\.1"):
        certified(linear[0], linear[1], linear[2], -0.1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 4, 4, 1), 200.0, np.float32), r"floats in \[200, 200\]"),
        (np.full((2, 4, 4, 1), -1.0, np.float32), r"floats in \[-1, -1\]"),
        (np.full((2, 4, 4, 1), np.nan, np.float32), "NaN"),
        (np.zeros((2, 5, 4, 1), np.float32), "the model takes images of shape"),
    ],
)
def test_images_of_another_range_are_refused(linear, images, message):
    """Their box, cut off to [0, 1], would be empty, and an empty box proves everything."""
    with pytest.raises(UserError, match=message):
        certified(linear[0], images, [0, 1], 0.3)


def test_a_certificate_needs_another_class(linear):
    model, images, *_ = linear
    with pytest.raises(UserError, match="3 logits and the labels go up to 3"):
        certified(model, images[:2], [0, 3], 0.1)
    image = keras.Input((4, 4, 1))
    single = keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(image)))
    with pytest.raises(UserError, match="1 logits"):
        certified(single, images, np.zeros(len(images), int), 0.1)


def test_bounds_are_in_full_float32(linear, monkeypatch):
    """TensorFloat-32 rounds by a thousandth, and GPUs use it unless they are told."""
    switch = tf.config.experimental
    before, seen = switch.tensor_float_32_execution_enabled(), []
    real = module.is_certified

    def noted(*arguments):
        seen.append(switch.tensor_float_32_execution_enabled())
        return real(*arguments)

    monkeypatch.setattr(module, "is_certified", noted)
    certified(linear[0], linear[1], linear[2], 0.1)
    assert seen and not any(seen)
    assert switch.tensor_float_32_execution_enabled() == before


def _network(*layers, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *layers])


def _dense(units, seed, *args, **kwargs):
    start = keras.initializers.HeNormal(seed)
    return keras.layers.Dense(units, *args, kernel_initializer=start, **kwargs)


def _shifted(offset):
    """A common offset of all logits, beside which float32 loses what they differ by."""
    model = _network(_dense(16, 0, "relu"), _dense(4, 1))
    model.layers[-1].bias.assign(tf.fill([4], np.float32(offset)))
    return model


def _there_and_back(offset, factor=1.0):
    """Pixels, as much of them as float32 keeps beside an offset that is taken away again."""
    there = keras.layers.Rescaling(factor, offset)
    back = keras.layers.Rescaling(1.0 / factor, -offset / factor)
    return _network(there, back, _dense(16, 0, "relu"), _dense(4, 1))


def _normalized(mean):
    """The same by the statistics of batch normalization, and of a normalization in front."""
    model = _network(
        keras.layers.Normalization(mean=-mean, variance=1.0),
        keras.layers.BatchNormalization(epsilon=0.0),
        _dense(16, 0, "elu"),
        _dense(4, 1),
    )
    model.layers[1].moving_mean.assign(tf.fill([8], np.float32(mean)))
    return model


def _cancelling(size):
    """Two halves of the hidden units that take each other away but for a millionth."""
    model = _network(_dense(32, 0, "relu"), _dense(4, 1))
    first, last = model.layers
    kernel, bias = first.get_weights()
    kernel[:, 16:] = kernel[:, :16]
    first.set_weights([size * kernel, bias])
    kernel, bias = last.get_weights()
    kernel[16:] = np.random.default_rng(3).normal(1.0, 1e-6, (16, 4)) * -kernel[:16]
    last.set_weights([kernel, bias])
    return model


ROUNDING_NETWORKS = {
    "offset 1e8": lambda: _shifted(1e8),
    "offset 1e6": lambda: _shifted(1e6),
    "there and back by 1e6": lambda: _there_and_back(1e6),
    "there and back by 1e7, times 3": lambda: _there_and_back(1e7, 3.0),
    "normalized by 1e6": lambda: _normalized(1e6),
    "cancelling": lambda: _cancelling(1e4),
}


def _random_images(model, count=60):
    """Images with the labels of the network in float64: it is not always right in float32."""
    images = np.random.default_rng(5).uniform(0, 1, (count, 8)).astype(np.float32)
    exact = clone_with_dtype(model, "float64")(images.astype(np.float64)).numpy()
    return images, exact.argmax(1)


@pytest.mark.parametrize("name", ROUNDING_NETWORKS)
def test_what_float32_answers_wrongly_is_never_certified(name):
    """Corners and points of the ball, run in float32, each alone in its effect on rounding."""
    model = ROUNDING_NETWORKS[name]()
    images, labels = _random_images(model)
    draws = np.random.default_rng(6).uniform(-1, 1, (400, 1, 8)).astype(np.float32)
    draws[200:] = np.sign(draws[200:])
    for eps in (0.0, 1e-2):
        proved = certified(model, images, labels, eps)
        points = np.clip(images + np.float32(eps) * draws, 0, 1).reshape(-1, 8)
        right = (model(points).numpy().argmax(1).reshape(400, -1) == labels).all(0)
        right &= model(images).numpy().argmax(1) == labels
        assert not (proved & ~right).any()


def test_certified_accuracy_is_at_most_clean_accuracy_beside_a_common_offset():
    model = _shifted(1e8)
    images, labels = _random_images(model)
    clean = model(images).numpy().argmax(1) == labels
    assert 0 < clean.mean() < 1
    assert (certified(model, images, labels, 0.0) <= clean).all()
    # Without the offset all are right, and all are proved.
    model.layers[-1].bias.assign(tf.zeros(4))
    assert certified(model, images, labels, 0.0).all()


@pytest.mark.parametrize("mask", [-1e9, -np.inf])
def test_a_masked_class_changes_no_certificate(mask):
    model, wider = (
        _network(_dense(16, 0, "relu"), _dense(4, 1)),
        _network(_dense(16, 0, "relu"), _dense(5, 1)),
    )
    images, labels = _random_images(model)
    (kernel, bias), hidden = model.layers[-1].get_weights(), model.layers[0].get_weights()
    wider.layers[0].set_weights(hidden)
    wider.layers[1].set_weights([np.pad(kernel, [(0, 0), (0, 1)]), np.append(bias, mask)])
    for eps in (0.003, 0.02):
        found = certified(wider, images, labels, eps)
        np.testing.assert_array_equal(found, certified(model, images, labels, eps))
        assert 0 < found.sum() < 60


def test_rounding_costs_ordinary_networks_next_to_nothing():
    """The bounds with and without it agree to a thousandth of the width of the box."""
    model = small_cnn((6, 6, 1), 4, seed=3)
    images = RNG.uniform(0.2, 0.8, (8, 6, 6, 1)).astype(np.float32)
    low, high = tf.constant(images - 0.01), tf.constant(images + 0.01)
    plain, rounded = (
        output_box(model, IntervalBound(low, high)),
        output_box(model, RoundedIntervalBound(low, high)),
    )
    slack = 1e-3 * (plain.upper - plain.lower).numpy().min()
    for side in ("lower", "upper"):
        np.testing.assert_allclose(getattr(rounded, side), getattr(plain, side), atol=slack)
    assert (rounded.lower.numpy() < plain.lower.numpy()).all()
    assert (rounded.upper.numpy() > plain.upper.numpy()).all()


def test_many_classes_are_bounded_one_image_at_a_time_with_equal_results(monkeypatch):
    images = RNG.uniform(0.2, 0.8, (7, 6, 6, 1)).astype(np.float32)
    model = small_cnn((6, 6, 1), 1000, seed=3)
    labels = np.asarray(model(images)).argmax(1)
    lower, upper = tf.constant(images - 0.01), tf.constant(images + 0.01)
    found = []
    for limit in (0, 10**9):
        monkeypatch.setattr(module, "_MANY_WEIGHTS", limit)
        margins = worst_margins(model, lower, upper, labels)
        found.append((margins, certified(model, images, labels, 1e-4)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-6)
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert margins.shape == (7, 1000) and found[0][1].sum() > 0
