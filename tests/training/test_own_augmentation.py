"""Augmentation at the beginning of a classifier is drawn before the attack."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.files import note
from bcgan_tf.training import adversarial
from bcgan_tf.training.adversarial_trainer import AdversarialTrainer
from bcgan_tf.training.ibp_trainer import IBPTrainer
from bcgan_tf.training.inner_maximization import InnerMaximization
from bcgan_tf.training.own_augmentation import OwnAugmentation
from helpers.small_networks import glorot, weights_of

layers = keras.layers


def _down():
    """Two of eight rows down, at every draw; above it the first row again."""
    return layers.RandomTranslation((0.25, 0.25), 0.0, fill_mode="nearest", seed=1)


def _network(*first):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *first,
            layers.Flatten(),
            layers.Dense(12, activation="relu", kernel_initializer=glorot(1)),
            layers.Dense(10, kernel_initializer=glorot(2)),
        ]
    )


def _moved(images):
    return np.concatenate([np.repeat(images[:, :1], 2, axis=1), images[:, :-2]], axis=1)


FRONTS = {
    "first": lambda: [_down(), layers.Rescaling(255.0, offset=-3.0)],
    "second": lambda: [layers.Rescaling(255.0, offset=-3.0), _down()],
    "inside a model": lambda: [
        layers.Rescaling(255.0, offset=-3.0),
        keras.Sequential([keras.Input((8, 8, 1)), _down(), layers.Identity()]),
    ],
    "in a pipeline": lambda: [layers.Pipeline([_down()])],
}
ATTACK = InnerMaximization(steps=3)


TRAINERS = {
    "pgd-at": lambda network: AdversarialTrainer(
        network, eps=0.1, attack=ATTACK, clean_weight=0.3, seed=3
    ),
    "trades": lambda network: AdversarialTrainer(
        network, eps=0.1, attack=ATTACK, trades_beta=2.0, seed=3
    ),
    "ibp": lambda network: IBPTrainer(network, eps=0.1, training_eps=0.1, kappa=0.5, seed=3),
    "ibp with an attack": lambda network: IBPTrainer(
        network, eps=0.1, training_eps=0.1, kappa=0.5, attack=ATTACK, seed=3
    ),
}


@pytest.mark.parametrize("front", FRONTS)
def test_images_are_augmented_in_their_own_range(some, front):
    images = some.scaled(0, 6)
    network = _network(*FRONTS[front]())
    own = OwnAugmentation.of(network)
    assert own is not None
    np.testing.assert_allclose(own.augmented(images), _moved(images), atol=1e-5)
    np.testing.assert_allclose(own.in_training(images), network(images, training=False), atol=1e-4)


def _one_step(trainer, images, labels):
    trainer.compile(keras.optimizers.SGD(0.1))
    trainer.train_on_batch(images, labels)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_step_is_that_of_augmented_images_without_augmentation(some, name):
    images, labels = some.scaled(0, 16), some.labels[:16].astype(np.int64)
    augmented = _network(layers.Rescaling(2.0, offset=-1.0), _down())
    plain = _network(layers.Rescaling(2.0, offset=-1.0))
    before = weights_of(plain)
    _one_step(TRAINERS[name](augmented), images, labels)
    _one_step(TRAINERS[name](plain), _moved(images), labels)
    for start, mine, other in zip(before, weights_of(augmented), weights_of(plain), strict=True):
        assert np.abs(other - start).max() > 1e-4
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_likewise_in_a_users_own_fit(some):
    images, labels = some.scaled(0, 16), some.labels[:16]
    augmented, plain = _network(_down()), _network()
    for network, given in ((augmented, images), (plain, _moved(images))):
        robust = adversarial(network, eps=0.1, steps=3)
        robust.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        robust.fit(given, labels, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for mine, other in zip(weights_of(augmented), weights_of(plain), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("front", [[], [layers.Rescaling(2.0)], [layers.GaussianNoise(1)]])
def test_nothing_is_taken_apart_without_it(front, capsys):
    assert OwnAugmentation.of(_network(*front)) is None
    assert not capsys.readouterr().err


LATE = {
    "behind a cut-off": [layers.Rescaling(2.0), layers.ReLU(max_value=1.0)],
    "behind levels": [layers.Rescaling(16.0), layers.Lambda(keras.ops.round)],
    "behind weights": [layers.Conv2D(1, 3, padding="same")],
    "behind another size": [layers.Resizing(6, 6)],
}


@pytest.mark.parametrize("front", LATE)
def test_augmentation_that_comes_late_is_named(front, capsys):
    note.cache_clear()
    assert OwnAugmentation.of(_network(*LATE[front], layers.RandomFlip(name="mirror"))) is None
    assert "(mirror) is drawn after the attack" in capsys.readouterr().err
