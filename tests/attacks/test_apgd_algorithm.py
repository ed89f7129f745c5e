"""Auto-PGD against an independent NumPy version of its algorithm, one example at a time."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD, _reconsidered, _State, checkpoints

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
ORDERS = {"linf": np.inf, "l2": 2}


def test_checkpoints():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(50) == (11, 21, 30, 38, 45)  # 11, then 1 shorter each, at least 3
    assert checkpoints(10) == (2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert checkpoints(1) == (1,)


@dataclass(frozen=True)
class Smooth:
    """A two-layer network in float64, with the gradient of its cross entropy by hand."""

    hidden: np.ndarray
    output: np.ndarray

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(tf.cast(images, tf.float64), [-1, len(self.hidden)])
        return tf.cast(tf.tanh((flat - 0.5) @ self.hidden) @ self.output, tf.float32)

    def loss_gradient(self, image: np.ndarray, label: int) -> tuple[float, np.ndarray, bool]:
        inner = np.tanh((image - 0.5) @ self.hidden)
        logits = inner @ self.output
        exp = np.exp(logits - logits.max())
        p = exp / exp.sum()
        back = self.output @ (p - np.eye(len(p))[label])
        gradient = self.hidden @ (back * (1 - inner**2))
        return -np.log(p[label]), gradient, bool(logits.argmax() != label)


def _network(sharpness: float) -> tuple[Smooth, np.ndarray, np.ndarray]:
    """A network, 25 images of 6x6x1, and labels of which two are wrong."""
    rng = np.random.default_rng(7)
    model = Smooth(sharpness * rng.normal(size=(36, 32)), rng.normal(size=(32, 5)))
    images = rng.uniform(0, 1, (25, 6, 6, 1)).astype(np.float32)
    labels = model(tf.constant(images)).numpy().argmax(-1)
    labels[[3, 11]] = (labels[[3, 11]] + 1) % 5
    return model, images, labels


def _start(attack: APGD, images: np.ndarray) -> np.ndarray:
    zero = tf.constant(0, tf.int64)
    return attack.draw_start(tf.constant(images), tf.range(len(images), dtype=tf.int64), zero)


def _reference(attack: APGD, model: Smooth, image: np.ndarray, start: np.ndarray, label: int):
    """Algorithm 1 of the paper for one example: all points, the one returned, the last eta."""
    eps, steps = attack.eps, attack.steps

    def project(point: np.ndarray) -> np.ndarray:
        change = point - image
        if attack.norm == "linf":
            change = np.clip(change, -eps, eps)
        elif np.linalg.norm(change) > eps:
            change *= eps / np.linalg.norm(change)
        return np.clip(image + change, 0, 1)

    before = point = start
    points, losses, best, eta = [], [], (-np.inf, start, np.zeros_like(start)), 2 * eps
    last, halved, best_then = 0, True, -np.inf
    for step in range(steps + 1):
        loss, gradient, wrong = model.loss_gradient(point, label)
        points.append(point)
        losses.append(loss)
        if wrong:
            return points, point, eta
        best = max(best, (loss, point, gradient), key=lambda entry: entry[0])
        if step in checkpoints(steps):
            rises = sum(b > a for a, b in itertools.pairwise(losses[last : step + 1]))
            halved = rises <= 0.75 * (step - last) or (not halved and best[0] <= best_then)
            if halved:
                eta /= 2
                _, point, gradient = best
            last, best_then = step, best[0]
        size = gradient / np.linalg.norm(gradient) if attack.norm == "l2" else np.sign(gradient)
        ahead = project(point + eta * size)
        a = 1.0 if step == 0 else 0.75
        moved = project(point + a * (ahead - point) + (1 - a) * (point - before))
        before, point = point, moved
    return points, best[1], eta


@pytest.mark.parametrize(
    ("norm", "eps", "tolerance", "share"), [("linf", 0.01, 1e-5, 0.65), ("l2", 0.05, 1e-4, 0.8)]
)
def test_every_point_is_that_of_the_papers_algorithm(norm, eps, tolerance, share):
    model, images, labels = _network(16.0)  # sharp: its maxima lie within the ball
    seen: list[np.ndarray] = []

    def watched(batch: tf.Tensor) -> tf.Tensor:
        tf.numpy_function(lambda points: seen.append(points[0].ravel()), [batch], [])
        return model(batch)

    attack = APGD(eps, norm=norm, steps=50, batch_size=1)
    starts = _start(attack, images).numpy()
    prepared = attack.prepare(watched)
    errors, halvings, broken = [], set(), 0
    for i in np.flatnonzero(model(tf.constant(images)).numpy().argmax(-1) == labels):
        seen.clear()
        result = prepared(images[[i]], labels[[i]], indices=np.array([i]))
        np.testing.assert_array_equal(result.adversarials.ravel(), seen[-1])
        image, start = (values[i].ravel().astype(np.float64) for values in (images, starts))
        points, found, eta = _reference(attack, model, image, start, labels[i])
        # The first of all points was the clean image, and the last the result, run again.
        assert len(seen) == len(points) + 2
        error = np.abs(np.array(seen[1:]) - [*points, found]).max()
        if result.success[0]:
            broken += 1
            assert error < 1e-4  # after a few steps
        else:
            errors.append(error)
            halvings.add(eta)
    # Ours is in float32: now and then a sign or a comparison flips, and the paths part. Slight
    # changes of the algorithm move the share of equal paths below half (Linf), three quarters (L2).
    assert np.mean(np.array(errors) < tolerance) >= share
    assert broken >= 5 and len(errors) >= 5
    assert len(halvings) >= 2  # they halved at different times


def test_a_checkpoint_halves_for_either_of_two_reasons():
    """Five examples after an interval of 8 steps, 6 of which are 75 %."""
    cases = {  # increases, best loss, best loss at the last checkpoint, halved there
        "too few increases": (6.0, 5.0, 1.0, False),
        "enough, and better": (7.0, 5.0, 1.0, False),
        "enough, but no better": (7.0, 5.0, 5.0, False),
        "enough, no better, but halved before": (7.0, 5.0, 5.0, True),
        "too few again": (0.0, 5.0, 5.0, True),
    }
    expected = np.array([True, False, True, False, True])
    increases, best_loss, checked_loss, halved = zip(*cases.values(), strict=True)
    ones = tf.ones([5, 2])
    state = _State(
        images=ones,
        labels=tf.zeros([5], tf.int64),
        targets=tf.zeros([5], tf.int64),
        before=0.1 * ones,
        iterates=0.2 * ones,
        last_loss=tf.fill([5], 4.0),
        x_adv=0.3 * ones,
        best_loss=tf.constant(best_loss),
        best_gradient=7.0 * ones,
        step_size=tf.fill([5], 0.5),
        increases=tf.constant(increases),
        checked_loss=tf.constant(checked_loss),
        halved=tf.constant(halved),
        finished=tf.zeros([5], tf.bool),
    )
    after, gradient = _reconsidered(state, 6.0 * ones, tf.constant(8.0))
    np.testing.assert_array_equal(after.halved, expected)
    np.testing.assert_array_equal(after.step_size, np.where(expected, 0.25, 0.5))
    # Where it halved, it goes on from the best point and its gradient.
    went_back = expected[:, None] & np.full(2, True)
    np.testing.assert_allclose(after.iterates, np.where(went_back, 0.3, 0.2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.where(went_back, 7.0, 6.0))
    # The momentum is still that of the last step; the next interval starts at nothing.
    np.testing.assert_array_equal(after.before, state.before)
    np.testing.assert_array_equal(after.increases, np.zeros(5))
    np.testing.assert_array_equal(after.checked_loss, best_loss)


@norms
def test_starts_lie_on_the_surface_of_the_ball(norm):
    attack, images = APGD(0.2, norm=norm), np.full((500, 3), 0.5, np.float32)
    change = _start(attack, images).numpy() - images
    np.testing.assert_allclose(np.linalg.norm(change, ORDERS[norm], axis=1), 0.2, rtol=1e-5)
    assert np.abs(change.mean(0)).max() < 0.03
    again = _start(dataclasses.replace(attack, seed=1), images).numpy() - images
    assert abs(np.corrcoef(change[:, 0], again[:, 0])[0, 1]) < 0.1


def test_eps_zero_returns_the_inputs():
    model, images, labels = _network(0.5)
    for attack in (APGD(0.0), APGD(0.0, norm="l2", loss="dlr", targeted=True)):
        np.testing.assert_array_equal(attack(model, images, labels).adversarials, images)
