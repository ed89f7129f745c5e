"""The BCGAN defence: what it learns from, what it leaves alone, what it refuses."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.defenses import BCGANTraining
from bcgan_tf.defenses.defense import copy_classifier
from bcgan_tf.errors import UserError
from bcgan_tf.models import BCGAN

TINY = {
    "gan_epochs": 1,
    "gan_batch_size": 32,
    "generator_width": 0.05,
    "discriminator_width": 0.05,
    "latent_dim": 6,
    "epochs": 1,
    "batch_size": 32,
    "delay_epochs": 0.0,
    "warmup_epochs": 0.0,
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("digits")
    return dataclasses.replace(
        data, train=data.train.take(128), validation=data.validation.take(32)
    )


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    """With batch norm; built-in layers only."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(16, kernel_initializer=keras.initializers.HeNormal(1))(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    logits = keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(2))(x)
    return keras.Model(image, logits)


@pytest.fixture(scope="module")
def gan(classifier, digits) -> BCGAN:
    return BCGANTraining(**TINY, seed=2).build_gan(classifier, digits)


def arrays(model):
    return [np.array(weight.numpy()) for weight in model.weights]


def built(gan, rows=24, seed=(1, 2), **options):
    builder = BCGANTraining(**{**TINY, **options})._batch_builder(gan)
    images = tf.fill([rows, 8, 8, 1], 2.0)  # no generated pixel is 2
    labels = tf.cast(tf.range(rows) % 10, tf.int64)
    found, classes, weights = builder(images, labels, tf.constant(seed))
    np.testing.assert_array_equal(found[:rows], images)
    np.testing.assert_array_equal(classes[:rows], labels)
    np.testing.assert_array_equal(weights, np.ones(len(found)))
    assert classes.dtype == tf.int64
    return found[rows:].numpy(), classes[rows:].numpy()


@pytest.mark.parametrize(
    ("ratio", "fakes"), [(0.5, 24), (0.75, 8), (0.25, 72), (0.8, 6), (0.96, 1), (0.999, 0)]
)
def test_clean_ratio_is_the_share_of_clean_images(gan, ratio, fakes):
    images, classes = built(gan, clean_ratio=ratio)
    assert images.shape == (fakes, 8, 8, 1)
    assert classes.shape == (fakes,)
    assert not fakes or images.max() <= 1


def test_a_ratio_of_one_needs_no_builder(gan):
    assert BCGANTraining(**TINY, clean_ratio=1.0)._batch_builder(gan) is None


def test_fresh_fakes_carry_the_class_they_were_asked_for(gan):
    images, classes = built(gan, rows=40, clean_ratio=0.2)  # 160 fakes
    assert set(classes) == set(range(10))
    # The generator maps its noise with these classes, and no others, to these images.
    noise = tf.random.stateless_normal([160, 6], tf.random.fold_in(tf.constant([1, 2]), 0))
    expected = gan.generator([noise, tf.constant(classes)], training=False).numpy()
    np.testing.assert_allclose(images, expected, atol=1e-6)
    shifted = gan.generator([noise, tf.constant((classes + 1) % 10)], training=False).numpy()
    assert np.abs(images - shifted).reshape(160, -1).max(1).min() > 1e-6


def test_fresh_fakes_change_with_the_seed_only(gan):
    first, again, other = (built(gan, seed=seed)[0] for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other, atol=1e-7).reshape(24, -1).all(1).any()


def test_replicas_learn_from_different_fakes(two_replicas, classifier, digits):
    gan = BCGANTraining(**TINY, seed=2, devices=2).build_gan(classifier, digits)
    assert gan.distribute_strategy is two_replicas
    builder = BCGANTraining(**TINY, clean_ratio=0.5)._batch_builder(gan)
    images, labels = tf.zeros([6, 8, 8, 1]), tf.zeros([6], tf.int64)

    @tf.function
    def run():
        return two_replicas.run(lambda: builder(images, labels, tf.constant([1, 2]))[:2])

    found, classes = (
        [part.numpy()[6:] for part in two_replicas.experimental_local_results(value)]
        for value in run()
    )
    single, single_classes = built(gan, rows=12)
    np.testing.assert_array_equal(np.concatenate(classes), single_classes)
    np.testing.assert_allclose(np.concatenate(found), single, atol=1e-6)


def test_the_gan_has_the_defences_settings(classifier, digits):
    defense = BCGANTraining(
        **{**TINY, "delay_epochs": 1.5, "warmup_epochs": 0.5, "gan_epochs": 2},
        beta=0.4,
        seed=9,
        real_target=0.8,
        gan_learning_rate=0.003,
        boundary_loss="top2",
    )
    gan = defense.build_gan(classifier, digits)  # 128 images: 4 steps an epoch
    found = (gan.beta, gan.delay_steps, gan.warmup_steps, gan.seed, gan.latent_dim)
    assert found == (0.4, 6, 2, 9, 6)
    assert (gan.real_target, gan.boundary_loss) == (0.8, "top2")
    assert [float(v.learning_rate) for v in gan.optimizers] == [pytest.approx(0.003)] * 2
    assert [v.beta_1 for v in gan.optimizers] == [0.5, 0.5]
    assert gan.classifier is not classifier


def test_a_copy_shares_nothing(classifier):
    copy = copy_classifier(classifier)
    for one, other in zip(classifier.weights, copy.weights, strict=True):
        assert one is not other
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, "beta is -1; choose a number from 0"),
        ({"boundary_loss": "l2"}, "boundary_loss is 'l2'; choose uniform or top2"),
        ({"clean_ratio": 0}, "clean_ratio is 0; .* to 1"),
        ({"clean_ratio": 1.2}, r"clean_ratio is 1\.2"),
        ({"gan_epochs": 0}, "gan_epochs is 0"),
        ({"gan_batch_size": 0}, "gan_batch_size is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -2}, "batch_size is -2"),
        ({"latent_dim": 0}, "latent_dim is 0"),
    ],
)
def test_impossible_settings(options, message):
    with pytest.raises(UserError, match=message) as caught:
        BCGANTraining(**options)
    assert "\n" not in str(caught.value)


def test_another_number_of_classes(digits):
    three = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    three.add(keras.layers.Dense(3))
    with pytest.raises(UserError, match="3"):
        BCGANTraining(**TINY).harden(three, digits)
