"""Adversarial training: its losses by hand, replicas, resume, the best epoch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute, losses
from bcgan_tf.array_files import read_arrays
from bcgan_tf.networks.strided_cnn import strided_cnn
from bcgan_tf.training.adversarial_trainer import AdversarialTrainer
from bcgan_tf.training.checkpoints import BestWeights
from bcgan_tf.training.fit import fit
from bcgan_tf.training.inner_maximization import InnerMaximization


def _trainer(networks, **options):
    options = {"eps": 0.2, "attack": InnerMaximization(steps=3), "seed": 4, **options}
    trainer = AdversarialTrainer(networks["classifier"](dropout=0), **options)
    trainer.compile(keras.optimizers.SGD(0.1))
    return trainer


def _first_batch(some):
    return some.scaled(0, 16), some.labels[:16].astype(np.int64)


def test_the_ramp_of_eps(networks):
    trainer = _trainer(networks, ramp_steps=4)
    radii = []
    for step in (0, 1, 2, 4, 9):
        trainer.optimizer.iterations.assign(step)
        radii.append(float(trainer.current_eps()))
    np.testing.assert_allclose(radii, [0, 0.05, 0.1, 0.2, 0.2], atol=1e-7)


def test_the_radius_of_training_may_exceed_that_of_validation(networks):
    trainer = _trainer(networks, training_eps=0.25, ramp_steps=4)
    trainer.optimizer.iterations.assign(2)
    assert float(trainer.current_eps()) == pytest.approx(0.125)
    trainer.optimizer.iterations.assign(4)
    assert float(trainer.current_eps()) == pytest.approx(0.25)
    assert trainer.eps == 0.2


@pytest.mark.parametrize("trades_beta", [None, 2.0])
def test_training_attacks_and_learns_behind_a_cut_off(some, trades_beta):
    classifier = strided_cnn(some.images.shape[1:], 10, threshold=0.4, seed=3)
    trainer = AdversarialTrainer(
        classifier,
        eps=0.3,
        attack=InnerMaximization(steps=4, start="normal"),
        trades_beta=trades_beta,
        seed=1,
    )
    trainer.compile(keras.optimizers.SGD(0.1))
    images, labels = _first_batch(some)
    prepared = trainer._adversarial_examples(tf.constant(images), tf.constant(labels)).numpy()
    low, high = (np.clip((images + by - 0.4) / 0.2, 0, 1) for by in (-0.3, 0.3))
    assert (prepared >= low - 1e-5).all() and (prepared <= high + 1e-5).all()
    # Where the ball spans grey, most pixels end at one side of the box or the other.
    free = high - low > 0.5
    at_a_side = (np.abs(prepared - low) < 1e-4) | (np.abs(prepared - high) < 1e-4)
    assert free.sum() > 50 and at_a_side[free].mean() > 0.5
    # The pixels that give them lie in the ball, and the network answers them likewise.
    pixels = np.clip(0.4 + 0.2 * prepared, images - 0.3, images + 0.3)
    np.testing.assert_allclose(
        trainer.training_logits(tf.constant(prepared)), classifier(pixels), atol=1e-4
    )
    before = [weight.numpy() for weight in classifier.trainable_variables]
    trainer.train_on_batch(images, labels)
    after = classifier.trainable_variables
    assert all(np.abs(a.numpy() - b).max() > 0 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("clean_weight", [0.0, 0.5])
def test_the_loss_of_adversarial_training_by_hand(networks, some, clean_weight):
    trainer = _trainer(networks, clean_weight=clean_weight)
    images, labels = _first_batch(some)
    adversarial = trainer._adversarial_examples(tf.constant(images), tf.constant(labels)).numpy()
    assert np.abs(adversarial - images).max() <= 0.2 + 1e-6
    copy = keras.models.clone_model(trainer.classifier)
    copy.set_weights(trainer.classifier.get_weights())

    def cross_entropy(x):
        log_p = tf.nn.log_softmax(copy(x, training=True)).numpy()
        return -log_p[np.arange(16), labels].mean()

    expected = (1 - clean_weight) * cross_entropy(adversarial)
    expected += clean_weight * cross_entropy(images)
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, abs=1e-5)


def test_accumulated_gradients_are_those_of_the_whole_path(networks, some):
    """As where the attack's gradients of the weights are never cleared, from the image on."""
    attack = InnerMaximization(steps=2, start="none")
    images, labels = _first_batch(some)
    end = _trainer(networks, attack=attack)._adversarial_examples(images, labels)
    trainer = _trainer(networks, attack=attack, accumulate=True)
    path = trainer._adversarial_examples(tf.constant(images), tf.constant(labels))
    assert path.shape == (3, *images.shape)
    np.testing.assert_array_equal(path[0], images)
    np.testing.assert_allclose(path[-1], end, atol=1e-6)
    classifier, expected = trainer.classifier, []
    copy = keras.models.clone_model(classifier)  # learning changes batch statistics
    copy.set_weights(classifier.get_weights())
    before = [weight.numpy() for weight in classifier.trainable_variables]
    for points in path:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(labels, copy(points, training=True)))
        expected.append(tape.gradient(loss, copy.trainable_variables))
    trainer.train_on_batch(images, labels)
    for number, weight in enumerate(classifier.trainable_variables):
        total = sum(gradients[number].numpy() for gradients in expected)
        np.testing.assert_allclose(weight.numpy(), before[number] - 0.1 * total, atol=1e-5)


def test_the_loss_of_trades_by_hand(networks, some):
    trainer = _trainer(networks, trades_beta=3.0, attack=InnerMaximization(steps=3, start="normal"))
    images, labels = _first_batch(some)
    adversarial = trainer._adversarial_examples(tf.constant(images), tf.constant(labels)).numpy()
    copy = keras.models.clone_model(trainer.classifier)
    copy.set_weights(trainer.classifier.get_weights())
    attacked = tf.nn.softmax(copy(adversarial, training=True)).numpy()
    clean = tf.nn.softmax(copy(images, training=True)).numpy()
    divergence = (clean * (np.log(clean) - np.log(attacked))).sum(axis=1)
    expected = (-np.log(clean[np.arange(16), labels]) + 3 * divergence).mean()
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, abs=1e-4)


def _weighted(first, second=None):
    """A batch as it is, with weights of one term or of two."""
    columns = first if second is None else np.stack([first, second], axis=1)
    return lambda images, labels, seed: (images, labels, tf.constant(columns, tf.float32))


def test_the_two_terms_of_trades_have_weights_of_their_own(networks, some):
    clean_weights, weights = np.linspace(0, 2, 16), np.linspace(3, 0, 16)
    trainer = _trainer(
        networks,
        trades_beta=3.0,
        attack=InnerMaximization(steps=3, start="normal"),
        build_batch=_weighted(clean_weights, weights),
    )
    images, labels = _first_batch(some)
    adversarial = trainer._adversarial_examples(tf.constant(images), tf.constant(labels)).numpy()
    copy = keras.models.clone_model(trainer.classifier)
    copy.set_weights(trainer.classifier.get_weights())
    attacked = tf.nn.softmax(copy(adversarial, training=True)).numpy()
    clean = tf.nn.softmax(copy(images, training=True)).numpy()
    divergence = (clean * (np.log(clean) - np.log(attacked))).sum(axis=1)
    cross_entropy = -np.log(clean[np.arange(16), labels])
    expected = (clean_weights * cross_entropy + 3 * weights * divergence).mean()
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected, abs=1e-4)
    right = clean.argmax(-1) == labels
    assert float(logs["accuracy"]) == pytest.approx(np.average(right, weights=clean_weights))


@pytest.mark.parametrize("options", [{}, {"clean_weight": 0.3}])
def test_rows_of_weight_zero_teach_adversarial_training_nothing(networks, some, options, weights):
    """As if they were not there, but for the mean, which is over all rows."""
    images, labels = _first_batch(some)
    half = np.repeat([2.0, 0.0], 8)
    found = []
    for build_batch, rows in ((_weighted(half, np.full(16, 9.0)), 16), (None, 8)):
        trainer = _trainer(
            networks, build_batch=build_batch, attack=InnerMaximization(start="none"), **options
        )
        # Batch normalisation would mix the rows.
        trainer.classifier = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
        )
        start = [np.sin(np.arange(640.0)).reshape(64, 10), np.zeros(10)]
        trainer.classifier.set_weights(start)
        trainer.compile(keras.optimizers.SGD(0.1))
        logs = trainer.train_on_batch(images[:rows], labels[:rows], return_dict=True)
        found.append((weights(trainer.classifier), {k: float(v) for k, v in logs.items()}))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    assert np.abs(found[0][0][0] - start[0]).max() > 1e-3


def test_the_attack_of_trades_raises_the_divergence(networks, some):
    trainer = _trainer(
        networks,
        trades_beta=1.0,
        attack=InnerMaximization(steps=10, start="normal"),
    )
    images, labels = _first_batch(some)
    found = trainer._adversarial_examples(tf.constant(images), tf.constant(labels))
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, images.shape).astype(np.float32)

    def divergence(x):
        clean = trainer.classifier(images, training=False)
        return losses.kl_divergence(clean, trainer.classifier(x, training=False)).numpy().mean()

    assert divergence(found) > 3 * divergence(np.clip(images + noise, 0, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"trades_beta": 2.0, "attack": InnerMaximization(steps=2, start="normal")},
        {"ema_decay": 0.9, "clean_weight": 0.5},
    ],
)
def test_two_replicas_train_like_one(networks, some, two_replicas, weights, options):
    found = []
    for chosen in (None, two_replicas):
        with distribute.scope(chosen):
            trainer = _trainer(networks, ramp_steps=3, **options)
        logs = fit(trainer, some, epochs=2, batch_size=16, seed=0, validation=some.take(33, seed=1))
        found.append((weights(trainer.eval_model), logs))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_resumed_training_is_the_uninterrupted_one(networks, some, weights, tmp_path):
    def trained(folder, epochs, resume=False):
        trainer = _trainer(networks, ramp_steps=6, ema_decay=0.9)
        best = BestWeights("val_robust_accuracy")
        fit(
            trainer,
            some,
            epochs=epochs,
            batch_size=16,
            seed=0,
            validation=some,
            directory=folder,
            resume=resume,
            callbacks=[best],
        )
        return trainer, best

    whole, best = trained(tmp_path / "whole", 4)
    trained(tmp_path / "parts", 2)
    resumed, best_again = trained(tmp_path / "parts", 4, resume=True)
    for one, other in zip(weights(whole.eval_model), weights(resumed.eval_model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert (best.best, best.epoch) == (best_again.best, best_again.epoch)


def test_the_average_follows_the_weights(networks, some):
    trainer = _trainer(networks, ema_decay=0.9)
    mean = [np.array(w) for w in trainer.ema_model.get_weights()]
    images, labels = _first_batch(some)
    for step in range(1, 4):
        trainer.train_on_batch(images, labels)
        decay = min(0.9, step / (step + 10))
        mean = [
            decay * m + (1 - decay) * w
            for m, w in zip(mean, trainer.classifier.get_weights(), strict=True)
        ]
    for one, other in zip(mean, trainer.ema_model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert trainer.eval_model is trainer.ema_model


def test_the_average_of_a_network_with_adapted_statistics(some):
    """Integers among its weights, such as the count of a Normalization layer, have no average."""
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(some.scaled())
    layers = [keras.Input((8, 8, 1)), normalization, keras.layers.Flatten(), keras.layers.Dense(10)]
    trainer = AdversarialTrainer(
        keras.Sequential(layers), eps=0.1, attack=InnerMaximization(steps=2), ema_decay=0.9
    )
    trainer.compile(keras.optimizers.SGD(0.1))
    trainer.train_on_batch(*_first_batch(some))
    mean = trainer.ema_model.layers[0]
    np.testing.assert_array_equal(mean(some.scaled()), normalization(some.scaled()))
    for one, other in zip(mean.weights, normalization.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


class _Logs:
    """A model whose weights are one number, and epochs with given values."""

    def __init__(self, before=None):
        self.eval_model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
        )
        self.callback = BestWeights("val_robust_accuracy")
        if before is not None:
            self.callback.take(read_arrays(before))
        self.callback.set_model(self)

    def run(self, *values, start=0):
        for epoch, value in enumerate(values, start):
            self.eval_model.set_weights([np.float32([[epoch]])])
            self.callback.on_epoch_end(epoch, {"val_robust_accuracy": value})
        self.callback.restore(self.eval_model)
        return float(self.eval_model.get_weights()[0][0, 0])


def test_the_best_epoch_is_restored_and_of_equal_ones_the_later(tmp_path):
    assert _Logs().run(0.1, 0.5, 0.3) == 1
    assert _Logs().run(0.1, 0.5, 0.5, 0.2) == 2
    first, file = _Logs(), tmp_path / "best.npz"
    first.callback.write(file)
    assert _Logs(file).callback.best is None  # of no epoch yet
    assert first.run(0.1, 0.5) == 1
    first.callback.write(file)
    assert _Logs(file).run(0.4, 0.2, start=2) == 1  # a resume knows of the better epoch
    assert _Logs(file).run(0.6, start=4) == 4
