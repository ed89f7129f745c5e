"""The trainer of plain classifiers, and what the oracle's batches are made of."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.training.augmentation import noisy_shifted_batch
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fit import fit


def test_it_learns_real_digits_and_leaves_a_plain_model(digits, tmp_path):
    trainer = ClassifierTrainer(small_cnn((8, 8, 1), 10, seed=0))
    trainer.compile(keras.optimizers.Adam(5e-3))
    logs = fit(trainer, digits.train, epochs=3, batch_size=64, seed=0, validation=digits.validation)
    assert [log["epoch"] for log in logs] == [0, 1, 2]
    assert set(logs[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert logs[-1]["val_accuracy"] > 0.9
    logits = trainer.classifier(digits.validation.scaled(), training=False)
    accuracy = np.mean(np.argmax(logits, -1) == digits.validation.labels)
    assert logs[-1]["val_accuracy"] == pytest.approx(accuracy)
    loss = np.mean(losses.cross_entropy(digits.validation.labels, logits))
    assert logs[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)
    trainer.classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    assert type(loaded) is keras.Model or type(loaded).__name__ == "Functional"


def test_batch_norm_moves_in_training_only(networks, some):
    trainer = ClassifierTrainer(networks["classifier"]())
    trainer.compile()
    norm = trainer.classifier.layers[3]
    assert isinstance(norm, keras.layers.BatchNormalization)
    data = tf.data.Dataset.from_tensor_slices((some.scaled(), some.labels)).batch(16)
    trainer.evaluate(data, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(24))
    trainer.fit(data, verbose=0, shuffle=False)
    assert np.abs(norm.moving_mean.numpy()).max() > 0.01


def test_the_built_batch_is_what_is_learnt_from(networks, some):
    """Rows added by the builder count in the mean, and zero weights take no part."""

    def build_batch(images, labels, seed):
        more = tf.concat([images, 0 * images], 0), tf.concat([labels, 0 * labels], 0)
        return *more, tf.concat([tf.ones(tf.shape(labels)), tf.zeros(tf.shape(labels))], 0)

    updates = []
    for builder in (None, build_batch):
        classifier = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
        )
        classifier.set_weights([np.zeros((64, 10), np.float32), np.zeros(10, np.float32)])
        trainer = ClassifierTrainer(classifier, build_batch=builder)
        trainer.compile(keras.optimizers.SGD(1.0))
        batch = tf.data.Dataset.from_tensors((some.scaled(), some.labels))
        logs = trainer.fit(batch, verbose=0, shuffle=False).history
        updates.append((classifier.get_weights()[0], logs["loss"][0]))
    np.testing.assert_allclose(updates[1][0], updates[0][0] / 2, atol=1e-6)
    assert updates[0][1] == pytest.approx(np.log(10), rel=1e-5)
    assert updates[1][1] == pytest.approx(np.log(10) / 2, rel=1e-5)


def test_the_builders_seed_changes_with_the_step_and_the_trainers_seed(networks, some):
    def seeds(seed):
        found = []

        def build_batch(images, labels, key):
            tf.py_function(lambda k: found.append(tuple(k.numpy())), [key], [])
            return images, labels, tf.ones(tf.shape(labels))

        trainer = ClassifierTrainer(networks["classifier"](), seed=seed, build_batch=build_batch)
        trainer.compile()
        data = tf.data.Dataset.from_tensor_slices((some.scaled(), some.labels)).batch(16)
        trainer.fit(data, epochs=2, verbose=0, shuffle=False)
        return found

    first = seeds(0)
    assert len(set(first)) == 8
    assert seeds(0) == first
    assert not set(seeds(1)) & set(first)


def test_only_the_given_optimizer_is_made(networks):
    trainer = ClassifierTrainer(networks["classifier"]())
    optimizer = keras.optimizers.SGD(0.1)
    trainer.compile(optimizer)
    assert trainer.optimizer is optimizer
    assert optimizer.built
    trainer.compile()
    assert isinstance(trainer.optimizer, keras.optimizers.Adam)
    assert float(trainer.optimizer.learning_rate) == np.float32(1e-3)


SEED = tf.constant([1, 2])


def test_the_noise_is_of_random_strength():
    images = tf.fill([200, 20, 20, 1], 0.5)
    labels = tf.range(200)
    noisy, same, weights = noisy_shifted_batch(images, labels, SEED, noise=0.1)
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_array_equal(weights, np.ones(200))
    strengths = noisy.numpy().std(axis=(1, 2, 3))
    assert strengths.min() < 0.01
    assert 0.09 < strengths.max() < 0.11
    assert abs(strengths.mean() - 0.05) < 0.01
    assert 0 <= noisy.numpy().min() <= noisy.numpy().max() <= 1
    np.testing.assert_array_equal(noisy, noisy_shifted_batch(images, labels, SEED, noise=0.1)[0])


def test_the_shift_is_small_and_of_the_whole_batch():
    images = np.zeros((3, 28, 28, 1), np.float32)
    images[:, 14, 14] = 1
    seen = set()
    for i in range(60):
        moved = noisy_shifted_batch(tf.constant(images), tf.range(3), [i, 0], noise=0.0)[0].numpy()
        places = np.argwhere(moved[..., 0] == 1)[:, 1:] - 14
        assert len(places) == 3
        assert (places == places[0]).all()
        seen.add(tuple(places[0]))
    assert {abs(v) for place in seen for v in place} == {0, 1, 2}


def test_vectors_stay_as_they_are():
    vectors = tf.random.stateless_normal([4, 2], SEED)
    same, labels, weights = noisy_shifted_batch(vectors, tf.range(4), SEED)
    np.testing.assert_array_equal(same, vectors)
    assert labels.shape == weights.shape == (4,)
