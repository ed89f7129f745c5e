"""One step of training computed in NumPy, matched on one device and on two."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute, losses, randomness
from bcgan_tf.data import Split
from bcgan_tf.training.alternating_trainer import AlternatingTrainer
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fit import fit
from helpers.linear_gan import (
    BATCH,
    CLASSES,
    SEED,
    SIZE,
    by_shape,
    difference,
    expected_update,
    initial_arrays,
    linear_gan,
    softmax,
)


@pytest.fixture(scope="module")
def arrays():
    return initial_arrays()


def one_step(model, arrays):
    batch = tf.data.Dataset.from_tensors((arrays["images"], arrays["labels"]))
    model.fit(batch, epochs=1, verbose=0, shuffle=False)


@pytest.mark.parametrize("generated", [3, 4])
@pytest.mark.parametrize("replicas", [1, 2])
def test_generated_batches_come_before_each_pass_over_the_real_images(
    arrays, two_replicas, replicas, generated, tmp_path
):
    """Two epochs of generated batches and two real ones, at once and resumed between.

    Three are drawn one by one, four as two pairs.
    """
    rate, real, drawn = 0.4, 2, math.gcd(generated, 10)
    # One image only: the order does not count.
    split = Split(arrays["images"][:1].repeat(real * BATCH, axis=0), np.zeros(real * BATCH, int))

    def generate(rows, seed):
        z = randomness.global_normal(seed, rows, SIZE)
        return z, tf.cast(z[:, 0] > 0, tf.int32)

    def trained(epochs, directory):
        with distribute.scope(two_replicas if replicas == 2 else None):
            image = keras.Input((SIZE,))
            classifier = keras.Model(image, keras.layers.Dense(CLASSES)(image))
            trainer = AlternatingTrainer(
                classifier,
                generate=generate,
                generated_batches=generated,
                real_batches=real,
                batch_size=BATCH,
                seed=SEED,
            )
            trainer.compile(keras.optimizers.SGD(rate))
        classifier.set_weights(arrays["classifier"])
        fit(trainer, split, epochs=epochs, batch_size=BATCH, seed=0, directory=directory,
            resume=True, callbacks=[trainer.callback()])  # fmt: skip
        return classifier.get_weights()

    kernel, bias = (v.astype(np.float64) for v in arrays["classifier"])
    for step in range(2 * (generated + real)):
        x, y = split.images[:BATCH].astype(np.float64), split.labels[:BATCH]
        if (number := step % (generated + real)) < generated:
            first = step - number % drawn
            seed = randomness.step_seed(SEED, 17, tf.constant(first))
            # Each replica draws its rows of all these batches, and takes them in order.
            x, y = (
                part.numpy()
                .reshape(replicas, drawn, BATCH // replicas, *part.shape[1:])[:, number % drawn]
                .reshape(BATCH, *part.shape[1:])
                for part in generate(drawn * BATCH, seed)
            )
            x = x.astype(np.float64)
        error = (softmax(x @ kernel + bias) - np.eye(CLASSES)[y]) / BATCH
        kernel, bias = kernel - rate * x.T @ error, bias - rate * error.sum(0)
    found = trained(2, tmp_path / "whole")
    np.testing.assert_allclose(found[0], kernel, atol=1e-5)
    np.testing.assert_allclose(found[1], bias, atol=1e-5)
    trained(1, tmp_path / "parts")
    for ours, theirs in zip(trained(2, tmp_path / "parts"), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_step_of_the_boundary_gan(arrays, two_replicas, replicas):
    gan = linear_gan(arrays, two_replicas if replicas == 2 else None)
    one_step(gan, arrays)
    expected = expected_update(arrays)
    assert difference(gan, expected) < 1e-6
    moved = np.abs(expected["generator"][SIZE,] - arrays["generator"][1]).max()
    assert moved > 0.01  # the comparison is of a step, not of two initial states


def test_a_plain_mean_on_two_replicas_does_not_match(arrays, two_replicas, monkeypatch):
    """The check above can fail: a mean over each replica's rows makes the step twice as long."""
    monkeypatch.setattr(losses, "average", tf.reduce_mean)
    gan = linear_gan(arrays, two_replicas)
    one_step(gan, arrays)
    assert difference(gan, expected_update(arrays)) > 0.01


def test_a_plain_mean_of_the_boundary_term_alone_does_not_match(arrays, two_replicas, monkeypatch):
    """As if the term were added as a scalar beside properly reduced ones: beta counts twice."""
    kl = losses.kl_to_uniform
    monkeypatch.setattr(
        losses,
        "kl_to_uniform",
        lambda logits: kl(logits) * tf.distribute.get_replica_context().num_replicas_in_sync,
    )
    gan = linear_gan(arrays, two_replicas)
    one_step(gan, arrays)
    assert difference(gan, expected_update(arrays)) > 0.01


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_step_of_the_classifier_trainer(arrays, two_replicas, replicas):
    rate, weights = 0.4, np.float32([1, 2, 0, 1, 0.5, 1, 1, 3])

    def build_batch(images, labels, seed):
        # Weights that follow the example, not its place: replicas see half the rows each.
        matches = tf.reduce_all(images[:, None] == arrays["images"][None], axis=-1)
        return images, labels, tf.linalg.matvec(tf.cast(matches, tf.float32), weights)

    with distribute.scope(two_replicas if replicas == 2 else None):
        image = keras.Input((SIZE,))
        classifier = keras.Model(image, keras.layers.Dense(CLASSES)(image))
        trainer = ClassifierTrainer(classifier, build_batch=build_batch)
        trainer.compile(keras.optimizers.SGD(rate))
    classifier.set_weights(arrays["classifier"])
    one_step(trainer, arrays)

    images = arrays["images"].astype(np.float64)
    kernel, bias = arrays["classifier"]
    error = softmax(images @ kernel + bias) - np.eye(CLASSES)[arrays["labels"]]
    error *= weights[:, None] / BATCH
    found = by_shape(classifier)
    np.testing.assert_allclose(found[SIZE, CLASSES], kernel - rate * images.T @ error, atol=1e-6)
    np.testing.assert_allclose(found[CLASSES,], bias - rate * error.sum(0), atol=1e-6)
