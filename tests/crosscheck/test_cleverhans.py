"""FGSM and PGD give cleverhans' own arrays; its Carlini-Wagner attack fails, ours does not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.carlini_wagner_l2 import CarliniWagnerL2 as CleverhansCW
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from bcgan_tf.attacks import FGSM, PGD, CarliniWagnerL2

ORDERS = {"linf": np.inf, "l2": 2}
norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("linf", 0.3), ("l2", 0.7)])


def _logits(model: keras.Model):
    return lambda images: model(images, training=False)


@norms
def test_fgsm_gives_the_same_array(network, norm, eps):
    model, images, labels = network
    theirs = fast_gradient_method(
        _logits(model),
        tf.constant(images),
        eps,
        ORDERS[norm],
        clip_min=0.0,
        clip_max=1.0,
        y=tf.constant(labels),
    ).numpy()
    ours = FGSM(eps, norm=norm)(model, images, labels).adversarials
    if norm == "linf":
        np.testing.assert_array_equal(ours, theirs)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@norms
def test_pgd_gives_the_same_iterates(network, norm, eps):
    """Ours is their first misclassified iterate, or their last where none is."""
    model, images, labels = network
    steps, step_size = 6, eps / 5
    ours = PGD(eps, step_size=step_size, steps=steps, random_start=False, norm=norm)(
        model, images, labels
    )
    expected = images.copy()
    unbroken = np.ones(len(images), bool)
    for count in range(1, steps + 1):
        iterate = projected_gradient_descent(
            _logits(model),
            tf.constant(images),
            eps,
            step_size,
            count,
            ORDERS[norm],
            clip_min=0.0,
            clip_max=1.0,
            y=tf.constant(labels),
            rand_init=False,
        ).numpy()
        expected[unbroken] = iterate[unbroken]
        unbroken &= model(iterate, training=False).numpy().argmax(-1) == labels
    np.testing.assert_array_equal(ours.success, ~unbroken)
    np.testing.assert_allclose(ours.adversarials, expected, rtol=0, atol=1e-6)
    if eps == 0.1:
        assert 0 < unbroken.sum() < len(images)  # both kinds are compared


class _CallableList(list):
    """What `optimizer.variables()` needs to run under Keras 3, where `variables` is a list."""

    def __call__(self) -> _CallableList:
        return self


class _Keras2Adam(keras.optimizers.Adam):
    @property
    def variables(self) -> Any:
        return _CallableList(super().variables)


@pytest.mark.parametrize("true_labels", [True, False])
def test_the_silent_failure_of_cleverhans_carlini_wagner_is_not_ours(network, true_labels):
    """Made to run, it zeroes the learning rate along with the moments: nothing ever moves."""
    model, images, labels = network
    images, labels = images[:12], labels[:12]
    theirs = CleverhansCW(
        _logits(model),
        batch_size=12,
        y=labels if true_labels else None,
        max_iterations=20,
        binary_search_steps=3,
        learning_rate=0.1,
    )
    theirs.optimizer = _Keras2Adam(0.1)
    unchanged = theirs.attack(images)
    # At most the rounding of its way through tanh space.
    np.testing.assert_allclose(unchanged, images, rtol=0, atol=1e-5)
    assert (model(unchanged).numpy().argmax(-1) == labels).all()  # "100 % robust"

    ours = CarliniWagnerL2(steps=200, learning_rate=0.05)(model, images, labels)
    assert ours.success_rate == 1 and ours.robust_accuracy == 0
    assert (ours.l2 > 1e-3).all() and ours.l2.mean() > 0.05
