"""The attack inside adversarial training: corners, starts, and the box behind a cut-off."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.errors import UserError
from bcgan_tf.training.inner_maximization import InnerMaximization

SEED = tf.constant([1, 2])


def _linear(images):
    """Logits 0 and the sum of the first pixel minus the second."""
    return tf.stack([tf.zeros(tf.shape(images)[0]), images[:, 0] - images[:, 1]], axis=1)


@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
def test_the_attack_reaches_the_corner_of_the_ball(start):
    images = np.float32([[0.5, 0.5, 0.5], [0.95, 0.05, 0.5]])
    labels = np.array([0, 0])
    attack = InnerMaximization(steps=5, start=start)
    found = attack(
        _linear, images, tf.constant(0.2), lambda z: losses.cross_entropy(labels, z), SEED
    ).numpy()
    np.testing.assert_allclose(found[:, :2], [[0.7, 0.3], [1.0, 0.0]], atol=1e-6)
    moved = np.abs(found[:, 2] - 0.5)  # no gradient there: only the start moves it
    assert (moved <= (0.2 if start == "uniform" else 0.01 if start == "normal" else 0)).all()


@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
def test_in_l2_the_attack_reaches_the_point_that_the_gradient_names(start):
    images = np.full((2, 3), 0.5, np.float32)
    attack = InnerMaximization(steps=40, step_ratio=0.5, start=start, norm="l2")
    found = attack(_linear, images, tf.constant(0.2), lambda z: z[:, 1], SEED).numpy() - 0.5
    np.testing.assert_allclose(found, [[0.2 / 2**0.5, -0.2 / 2**0.5, 0]] * 2, atol=1e-3)
    assert (np.linalg.norm(found, axis=1) <= 0.2 + 1e-6).all()


def test_uniform_starts_fill_the_l2_ball():
    images = np.full((500, 3), 0.5, np.float32)
    attack = InnerMaximization(steps=1, norm="l2")
    found = attack(_linear, images, tf.constant(0.2), lambda z: 0 * z[:, 0], SEED).numpy() - 0.5
    length = np.linalg.norm(found, axis=1) / 0.2
    assert length.max() <= 1 + 1e-5
    # The mean of the radius within a ball of three dimensions is 3/4.
    assert abs(length.mean() - 0.75) < 0.03 and np.abs(found.mean(axis=0)).max() < 0.02


def test_one_step_of_the_whole_radius_without_a_start_is_fgsm():
    images = np.float32([[0.5, 0.5]])
    attack = InnerMaximization(steps=1, step_ratio=1.0, start="none")
    found = attack(_linear, images, tf.constant(0.1), lambda z: z[:, 1], SEED)
    np.testing.assert_allclose(found, [[0.6, 0.4]], atol=1e-6)


def test_uniform_starts_fill_the_ball_and_depend_on_the_seed():
    images = np.full((500, 3), 0.5, np.float32)
    attack = InnerMaximization(steps=1)
    one, other = (
        attack(_linear, images, tf.constant(0.2), lambda z: 0 * z[:, 0], tf.constant([0, s]))
        for s in (1, 2)
    )
    change = one.numpy() - 0.5
    assert np.abs(change).max() <= 0.2 + 1e-6 and np.abs(change).max() > 0.195
    assert abs(change.std() - 0.2 / np.sqrt(3)) < 0.005
    assert np.abs(one - other).max() > 0.1


def _cut_off(images):
    return tf.clip_by_value((images - 0.4) / 0.2, 0.0, 1.0)


@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
def test_the_attack_crosses_what_a_cut_off_makes_flat(start):
    """0.3 of radius takes 0.65 from white to black, and leaves 0.05 black; half the box a step."""
    images = np.float32([[0.65, 0.35, 0.05], [0.45, 0.05, 0.95]])
    attack = InnerMaximization(steps=2, step_ratio=1.0, start=start)
    found = attack(
        lambda z: tf.stack([z[:, 0] - z[:, 1], tf.zeros(2)], axis=1),
        images,
        tf.constant(0.3),
        lambda logits: losses.cross_entropy(np.array([0, 0]), logits),
        SEED,
        prepare=_cut_off,
    ).numpy()
    np.testing.assert_allclose(found, [[0, 1, 0], [0, 0, 1]], atol=1e-5)


def test_uniform_starts_fill_the_box_behind_a_cut_off():
    images = np.full((500, 1), 0.75, np.float32)  # the box is [0.25, 1]
    attack = InnerMaximization(steps=1)
    found = attack(
        _cut_off_first, images, tf.constant(0.3), lambda z: 0 * z[:, 0], SEED, prepare=_cut_off
    ).numpy()
    assert 0.25 - 1e-6 <= found.min() < 0.26 and 0.99 < found.max() <= 1
    assert abs(found.mean() - 0.625) < 0.02


def _cut_off_first(prepared):
    return tf.concat([prepared, tf.zeros_like(prepared)], axis=1)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"steps": 0}, "steps"), ({"start": "x"}, "start"), ({"step_ratio": 0.0}, "step_ratio")],
)
def test_settings_out_of_range_are_refused(options, named):
    with pytest.raises(UserError, match=named):
        InnerMaximization(**options)
