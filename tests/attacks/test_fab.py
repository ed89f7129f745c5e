"""FAB finds distances that are known on paper, and nothing where there is nothing to find."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import CarliniWagnerL2
from bcgan_tf.attacks.fab import FAB
from bcgan_tf.errors import UserError

ORDERS = {"linf": np.inf, "l2": 2}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
both_aims = pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])
each_kind = pytest.mark.parametrize(
    ("eps", "targeted", "norm"),
    [(None, True, "l2"), (0.2, True, "linf"), (0.2, False, "l2")],
    ids=["targeted-unbounded", "targeted", "untargeted"],
)


@dataclass(frozen=True)
class Linear:
    """Logits ``x W + b``."""

    weights: np.ndarray
    bias: np.ndarray | float = 0.0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(images, [tf.shape(images)[0], len(self.weights)])
        return flat @ self.weights + self.bias

    def distances(self, images: np.ndarray, labels: np.ndarray, norm: str) -> np.ndarray:
        """To every class, [N, K]: |z_y - z_t| / ||w_y - w_t||_q; infinite for the true one."""
        logits = images.reshape(len(images), -1).astype(np.float64) @ self.weights + self.bias
        found = np.full(logits.shape, np.inf)
        for (row, other), logit in np.ndenumerate(logits):
            label = labels[row]
            if other != label:
                normal = self.weights[:, label] - self.weights[:, other]
                length = np.linalg.norm(normal, 1 if norm == "linf" else 2)
                found[row, other] = (logits[row, label] - logit) / length
        return found


def _classes(count: int) -> tuple[Linear, np.ndarray, np.ndarray]:
    """A linear model whose boundaries lie well within the box around its 24 images.

    Its normals differ in length, so that the likeliest other class is often not the nearest.
    """
    rng = np.random.default_rng(count)
    weights = rng.normal(size=(20, count)) * rng.uniform(0.3, 2.0, count)
    weights -= weights.mean(0)
    images = rng.uniform(0.4, 0.6, (24, 5, 4, 1)).astype(np.float32)
    model = Linear(weights.astype(np.float32))
    return model, images, model(tf.constant(images)).numpy().argmax(-1)


def _length(result, norm: str) -> np.ndarray:
    return result.linf if norm == "linf" else result.l2


@both_norms
@both_aims
def test_it_finds_the_exact_distance_to_the_nearest_class(targeted, norm):
    model, images, labels = _classes(6)
    distances = model.distances(images, labels, norm)
    logits = model(tf.constant(images)).numpy()
    logits[np.arange(24), labels] = -np.inf
    assert (logits.argmax(1) != distances.argmin(1)).sum() >= 2

    result = FAB(None, norm=norm, targeted=targeted, steps=20)(model, images, labels)
    found, exact = _length(result, norm), distances.min(axis=1)
    assert result.success.all()
    assert (found >= exact * (1 - 1e-4)).all()  # nothing nearer exists
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=1e-5)


def test_two_classes_leave_one_target():
    model, images, labels = _classes(2)
    result = FAB(None, steps=20)(model, images, labels)
    exact = model.distances(images, labels, "linf").min(axis=1)
    np.testing.assert_allclose(result.linf, exact, rtol=2e-3, atol=1e-5)


@both_norms
def test_with_eps_it_succeeds_just_above_the_distance_and_fails_just_below(norm):
    model, images, labels = _classes(6)
    exact = model.distances(images, labels, norm).min(axis=1)
    middle = np.sort(exact)[12]
    for eps in (middle * 1.003, middle * 0.997):
        result = FAB(eps, norm=norm, steps=30)(model, images, labels)
        np.testing.assert_array_equal(result.success, exact <= eps)
        assert 12 <= result.success.sum() <= 13 and _length(result, norm).max() <= eps + 1e-6


@pytest.mark.parametrize(
    ("norm", "exact"),
    [
        # A pixel at 0.9 moves by 0.1 at most, the other bridges the rest; from 0.95 likewise.
        ("linf", [0.1, 0.1]),
        ("l2", [np.hypot(0.1, 0.1), np.hypot(0.05, 0.1)]),
    ],
)
def test_the_box_is_in_the_way_by_hand(norm, exact):
    """z1 - z0 = 2 a + b - 2.6 is -0.3 and -0.2; within the box alone, a would move farther."""
    model = Linear(np.float32([[0, 2], [0, 1]]), np.float32([0, -2.6]))
    images, labels = np.float32([[0.9, 0.5], [0.95, 0.5]]), np.zeros(2, int)
    result = FAB(None, norm=norm)(model, images, labels)
    assert result.success.all() and result.adversarials.max() <= 1
    found = _length(result, norm)
    # In a corner of the box it settles into a cycle up to 1.3 % away.
    assert (found >= np.multiply(exact, 1 - 1e-4)).all()
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert not FAB(0.99 * min(exact), norm=norm)(model, images, labels).success.any()


def test_it_does_not_stop_on_the_boundary_itself(monkeypatch):
    """The way back from its first point, at 0.105, ends just short of the boundary, at 0.09453.

    From there a step goes beyond it by 1.7e-6, which float32 logits do not tell from a tie.
    """

    def kinked(images: tf.Tensor) -> tf.Tensor:
        way = images - 0.2
        steep = -0.05 + (way - 0.05) * (0.05 / 0.04453)
        return tf.concat([tf.ones_like(way), 1.0 + tf.where(way < 0.05, way - 0.1, steep)], 1)

    images, labels = np.float32([[0.2]]), np.array([0])
    final = FAB(None, steps=20)(kinked, images, labels)
    np.testing.assert_allclose(final.linf, 0.09453, rtol=2e-3)
    monkeypatch.setattr("bcgan_tf.attacks.fab._FINAL_STEPS", 0)
    found = [FAB(None, steps=steps)(kinked, images, labels).linf[0] for steps in (1, 20)]
    assert found[0] == pytest.approx(0.105, rel=1e-4)
    assert final.linf[0] < found[1] == pytest.approx(0.09453, rel=0.01)


@each_kind
def test_a_boundary_outside_the_box_is_not_reached(eps, targeted, norm):
    model = Linear(np.float32([[0, 1], [0, 1]]), np.float32([0, -2.1]))
    images = np.random.default_rng(0).uniform(0, 1, (5, 2)).astype(np.float32)
    attack = FAB(eps, norm=norm, targeted=targeted, steps=10)
    assert not attack(model, images, np.zeros(5, int)).success.any()


@each_kind
def test_a_zero_gradient_is_a_failure(eps, targeted, norm):
    model, images, labels = _classes(6)

    def masked(batch: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(model(batch)) + 0.0 * model(batch)

    result = FAB(eps, norm=norm, targeted=targeted, steps=5)(masked, images, labels)
    assert not result.success.any()
    np.testing.assert_array_equal(result.adversarials, images)


@each_kind
def test_a_gradient_of_nan_is_an_error(eps, targeted, norm):
    model, images, labels = _classes(3)

    @tf.custom_gradient
    def broken(batch: tf.Tensor):
        return tf.identity(batch), lambda upstream: np.nan * upstream

    attack = FAB(eps, norm=norm, targeted=targeted, steps=3)
    with pytest.raises(UserError, match="gradient is NaN or infinite"):
        attack(lambda batch: model(broken(batch)), images, labels)


@both_aims
def test_a_missing_gradient_is_an_error(targeted):
    model, images, labels = _classes(3)
    with pytest.raises(UserError, match="no gradient"):
        FAB(0.2, targeted=targeted)(lambda batch: model(tf.round(batch)) * 1.0, images, labels)


@pytest.mark.parametrize(("masked", "targeted"), [(-np.inf, True), (-np.inf, False), (-1e9, False)])
def test_masked_classes_are_neither_targets_nor_obstacles(masked, targeted):
    inner, images, labels = _classes(3)

    def model(batch: tf.Tensor) -> tf.Tensor:
        real = inner(batch)
        gone = tf.fill(tf.shape(real), tf.constant(masked, tf.float32))
        return tf.concat([gone[:, :2], real, gone], axis=1)

    result = FAB(None, norm="l2", targeted=targeted, steps=20)(model, images, labels + 2)
    exact = inner.distances(images, labels, "l2").min(axis=1)
    assert result.success.all()
    np.testing.assert_allclose(result.l2, exact, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(("norm", "scale"), [("l2", 1e-25), ("linf", 1e6)])
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    model, images, labels = _classes(6)
    result = FAB(None, norm=norm, steps=20)(lambda batch: scale * model(batch), images, labels)
    exact = model.distances(images, labels, norm).min(axis=1)
    np.testing.assert_allclose(_length(result, norm), exact, rtol=2e-3, atol=1e-5)


def test_a_model_without_a_static_number_of_classes():
    model, images, labels = _classes(6)

    def unshaped(batch: tf.Tensor) -> tf.Tensor:
        return tf.cond(tf.size(batch) > 0, lambda: model(batch), lambda: model(batch)[:, :3])

    attack = FAB(None, targeted=False, steps=10)
    expected = attack(model, images, labels)
    np.testing.assert_allclose(attack(unshaped, images, labels).linf, expected.linf, atol=1e-5)


@dataclass(frozen=True)
class Sharp:
    """A random two-layer network that computes in float64, so that all batches round alike."""

    hidden: np.ndarray
    output: np.ndarray

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(tf.cast(images, tf.float64), [tf.shape(images)[0], len(self.hidden)])
        return tf.cast(tf.tanh((flat - 0.5) @ self.hidden) @ self.output, tf.float32)


@pytest.fixture(scope="module")
def sharp() -> tuple[Sharp, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    model = Sharp(rng.normal(size=(36, 32)) / 6, 4 * rng.normal(size=(32, 5)))
    images = rng.uniform(0, 1, (19, 6, 6, 1)).astype(np.float32)
    return model, images, model(tf.constant(images)).numpy().argmax(-1)


@pytest.mark.parametrize(
    "attack",
    [
        FAB(0.01, steps=8, target_classes=2, restarts=2),
        FAB(0.05, norm="l2", steps=8, targeted=False, restarts=2),
        FAB(None, steps=6, target_classes=2, restarts=2),
    ],
    ids=["targeted", "untargeted", "unbounded"],
)
def test_the_batch_size_changes_nothing(attack, sharp):
    whole = attack(*sharp)
    assert whole.success_rate > 0 and (attack.eps is None or whole.success_rate < 1)
    for size in (1, 7):
        parts = dataclasses.replace(attack, batch_size=size)(*sharp)
        np.testing.assert_array_equal(parts.success, whole.success)
        np.testing.assert_allclose(parts.adversarials, whole.adversarials, rtol=0, atol=1e-5)


def test_without_eps_the_nearest_of_all_targets_and_restarts_is_kept():
    model, images, labels = _classes(6)
    one, all_, again = (
        FAB(None, norm="l2", steps=10, **more)(model, images, labels).l2
        for more in ({"target_classes": 1}, {}, {"restarts": 2})
    )
    # The final search brings each of them only to about 1e-4 of its boundary.
    assert (all_ <= one * 1.001).all() and (all_ < one * 0.95).any()
    assert (again <= all_ * 1.001).all()


def test_restarts_leave_a_plateau():
    """Within 0.02 around the image nothing changes; beyond, the boundary is at 0.6."""

    def plateau(images: tf.Tensor) -> tf.Tensor:
        away = tf.maximum(images - 0.5, 0.02)
        return tf.concat([tf.zeros_like(away), away - 0.1], axis=1)

    images, labels = np.full((200, 1), 0.5, np.float32), np.zeros(200, int)
    assert not FAB(0.15, steps=10)(plateau, images, labels).success.any()
    for eps in (0.15, None):
        attack = FAB(eps, steps=10, restarts=3, target_classes=1)
        result = attack(plateau, images, labels)
        # Random starts lie on both sides alike: 1 - 2**-2.
        assert result.success_rate == pytest.approx(0.75, abs=0.1)
        np.testing.assert_allclose(result.linf[result.success], 0.1, rtol=1e-2)


@both_norms
def test_random_starts_lie_on_a_sphere_and_depend_on_the_index_alone(norm):
    attack = FAB(None, norm=norm, seed=3, targeted=False)

    def start(count: int, number: int, distance: float) -> np.ndarray:
        images, indices = tf.fill([count, 3], 0.5), tf.range(count, dtype=tf.int64)
        drawn = attack._start(images, indices, tf.constant(number, tf.int64), [distance] * count)
        return drawn.numpy() - 0.5

    assert not start(5, 0, np.inf).any()
    far, near = start(500, 1, np.inf), start(500, 1, 0.2)
    order = ORDERS[norm]
    half = {"linf": 0.15, "l2": 0.5}[norm]
    np.testing.assert_allclose(np.linalg.norm(far, order, axis=1), half, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(near, order, axis=1), 0.1, rtol=1e-4)
    np.testing.assert_allclose(near / 0.1, far / half, atol=1e-5)
    assert np.abs(far.mean(0) / half).max() < 0.12
    np.testing.assert_array_equal(start(7, 1, np.inf), far[:7])
    assert abs(np.corrcoef(start(500, 2, np.inf)[:, 0], far[:, 0])[0, 1]) < 0.15


@both_norms
def test_on_trained_digits_with_and_without_eps(norm, digits_cnn):
    model, images, labels = digits_cnn.model, digits_cnn.images[:60], digits_cnn.labels[:60]
    nearest = FAB(None, norm=norm, steps=30, target_classes=3)(model, images, labels)
    assert nearest.success_rate == 1
    lengths = _length(nearest, norm)
    if norm == "l2":
        other = CarliniWagnerL2(steps=100, learning_rate=0.08, initial_const=0.1)
        theirs = other(model, images, labels)
        right = nearest.clean_correct
        assert lengths[right].mean() <= 1.02 * theirs.l2[right].mean()
    eps = float(np.median(lengths))
    bounded = FAB(eps, norm=norm, steps=30, target_classes=3)(model, images, labels)
    agree = bounded.success == (nearest.success & (lengths <= eps))
    assert agree.mean() >= 0.97


def test_eps_zero_returns_the_inputs(sharp):
    result = FAB(0)(*sharp)
    np.testing.assert_array_equal(result.adversarials, sharp[1])
    assert result.robust_accuracy == 1


def test_names_and_settings():
    named = [FAB(0.3), FAB(0.3, targeted=False), FAB(None, norm="l2"), FAB(1, norm="l2")]
    assert [attack.name for attack in named] == ["FAB-T", "FAB", "FAB-T-L2", "FAB-T-L2"]
    assert FAB(0.3).config() == {
        "batch_size": 250,
        "seed": 0,
        "eps": 0.3,
        "norm": "linf",
        "targeted": True,
        "steps": 100,
        "restarts": 1,
        "target_classes": 9,
        "alpha_max": 0.1,
        "eta": 1.05,
        "beta": 0.9,
    }
    assert "target_classes" not in FAB(0.3, targeted=False).config()
    assert json.loads(json.dumps(FAB(None).config()))["eps"] is None
    rounds = [FAB(0.3, restarts=2).rounds, FAB(0.3, targeted=False, restarts=2).rounds]
    assert rounds == [18, 2] and FAB(None, restarts=2).rounds == 1


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FAB(-0.1), "eps is -0.1"),
        (lambda: FAB(8), r"pixels lie in \[0, 1\]"),
        (lambda: FAB(None, norm="l1"), "norm is 'l1'"),
        (lambda: FAB(None, steps=0), "steps is 0"),
        (lambda: FAB(0.1, restarts=0), "restarts is 0"),
        (lambda: FAB(0.1, target_classes=0), "target_classes is 0"),
        (lambda: FAB(0.1, alpha_max=1.5), "alpha_max is 1.5"),
        (lambda: FAB(0.1, eta=0.9), "eta is 0.9"),
        (lambda: FAB(0.1, beta=1.0), "beta is 1"),
        (lambda: FAB(None, beta=0.0), "beta is 0"),
        (lambda: FAB(None, batch_size=0), "batch_size is 0"),
    ],
)
def test_settings_out_of_range(build, match):
    with pytest.raises(UserError, match=match) as caught:
        build()
    assert "\n" not in str(caught.value)
