"""Attacks in the box behind preprocessing that cuts off, against the exact worst case."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import APGD, FAB, Square
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.in_box import InBox
from bcgan_tf.attacks.suites import suite
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask

N, EPS = 200, 0.25
# The cross entropy climbs towards one class only, which need not be the one in reach.
ALLOWED = {
    APGD(EPS): 10,
    APGD(EPS, loss="dlr", targeted=True): 0,
    FAB(EPS): 0,
    Square(EPS, queries=500): 3,
}


def _model(seed: int, classes: int = 4) -> keras.Model:
    """Logits linear in pixels of which what lies near black or white is cut off."""
    images = keras.Input((4, 4, 1))
    cut = keras.layers.ReLU(max_value=1.0)(keras.layers.Rescaling(5.0, -2.0)(images))
    model = keras.Model(images, keras.layers.Dense(classes)(keras.layers.Flatten()(cut)))
    draws = np.random.default_rng(seed)
    model.set_weights([draws.normal(size=(16, classes)), draws.normal(size=classes)])
    return model


def _worst(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The largest margin of a wrong class within the ball, in closed form, ``[N]``."""
    weights, bias = model.get_weights()

    def cut(pixels: np.ndarray) -> np.ndarray:
        return (5 * pixels.astype(np.float64) - 2).clip(0, 1).reshape(len(pixels), -1)

    low, high = cut((images - EPS).clip(0, 1)), cut((images + EPS).clip(0, 1))
    found = np.full((len(images), len(bias)), -np.inf)
    for row, label in enumerate(labels):
        for other in set(range(len(bias))) - {int(label)}:
            slope = weights[:, other] - weights[:, label]
            best = np.where(slope > 0, high[row], low[row]) @ slope
            found[row, other] = best + bias[other] - bias[label]
    return found.max(axis=1)


@pytest.fixture(scope="module", name="task")
def _task() -> EvaluationTask:
    model = _model(0)
    # Near black or white, so that a small step changes nothing.
    draws = np.random.default_rng(1)
    images = draws.uniform(0, 0.3, size=(N, 4, 4, 1))
    images = np.where(draws.uniform(size=images.shape) < 0.5, images, 1 - images)
    images = images.astype(np.float32)
    labels = np.asarray(model(images)).argmax(-1)
    return EvaluationTask(model, images, labels, eps=EPS, batch_size=64, precision="float32")


@pytest.mark.parametrize("attack", ALLOWED, ids=lambda attack: attack.name)
def test_it_breaks_what_the_ball_allows(task, attack):
    worst = _worst(task.model, task.images, task.labels)
    assert 20 < (worst > 0).sum() < N - 20
    result = task.prepared_in_box(attack)(task.images, task.labels)
    clear = np.abs(worst) > 1e-3
    assert result.attack == f"{attack.name}+box"
    assert not (result.success & (worst < 0)).any()
    missed = (worst > 0) & ~result.success & clear
    assert missed.sum() <= ALLOWED[attack]
    assert result.linf.max() <= EPS * (1 + 1e-6)


def test_the_ball_alone_hides_it_from_gradients(task):
    """The same attack along the model's own gradient, for which most pixels are flat."""
    worst = _worst(task.model, task.images, task.labels)
    plain = task.attack(APGD(EPS))
    assert ((worst > 0) & ~plain.success).sum() > 20


def test_the_batch_changes_nothing(task):
    """Rows leave the batch as they are broken; each keeps its own box."""
    whole = task.prepared_in_box(APGD(EPS))(task.images, task.labels)
    some = np.arange(0, N, 7)
    part = task.take(some).prepared_in_box(APGD(EPS))(
        task.images[some], task.labels[some], indices=some
    )
    np.testing.assert_array_equal(part.success, whole.success[some])
    np.testing.assert_allclose(part.adversarials, whole.adversarials[some], atol=1e-6)


def test_a_suite_attacks_in_the_box(task):
    found = run_suite(task, "fast")
    names = [result.attack.removesuffix("+box") for result in found.results]
    assert names == [attack.name for attack in suite("fast", EPS, num_classes=3)]
    assert all(result.attack.endswith("+box") for result in found.results)
    assert found.fallback is None
    worst = _worst(task.model, task.images, task.labels)
    assert found.robust_accuracy == pytest.approx((worst <= 0).mean(), abs=0.006)


@pytest.mark.parametrize("attack", suite("fast", EPS, num_classes=4, precision="bfloat16"))
def test_what_a_suite_goes_by_is_the_attacks_own_in_the_box(attack):
    settings = [name for name, kind in Attack.__annotations__.items() if "ClassVar" in kind]
    assert {"uses_gradients", "near", "first", "again", "searched_in"} <= set(settings)
    inside = InBox.of(attack, lambda images: images)
    for name in (*settings, "eps", "norm", "rounds", "idle", "minimizes"):
        assert getattr(inside, name) == getattr(attack, name), name


def test_in_l2_there_is_no_box(task):
    other = EvaluationTask(task.model, task.images[:10], task.labels[:10], eps=1.0, norm="l2")
    assert not other.has_box
    assert "CR-L2+BPDA" in [result.attack for result in run_suite(other, "fast").results]


def test_a_copy_in_lower_precision_has_its_box():
    model = _model(2)
    images = np.random.default_rng(3).uniform(size=(64, 4, 4, 1)).astype(np.float32)
    labels = np.asarray(model(images)).argmax(-1)
    task = EvaluationTask(model, images, labels, eps=EPS, precision="bfloat16")
    worst = _worst(model, images, labels)
    attack = APGD(EPS, loss="dlr", targeted=True)
    result = task.prepared_in_box(attack, "bfloat16")(images, labels)
    assert not (result.success & (worst < 0)).any()
    assert (result.success == (worst > 0)).mean() > 0.9
