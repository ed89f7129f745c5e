"""Boundary planes: exact distances, eq. 11 against NumPy, saturation, clipping, reuse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.perturbation import plane_directions
from bcgan_tf.perturbation.boundary_plane import (
    PlaneDirections,
    boundary_plane,
    gradient_directions,
    pgd_plane_directions,
)

SHAPE = (2, 3, 1)
QUICK = {"resolution": 21}


def linear(weights: np.ndarray, bias: np.ndarray | float, scale: float = 1.0):
    """Logits ``scale * (x @ weights + bias)``."""
    kernel, offset = tf.constant(weights, tf.float32), tf.constant(bias, tf.float32)

    def logits_fn(images):
        flat = tf.reshape(images, [-1, kernel.shape[0]])
        return scale * (flat @ kernel + offset)

    return logits_fn


@pytest.fixture
def two_classes():
    """A linear model, an image of class 0 in its middle, and the distance to the boundary."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=6)
    image = np.full(SHAPE, 0.5, "float32")
    distance = 0.123
    # Logit 1 minus logit 0 is normal @ x + bias, which is -distance * |normal| at the image.
    bias = -normal.sum() * 0.5 - distance * np.linalg.norm(normal)
    weights = np.stack([-0.3 * normal, 0.7 * normal], axis=1)
    return weights, np.array([-0.3 * bias, 0.7 * bias]), normal, image, distance


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, 1e4])
def test_a_linear_boundary_is_at_its_exact_distance(two_classes, scale):
    weights, bias, normal, image, distance = two_classes
    model = linear(weights, bias, scale)
    plane = boundary_plane(model, image, 0, extent=0.3, resolution=61)
    assert plane.boundary_distance == pytest.approx(distance, abs=1e-5)
    unit = normal.reshape(SHAPE) / np.linalg.norm(normal)
    np.testing.assert_allclose(plane.g_hat, unit, atol=1e-5)
    # The boundary is orthogonal to g: every row of the map is the same step at the distance.
    expected = (plane.u > distance).astype("int64")
    np.testing.assert_array_equal(plane.class_map, np.tile(expected, (61, 1)))
    # One region of linearity: the local gradient adds nothing to the averaged one.
    assert plane.directions.used_random_orthogonal
    # At a gap of 1e4 * 0.123 * |normal| the cross entropy has no float32 gradient left.
    assert plane.used_margin_gradient == (scale == 1e4)


def test_the_other_side_and_a_plane_without_a_boundary(two_classes):
    weights, bias, _, image, _ = two_classes
    model = linear(weights, bias)
    assert boundary_plane(model, image, 1, extent=0.3, **QUICK).boundary_distance == 0.0
    far = boundary_plane(model, image, 0, extent=0.1, **QUICK)
    assert far.boundary_distance is None
    assert (far.class_map == 0).all()
    assert (far.margin > 0).all()


def curved(scale: float = 1.0):
    """Two logits, 0 and f(x) = scale * (a @ x + |x|^2): gradient and noise differ everywhere."""
    a = tf.constant([0.5, -1.0, 0.2, -0.8, 0.3, -2.0])

    def logits_fn(images):
        flat = tf.reshape(images, [-1, 6])
        f = scale * (tf.linalg.matvec(flat, a) + tf.reduce_sum(flat**2, axis=1))
        return tf.stack([tf.zeros_like(f), f], axis=1)

    def gradient(x):
        """Of -log softmax(logits)[0] = log(1 + exp(f)), in float64, one row per example."""
        f = scale * (x @ a.numpy().astype("float64") + (x**2).sum(1))
        return scale * (a.numpy() + 2 * x) / (1 + np.exp(-f))[:, None]

    return logits_fn, gradient


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
def test_equation_11(monkeypatch, batch_size):
    monkeypatch.setattr(plane_directions, "BATCH", batch_size)
    logits_fn, gradient = curved()
    image = np.random.default_rng(1).random(SHAPE, "float32")
    sigma, copies, seed = 0.5, 100, 3
    found = gradient_directions(logits_fn, image, 0, sigma=sigma, copies=copies, seed=seed)
    noise = np.random.default_rng(seed).standard_normal((copies, 6), "float32")
    x = image.reshape(1, 6).astype("float64")
    g, big_g = gradient(x)[0], gradient(x + sigma * noise).mean(0)
    g_hat = big_g / np.linalg.norm(big_g)
    h = g - (g @ g_hat) * g_hat
    np.testing.assert_allclose(found.g_hat.ravel(), g_hat, atol=1e-5)
    np.testing.assert_allclose(found.h_hat.ravel(), h / np.linalg.norm(h), atol=1e-5)
    assert not found.used_margin_gradient
    assert not found.used_random_orthogonal


def test_directions_of_a_network_are_orthonormal_and_repeatable():
    model = small_cnn((8, 8, 1), 5, seed=0)
    image = np.random.default_rng(2).random((8, 8, 1), "float32")
    first, again, other = (
        gradient_directions(model, image, 2, copies=30, sigma=0.05, seed=seed) for seed in (0, 0, 1)
    )
    g, h = first.g_hat.ravel().astype("float64"), first.h_hat.ravel().astype("float64")
    assert first.g_hat.shape == first.h_hat.shape == image.shape
    assert g @ g == pytest.approx(1, abs=1e-6)
    assert h @ h == pytest.approx(1, abs=1e-6)
    assert g @ h == pytest.approx(0, abs=1e-6)
    assert not first.used_random_orthogonal
    np.testing.assert_allclose(first.g_hat, again.g_hat, atol=1e-5)
    np.testing.assert_allclose(first.h_hat, again.h_hat, atol=1e-4)
    assert np.abs(first.h_hat - other.h_hat).max() > 1e-3


def test_the_direction_survives_a_gap_where_the_usual_cross_entropy_loses_it():
    """At a gap of 25 float32 has p = 1: one minus it, the label's own share, is lost."""
    weights = np.random.default_rng(4).normal(size=(6, 3))
    image = np.full(SHAPE, 0.5, "float32")
    bias = np.array([25.0, 0.0, 0.5]) - weights.sum(0) * 0.5
    found = gradient_directions(linear(weights, bias), image, 0, sigma=0.0, copies=1)
    p = np.exp([0, -25.0, -24.5])
    p /= p.sum()
    expected = weights[:, 1:] @ p[1:] - weights[:, 0] * p[1:].sum()
    np.testing.assert_allclose(found.g_hat.ravel(), expected / np.linalg.norm(expected), atol=1e-5)
    assert not found.used_margin_gradient


def test_a_saturated_model_falls_back_to_the_margin():
    weights = np.random.default_rng(4).normal(size=(6, 3))
    image = np.full(SHAPE, 0.5, "float32")
    bias = np.array([2.5, 0.0, 0.5]) - weights.sum(0) * 0.5
    plane = boundary_plane(linear(weights, bias, 1000.0), image, 0, extent=0.3, **QUICK)
    assert plane.used_margin_gradient
    towards_runner_up = weights[:, 2] - weights[:, 0]
    np.testing.assert_allclose(
        plane.g_hat.ravel(), towards_runner_up / np.linalg.norm(towards_runner_up), atol=1e-5
    )


def test_no_gradient_at_all():
    def steps(images):
        flat = tf.reshape(images, [-1, 6])
        return tf.round(4 * flat[:, :2])

    def constant(images):
        return tf.zeros([tf.shape(images)[0], 2])

    for model in (steps, constant):
        with pytest.raises(UserError, match="no gradient at this image"):
            boundary_plane(model, np.full(SHAPE, 0.4, "float32"), 0, **QUICK)


def test_a_gradient_that_is_not_finite():
    def root(images):
        f = tf.sqrt(tf.reshape(images, [-1, 6])[:, 0])
        return tf.stack([f, -f], axis=1)

    with pytest.raises(UserError, match="not finite"):
        gradient_directions(root, np.zeros(SHAPE, "float32"), 0, sigma=0.0, copies=1)


@pytest.mark.parametrize("shape", [(2, 3, 1), (6,)])
def test_the_map_is_the_class_of_the_clipped_points(shape):
    """Every cell against NumPy; vectors are not clipped."""
    logits_fn, _ = curved()
    rng = np.random.default_rng(6)
    image = 0.5 * rng.random(shape, "float32")
    g_hat, h_hat = np.linalg.qr(rng.normal(size=(6, 2)))[0].T.reshape(2, *shape)
    plane = boundary_plane(
        logits_fn,
        image,
        0,
        directions=PlaneDirections(g_hat=g_hat, h_hat=h_hat),
        extent=2.0,
        resolution=15,
    )
    np.testing.assert_allclose(plane.u, np.linspace(-2, 2, 15))
    np.testing.assert_allclose(plane.v, plane.u)
    for i, v in enumerate(plane.v):
        for j, u in enumerate(plane.u):
            point = image + u * g_hat + v * h_hat
            if len(shape) == 3:
                point = point.clip(0, 1)
            zero, f = logits_fn(tf.constant(point[np.newaxis], tf.float32)).numpy()[0]
            assert plane.class_map[i, j] == (f > zero)
            assert plane.margin[i, j] == pytest.approx(zero - f, abs=1e-5)
    assert set(np.unique(plane.class_map)) == {0, 1}


def test_two_models_on_the_directions_of_one(two_classes):
    weights, bias, normal, image, distance = two_classes
    original = boundary_plane(linear(weights, bias), image, 0, extent=0.3, **QUICK)
    farther = bias - np.array([-0.3, 0.7]) * 0.05 * np.linalg.norm(normal)
    hardened = boundary_plane(
        linear(weights, farther), image, 0, directions=original.directions, extent=0.3, **QUICK
    )
    assert hardened.directions is original.directions
    assert hardened.boundary_distance == pytest.approx(distance + 0.05, abs=1e-5)


def test_pgd_plane(two_classes):
    weights, bias, normal, image, distance = two_classes
    step = 0.2 * np.sign(normal).reshape(SHAPE)
    adversarial = np.float32(image + step)
    directions = pgd_plane_directions(image, adversarial, seed=1)
    np.testing.assert_allclose(directions.g_hat, step / np.linalg.norm(step), atol=1e-6)
    assert np.vdot(directions.g_hat, directions.h_hat) == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(directions.h_hat) == pytest.approx(1, abs=1e-6)
    assert directions.used_random_orthogonal
    same, other = (pgd_plane_directions(image, adversarial, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(directions.h_hat, same.h_hat)
    assert np.abs(directions.h_hat - other.h_hat).max() > 1e-3
    plane = boundary_plane(
        linear(weights, bias), image, 0, directions=directions, extent=0.5, resolution=201
    )
    # Obliquely to the boundary: |f| / <normal, sign direction>.
    oblique = distance * np.linalg.norm(normal) / (normal @ directions.g_hat.ravel())
    assert plane.boundary_distance == pytest.approx(oblique, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.full(SHAPE, 2.0, "float32")}, r"not within \[0, 1\]"),
        ({"image": np.zeros((1, *SHAPE), "float32")}, "one float32 image"),
        ({"image": np.zeros(SHAPE, "uint8")}, "uint8"),
        ({"label": 2}, "label 2 is no class.*has 2"),
        ({"label": -1}, "label -1 is no class"),
        ({"resolution": 100}, "odd"),
        ({"extent": 0.0}, "extent"),
        (
            {"directions": PlaneDirections(g_hat=np.ones((2, 2)), h_hat=np.ones((2, 2)))},
            "directions have shape",
        ),
    ],
)
def test_mistakes_are_one_line(two_classes, change, message):
    weights, bias, _, image, _ = two_classes
    given = {"image": image, "label": 0, **QUICK, **change}
    with pytest.raises(UserError, match=message) as caught:
        boundary_plane(linear(weights, bias), given.pop("image"), given.pop("label"), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"), [({"copies": 0}, "copies"), ({"sigma": -1}, "sigma")]
)
def test_unfit_noise_is_one_line(two_classes, change, message):
    weights, bias, _, image, _ = two_classes
    with pytest.raises(UserError, match=message):
        gradient_directions(linear(weights, bias), image, 0, **change)


def test_pgd_mistakes():
    image = np.zeros(SHAPE, "float32")
    with pytest.raises(UserError, match="equals the image"):
        pgd_plane_directions(image, image)
    with pytest.raises(UserError, match="differ in shape"):
        pgd_plane_directions(image, image[0])


def test_nan_logits():
    def poisoned(images):
        f = tf.reshape(images, [-1, 6])[:, 0]
        return tf.stack([tf.math.log(f), f], axis=1)

    g_hat, h_hat = np.eye(6, dtype="float32")[:2].reshape(2, *SHAPE)
    image = np.full((6,), 0.5, "float32")
    directions = PlaneDirections(g_hat=g_hat.reshape(6), h_hat=h_hat.reshape(6))
    with pytest.raises(UserError, match="NaN"):
        boundary_plane(poisoned, image, 1, directions=directions, extent=1.0, **QUICK)
