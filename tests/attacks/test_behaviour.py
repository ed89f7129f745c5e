"""What every attack must do, whatever it finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD, Attack, CarliniWagnerL2
from helpers.toy_models import Sharp, sharp_network


@pytest.fixture(scope="module")
def sharp() -> tuple[Sharp, np.ndarray, np.ndarray]:
    """The float64 network, 23 images of 6x6x1, and labels of which two are wrong."""
    model, images, labels = sharp_network(6, 6, 1)
    labels[[3, 11]] = (labels[[3, 11]] + 1) % 5
    return model, images, labels


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_returns_the_inputs(norm, sharp):
    for attack in (FGSM(0.0, norm=norm), PGD(0, norm=norm, restarts=2), PGD(0.0, step_size=0.1)):
        result = attack(*sharp)
        np.testing.assert_array_equal(result.adversarials, sharp[1])
        assert result.robust_accuracy == result.clean_accuracy == pytest.approx(21 / 23)
        assert result.success_rate == 0 and result.to_dict()["l2"] is None


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
