"""Attacks on models whose answers are known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD, CarliniWagnerL2
from helpers.linear_task import Linear, around, images_at


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "build",
    [
        lambda eps, norm: FGSM(eps, norm=norm),
        lambda eps, norm: PGD(eps, norm=norm, steps=20),
        lambda eps, norm: PGD(eps, norm=norm, steps=10, random_start=False),
    ],
    ids=["fgsm", "pgd", "pgd-no-start"],
)
def test_a_fixed_eps_attack_succeeds_just_above_the_distance_and_fails_just_below(build, norm):
    result = build(0.08, norm)(*around(0.08, norm, 2, 0.998, 1.002))
    assert result.clean_accuracy == 1
    np.testing.assert_array_equal(result.success, np.arange(24) < 12)


def test_carlini_wagner_finds_the_distance_of_two_classes():
    model, images, labels = images_at(0.3, "l2", 2)
    result = CarliniWagnerL2(steps=300)(model, images, labels)
    assert result.success.all()
    assert (result.l2 >= 0.3 * (1 - 1e-4)).all()  # nothing nearer exists
    np.testing.assert_allclose(result.l2, 0.3, rtol=0.02)


def test_carlini_wagner_finds_the_nearest_of_five_classes():
    rng = np.random.default_rng(2)
    model = Linear(rng.normal(size=(20, 5)).astype(np.float32), np.zeros(5, np.float32))
    images = rng.uniform(0.3, 0.7, (16, 20)).astype(np.float32)
    labels = model(tf.constant(images)).numpy().argmax(-1)
    result = CarliniWagnerL2(steps=300)(model, images, labels)
    exact = model.distances(images, labels, "l2").min(1)
    assert result.success.all() and (exact > 1e-3).all()
    assert (result.l2 >= exact * (1 - 1e-4)).all()
    # Following the nearest class from the image is a local search: allow the mean, not each one.
    np.testing.assert_allclose(result.l2.mean(), exact.mean(), rtol=0.02)


def test_carlini_wagner_reaches_the_confidence_asked_for():
    model, images, labels = images_at(0.1, "l2", 2, 10)
    result = CarliniWagnerL2(steps=200, confidence=1.5)(model, images, labels)
    logits = model(tf.constant(result.adversarials)).numpy()
    gap = logits[np.arange(10), 1 - labels] - logits[np.arange(10), labels]
    assert result.success.all() and (gap >= 1.5).all()
    # The extra gap costs 1.5 / ||w||_2 more.
    extra = 1.5 / np.linalg.norm(model.weights[:, 0] - model.weights[:, 1])
    np.testing.assert_allclose(result.l2, 0.1 + extra, rtol=0.03)


def _pixels(images: tf.Tensor) -> tf.Tensor:
    """z0 = 2 a - b, z1 = a + 3 b, for images of the two pixels a, b."""
    return images @ tf.constant([[2.0, 1.0], [-1.0, 3.0]])


def test_fgsm_on_two_pixels_by_hand():
    # grad_x CE(z, y) = p_other * (w_other - w_y); w0 - w1 = (1, -4).
    images = np.float32([[0.5, 0.25], [0.97, 0.05], [0.05, 0.0]])
    labels = np.array([1, 0, 0])
    linf = FGSM(0.1)(_pixels, images, labels)
    expected = [[0.6, 0.15], [0.87, 0.15], [0.0, 0.1]]  # the third is clipped at 0
    np.testing.assert_allclose(linf.adversarials, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(linf.linf, [0.1, 0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(linf.l2, np.hypot([0.1, 0.1, 0.05], 0.1), atol=1e-6)
    # z (0.6, 0.15) = (1.05, 1.05 + 0), a tie that argmax gives to class 0: broken by exactly 0.1.
    assert linf.success[1:].tolist() == [False, True]

    l2 = FGSM(0.1, norm="l2")(_pixels, images, labels)
    a, b = 0.1 / np.sqrt(17), 0.4 / np.sqrt(17)
    expected = [[0.5 + a, 0.25 - b], [0.97 - a, 0.05 + b], [0.05 - a, b]]
    np.testing.assert_allclose(l2.adversarials, expected, rtol=0, atol=1e-6)


def test_pgd_on_two_pixels_walks_to_the_corner_of_the_box():
    images, labels = np.float32([[0.97, 0.05]]), np.array([0])
    result = PGD(0.1, steps=7, step_size=0.03, random_start=False)(_pixels, images, labels)
    np.testing.assert_allclose(result.adversarials, [[0.87, 0.15]], rtol=0, atol=1e-6)
    assert not result.success[0]  # z = (1.59, 1.32)


def test_a_misclassified_iterate_in_the_middle_is_kept():
    """The loss peaks between two iterates: 0.2 right, 0.4 wrong, 0.6 right again."""

    def peak(images: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.zeros_like(images), 0.05 - tf.abs(images - 0.43)], axis=1)

    images, labels = np.float32([[0.2], [0.95]]), np.array([0, 0])
    attack = PGD(0.5, step_size=0.2, steps=2, random_start=False)
    result = attack(peak, images, labels)
    np.testing.assert_allclose(result.adversarials[:, 0], [0.4, 0.55], atol=1e-6)
    assert result.success.tolist() == [True, False]


def _trap(images: tf.Tensor) -> tf.Tensor:
    """Left of 0.5 the loss leads to 0.3, where class 0 still wins; right of it to 0.7."""
    left, right = -0.05 - tf.abs(images - 0.3), 0.05 - tf.abs(images - 0.7)
    return tf.concat([tf.zeros_like(images), tf.where(images < 0.5, left, right)], axis=1)


def test_restarts_are_worst_case_and_nested():
    images, labels = np.full((60, 1), 0.5, np.float32), np.zeros(60, int)
    one = PGD(0.3, steps=10)(_trap, images, labels)
    five = PGD(0.3, steps=10, restarts=5)(_trap, images, labels)
    assert 0.3 < one.success_rate < 0.7  # half of the starts lie on the good side
    assert five.success_rate >= 0.9  # 1 - 2**-5
    # What the first start broke is left alone by the later ones.
    assert five.success[one.success].all()
    np.testing.assert_array_equal(five.adversarials[one.success], one.adversarials[one.success])


@pytest.mark.parametrize(("masked", "scale"), [(-1e9, 1e-4), (-np.inf, 1.0), (-1e9, 1e5)])
def test_masked_classes_are_neither_targets_nor_obstacles(masked, scale):
    """Two real classes and two masked out: the answers of the two-class model hold."""
    inner, images, labels = images_at(0.1, "l2", 2, 10)

    def model(images: tf.Tensor) -> tf.Tensor:
        real = scale * inner(images)
        gone = tf.fill(tf.shape(real), tf.constant(masked, tf.float32))
        return tf.concat([gone[:, :1], real, gone[:, 1:]], axis=1)

    for attack in (PGD(0.1002, norm="l2"), FGSM(0.1002, norm="l2")):
        # CE saturates at the largest scale in float32; that is the model's doing, not the mask's.
        if scale <= 1:
            assert attack(model, images, labels + 1).success_rate == 1
    found = CarliniWagnerL2(steps=300, initial_const=1e-3 / scale)(model, images, labels + 1)
    assert found.success.all()
    np.testing.assert_allclose(found.l2, 0.1, rtol=0.02)
    assert set(model(tf.constant(found.adversarials)).numpy().argmax(-1)) == {1, 2}


def test_carlini_wagner_handles_logits_that_are_large_and_all_negative():
    """A mask of -10,000 on the true class, as in the reference, would be the largest logit here."""
    inner, images, labels = images_at(0.1, "l2", 2, 10)
    attack = CarliniWagnerL2(steps=300, initial_const=1e-9)
    found = attack(lambda batch: 1e6 * (inner(batch) - 9.0), images, labels)
    assert found.success.all()
    np.testing.assert_allclose(found.l2, 0.1, rtol=0.02)


def test_l2_steps_do_not_shrink_with_a_small_gradient():
    """cleverhans treats a gradient of 1e-9 as one of length 1e-6: a thousandth of the step."""
    model, images, labels = images_at(0.1, "l2", 2, 10)

    def confident(images: tf.Tensor) -> tf.Tensor:
        logits = model(images)
        # The same boundary; near it the gradient of the cross entropy is 1e-9 of the usual one.
        return 1e-9 * logits

    assert FGSM(0.1002, norm="l2")(confident, images, labels).success_rate == 1
    assert PGD(0.1002, norm="l2", steps=10)(confident, images, labels).success_rate == 1
