"""What every attack must do, whatever it finds."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, FAB, FGSM, PGD, Attack, CarliniWagnerL2, Square
from helpers.toy_models import Sharp, sharp_network

ATTACKS = [
    FGSM(0.1),
    FGSM(0.8, norm="l2"),
    PGD(0.1, steps=10),
    PGD(0.1, steps=5, restarts=2),
    PGD(0.8, steps=10, norm="l2"),
    CarliniWagnerL2(steps=40, binary_search_steps=5, learning_rate=0.1, initial_const=0.1),
    APGD(0.1, steps=20),
    APGD(0.8, norm="l2", steps=20, loss="dlr", targeted=True, target_classes=2),
    FAB(0.1, steps=20, target_classes=2),
    FAB(0.8, norm="l2", steps=20, targeted=False),
    Square(0.1, queries=150),
    Square(0.8, norm="l2", queries=150),
]
IDS = ["fgsm", "fgsm-l2", "pgd", "pgd-restarts", "pgd-l2", "cw"]
IDS += ["apgd", "apgd-t-l2", "fab-t", "fab-l2", "square", "square-l2"]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=IDS)


@pytest.fixture(scope="module")
def sharp() -> tuple[Sharp, np.ndarray, np.ndarray]:
    """The float64 network, 23 images of 6x6x1, and labels of which two are wrong."""
    model, images, labels = sharp_network(6, 6, 1)
    labels[[3, 11]] = (labels[[3, 11]] + 1) % 5
    return model, images, labels


@each_attack
def test_the_result_is_what_it_says(attack, digits_cnn):
    images, labels = digits_cnn.images.copy(), digits_cnn.labels.copy()
    labels[:3] = (labels[:3] + 1) % 10  # misclassified from the start
    result = attack(digits_cnn.model, images, labels)
    np.testing.assert_array_equal(images, digits_cnn.images)

    found = result.adversarials
    assert found.dtype == np.float32 and found.shape == images.shape
    assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()
    change = (found.astype(np.float64) - images).reshape(100, -1)
    np.testing.assert_allclose(result.linf, np.abs(change).max(1), atol=1e-12)
    np.testing.assert_allclose(result.l2, np.linalg.norm(change, axis=1), atol=1e-9)
    if not isinstance(attack, CarliniWagnerL2):
        assert (result.linf if attack.norm == "linf" else result.l2).max() <= attack.eps + 1e-6

    rerun = digits_cnn.model(found, training=False).numpy().argmax(-1)
    clean = digits_cnn.model(images, training=False).numpy().argmax(-1)
    np.testing.assert_array_equal(result.clean_correct, clean == labels)
    np.testing.assert_array_equal(result.success, (clean == labels) & (rerun != labels))
    np.testing.assert_array_equal(result.robust, (clean == labels) & (rerun == labels))
    assert not result.clean_correct[:3].any()
    np.testing.assert_array_equal(found[~result.clean_correct], images[~result.clean_correct])

    assert result.n == 100
    assert result.clean_accuracy == np.mean(clean == labels)
    assert result.robust_accuracy == np.mean((clean == labels) & (rerun == labels))
    assert result.success_rate == pytest.approx(1 - result.robust_accuracy / result.clean_accuracy)
    assert result.success.any()

    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["attack"] == attack.name and written["n"] == 100
    assert written["config"]["batch_size"] == 250
    assert written["l2"]["mean"] == pytest.approx(result.l2[result.success].mean())
    assert written["robust_accuracy"] == result.robust_accuracy


@each_attack
def test_the_batch_size_changes_nothing(attack, sharp):
    whole = attack(*sharp)
    assert whole.success.any()
    for size in (1, 4, 22):
        parts = dataclasses.replace(attack, batch_size=size)(*sharp)
        np.testing.assert_array_equal(parts.success, whole.success)
        np.testing.assert_allclose(parts.adversarials, whole.adversarials, rtol=0, atol=1e-5)


@each_attack
def test_an_example_does_not_depend_on_its_neighbours_after_it(attack, sharp):
    model, images, labels = sharp
    whole, part = attack(model, images, labels), attack(model, images[:5], labels[:5])
    np.testing.assert_allclose(part.adversarials, whole.adversarials[:5], rtol=0, atol=1e-5)


@each_attack
def test_the_model_is_traced_once_however_many_batches(attack, sharp):
    model, images, labels = sharp
    traces: list[int] = []

    def counted(count: int) -> int:
        traces.clear()

        def spy(batch: tf.Tensor) -> tf.Tensor:
            traces.append(1)
            return model(batch)

        dataclasses.replace(attack, batch_size=3)(spy, images[:count], labels[:count])
        return len(traces)

    assert counted(23) == counted(3)


@each_attack
def test_progress_is_reported_to_the_end(attack, sharp):
    seen: list[tuple[int, int]] = []
    dataclasses.replace(attack, batch_size=5)(*sharp, progress=lambda *done: seen.append(done[:2]))
    total = 21 * attack.rounds
    assert len(seen) >= 5 and all(of == total for _, of in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_returns_the_inputs(norm, sharp):
    for attack in (FGSM(0.0, norm=norm), PGD(0, norm=norm, restarts=2), PGD(0.0, step_size=0.1)):
        result = attack(*sharp)
        np.testing.assert_array_equal(result.adversarials, sharp[1])
        assert result.robust_accuracy == result.clean_accuracy == pytest.approx(21 / 23)
        assert result.success_rate == 0 and result.to_dict()["l2"] is None


def test_a_model_that_is_always_wrong_is_not_attacked(sharp):
    model, images, _ = sharp
    wrong = (model(tf.constant(images)).numpy().argmax(-1) + 1) % 5
    result = PGD(0.1)(model, images, wrong)
    assert result.clean_accuracy == result.robust_accuracy == 0
    assert np.isnan(result.success_rate) and result.to_dict()["success_rate"] is None
    np.testing.assert_array_equal(result.adversarials, images)


def test_keras_models_run_in_inference_mode(digits_cnn):
    """Dropout and batch norm would make the answer random, and a second call differ."""
    import keras

    noisy = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Dropout(0.9), digits_cnn.model])
    ours = PGD(0.05, steps=5)(noisy, digits_cnn.images, digits_cnn.labels)
    plain = PGD(0.05, steps=5)(digits_cnn.model, digits_cnn.images, digits_cnn.labels)
    np.testing.assert_array_equal(ours.adversarials, plain.adversarials)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball_uniformly(norm):
    attack = PGD(0.2, norm=norm, seed=5)
    images, indices = tf.fill([4000, 2], 0.5), tf.range(4000, dtype=tf.int64)
    first = tf.constant(0, tf.int64)

    def start(attack: PGD, images: tf.Tensor, indices: tf.Tensor, restart: tf.Tensor) -> np.ndarray:
        return tf.function(attack.draw_start)(images, indices, restart).numpy() - 0.5

    draw = start(attack, images, indices, first)
    assert np.abs(draw.mean(0)).max() < 0.01
    if norm == "linf":
        assert np.abs(draw).max() <= 0.2 + 1e-6
        np.testing.assert_allclose(draw.var(0), 0.2**2 / 3, rtol=0.05)
    else:
        radius = np.linalg.norm(draw, axis=1)
        assert radius.max() <= 0.2 + 1e-6
        assert np.mean(radius < 0.1) == pytest.approx(0.25, abs=0.03)  # the area's share

    picked = start(attack, images[:3], indices[100:103], first)
    np.testing.assert_array_equal(picked, draw[100:103])  # by index, not by place in the batch
    again = start(attack, images, indices, first + 1)
    other = start(dataclasses.replace(attack, seed=6), images, indices, first)
    for different in (again, other, np.roll(draw, 1, axis=0)):
        assert abs(np.corrcoef(different[:, 0], draw[:, 0])[0, 1]) < 0.06


def test_what_leaves_the_allowed_set_is_brought_back(sharp):
    """A subclass that overshoots cannot report success outside its ball."""

    class Rogue(PGD):
        def run(self, logits_fn, images, labels, indices, round_index):
            return 7.0 - 9.0 * images

    for norm in ("linf", "l2"):
        result = Rogue(0.01, norm=norm)(*sharp)
        assert (result.linf if norm == "linf" else result.l2).max() <= 0.01 + 1e-6
        assert result.adversarials.min() >= 0 and result.adversarials.max() <= 1


def test_success_is_what_the_rerun_says(sharp):
    """An attack that finds nothing is not believed, whatever it returns."""

    class Boaster(Attack):
        name = "boaster"
        uses_gradients = False

        def run(self, logits_fn, images, labels, indices, round_index):
            return images

    result = Boaster()(*sharp)
    assert not result.success.any() and result.robust_accuracy == result.clean_accuracy


def test_configurations_are_complete_and_json_able():
    assert PGD(0.3, steps=10).config() == {
        "batch_size": 250,
        "seed": 0,
        "eps": 0.3,
        "norm": "linf",
        "step_size": pytest.approx(0.075),
        "steps": 10,
        "restarts": 1,
        "random_start": True,
    }
    assert PGD(0.5, norm="l2", steps=40).config()["step_size"] == pytest.approx(0.125)
    assert PGD(0.5, norm="l2", steps=4).config()["step_size"] == 0.5
    assert PGD(0.3, step_size=0.01).config()["step_size"] == 0.01
    assert CarliniWagnerL2().config() == {
        "batch_size": 250,
        "seed": 0,
        "steps": 1000,
        "binary_search_steps": 9,
        "learning_rate": 1e-2,
        "initial_const": 1e-3,
        "confidence": 0.0,
        "abort_early": True,
    }
    names = [FGSM(0.1).name, FGSM(1, norm="l2").name, PGD(0.1).name, CarliniWagnerL2().name]
    assert names == ["FGSM", "FGSM-L2", "PGD-40", "CW-L2"]
