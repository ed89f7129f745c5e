"""Carlini-Wagner finds the distances that Foolbox's independent implementation finds."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD, CarliniWagnerL2

foolbox = pytest.importorskip("foolbox", reason="needs the `crosscheck` extra")
pytestmark = pytest.mark.crosscheck


@pytest.fixture(scope="module")
def theirs(network):
    model = network[0]
    return foolbox.TensorFlowModel(tf.function(lambda x: model(x, training=False)), bounds=(0, 1))


def test_mean_l2_of_carlini_wagner_agrees_within_5_percent(network, theirs):
    model, images, labels = network
    ours = CarliniWagnerL2(steps=100, learning_rate=0.08)(model, images, labels)
    attack = foolbox.attacks.L2CarliniWagnerAttack(steps=100, stepsize=0.08)
    _, found, broken = attack(theirs, tf.constant(images), tf.constant(labels), epsilons=None)
    # Foolbox returns a black image where it found nothing: count such a one as a failure.
    real = broken.numpy() & (found.numpy().max(axis=(1, 2, 3)) > 0)
    assert real.all() and ours.success_rate == 1
    distances = np.sqrt(np.square(found.numpy() - images).sum(axis=(1, 2, 3)))
    assert ours.l2.mean() == pytest.approx(distances.mean(), rel=0.05)
    # Image by image too, if less closely: both are local searches.
    assert np.median(np.abs(ours.l2 / distances - 1)) < 0.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_as_strong_as_foolbox(network, theirs, norm):
    model, images, labels = network
    eps = {"linf": 0.1, "l2": 0.6}[norm]
    ours = PGD(eps, norm=norm, steps=20)(model, images, labels)
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm](
        steps=20, abs_stepsize=ours.config["step_size"]
    )
    _, _, broken = attack(theirs, tf.constant(images), tf.constant(labels), epsilons=eps)
    assert 0 < ours.success_rate < 1
    assert ours.success_rate >= broken.numpy().mean() - 0.05
