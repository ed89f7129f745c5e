"""Auto-PGD against an independent NumPy version of its algorithm, one example at a time."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD, checkpoints

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
    """Algorithm 1 of the paper for one example, with lists in place of running counts."""
    eps, steps = attack.eps, attack.steps

    def project(point: np.ndarray) -> np.ndarray:
        change = point - image
        if attack.norm == "linf":
            change = np.clip(change, -eps, eps)
        elif np.linalg.norm(change) > eps:
            change *= eps / np.linalg.norm(change)
        return np.clip(image + change, 0, 1)

    before = point = start
    losses, best, eta = [], (-np.inf, start, np.zeros_like(start)), 2 * eps
    last, halved, best_then, halvings = 0, True, -np.inf, 0
    for step in range(steps + 1):
        loss, gradient, wrong = model.loss_gradient(point, label)
        losses.append(loss)
        if wrong:
            return point, losses, halvings
        best = max(best, (loss, point, gradient), key=lambda entry: entry[0])
        if step in checkpoints(steps):
            recent = losses[last : step + 1]
            rises = sum(b > a for a, b in itertools.pairwise(recent))
            halved = rises <= 0.75 * (step - last) or (not halved and best[0] <= best_then)
            if halved:
                eta, halvings = eta / 2, halvings + 1
                _, point, gradient = best
            last, best_then = step, best[0]
        size = gradient / np.linalg.norm(gradient) if attack.norm == "l2" else np.sign(gradient)
        ahead = project(point + eta * size)
        a = 1.0 if step == 0 else 0.75
        moved = project(point + a * (ahead - point) + (1 - a) * (point - before))
        before, point = point, moved
    return best[1], losses, halvings


@norms
def test_it_does_what_the_papers_algorithm_says(norm):
    model, images, labels = _network(4.0)  # sharp: maxima within the ball, not at its corners
    attack = APGD({"linf": 0.02, "l2": 0.06}[norm], norm=norm, steps=30)
    result = attack(model, images, labels)
    assert 0.2 < result.success_rate < 0.8  # both kinds are compared
    starts = _start(attack, images).numpy()
    errors, losses, halvings = [], [], set()
    for i in np.flatnonzero(result.attacked):
        image, start = (values[i].ravel().astype(np.float64) for values in (images, starts))
        expected, on_the_way, halved = _reference(attack, model, image, start, labels[i])
        found = result.adversarials[i].ravel()
        assert result.success[i] == model.loss_gradient(expected, labels[i])[2]
        errors.append(np.abs(found - expected).max())
        if not result.success[i]:
            # What is returned has the largest loss of all points on the way.
            losses.append((model.loss_gradient(found, labels[i])[0], max(on_the_way)))
            halvings.add(halved)
    # Ours is in float32: a sign that flips where the gradient is almost 0 leads elsewhere, but not
    # to another loss.
    assert np.quantile(errors, 0.8) < 1e-4
    np.testing.assert_allclose(*np.transpose(losses), rtol=2e-3)
    assert len(halvings) >= 5  # examples of one batch halved at different times


@norms
def test_starts_lie_on_the_surface_of_the_ball(norm):
    attack, images = APGD(0.2, norm=norm), np.full((500, 3), 0.5, np.float32)
    change = _start(attack, images).numpy() - images
    np.testing.assert_allclose(np.linalg.norm(change, ORDERS[norm], axis=1), 0.2, rtol=1e-5)
    assert np.abs(change.mean(0)).max() < 0.03
    again = _start(dataclasses.replace(attack, seed=1), images).numpy() - images
    assert abs(np.corrcoef(change[:, 0], again[:, 0])[0, 1]) < 0.1


@norms
@pytest.mark.parametrize(
    "settings", [{}, {"loss": "dlr", "targeted": True, "target_classes": 2}], ids=["ce", "t"]
)
def test_the_batch_changes_nothing(settings, norm):
    """Sizes in which examples leave at different times, and a part of the examples alone."""
    attack = APGD({"linf": 0.02, "l2": 0.12}[norm], norm=norm, steps=20, **settings)
    smooth = model, images, labels = _network(0.5)
    whole = attack(*smooth)
    assert 0 < whole.success_rate < 1
    for size in (3, 22):
        parts = dataclasses.replace(attack, batch_size=size)(*smooth)
        np.testing.assert_array_equal(parts.success, whole.success)
        np.testing.assert_allclose(parts.adversarials, whole.adversarials, rtol=0, atol=1e-4)
    some = attack(model, images[7:15], labels[7:15], indices=np.arange(7, 15))
    np.testing.assert_allclose(some.adversarials, whole.adversarials[7:15], rtol=0, atol=1e-4)


def test_eps_zero_returns_the_inputs():
    model, images, labels = _network(0.5)
    for attack in (APGD(0.0), APGD(0.0, norm="l2", loss="dlr", targeted=True)):
        np.testing.assert_array_equal(attack(model, images, labels).adversarials, images)
