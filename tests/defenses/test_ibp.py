"""Interval bound propagation as a defence: its loss by hand, replicas, what it certifies."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.attacks import PGD
from bcgan_tf.certification.certified import certified, certified_accuracy, worst_margins
from bcgan_tf.data import load_dataset
from bcgan_tf.defenses.ibp import BoundaryIBPTraining, IBPTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import mlp, strided_cnn
from bcgan_tf.networks.ibp_initialization import reset_for_ibp
from bcgan_tf.training.fit import fit
from bcgan_tf.training.ibp_trainer import IBPTrainer
from bcgan_tf.training.inner_maximization import InnerMaximization
from helpers.small_networks import small_classifier


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def network(seed=0):
    return strided_cnn((8, 8, 1), 10, width=0.5, seed=seed)


def trainer(chosen=None, build=network, **options):
    options = {"eps": 0.1, "training_eps": 0.12, "kappa": 0.4, "ramp_steps": 4, **options}
    with distribute.scope(chosen):
        made = IBPTrainer(build(), **options)
        made.compile(keras.optimizers.SGD(0.1))
    return made


def test_kappa_and_eps_move_together_after_the_warmup():
    made = trainer(warmup_steps=2)
    found = []
    for step in (0, 2, 3, 4, 6, 9):
        made.optimizer.iterations.assign(step)
        found.append((float(made.current_eps()), float(made.current_kappa())))
    expected = [(0, 1), (0, 1), (0.03, 0.85), (0.06, 0.7), (0.12, 0.4), (0.12, 0.4)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_loss_by_hand_with_weights_of_each_term(digits):
    images, labels = digits.train.scaled(0, 12), digits.train.labels[:12]
    first, second = np.linspace(0, 2, 12), np.linspace(1, 0, 12)
    columns = tf.constant(np.stack([first, second], axis=1), tf.float32)
    made = trainer(build_batch=lambda x, y, seed: (x, y, columns))
    made.optimizer.iterations.assign(2)  # half-way: eps 0.06, kappa 0.7
    low, high = np.maximum(images - 0.06, 0), np.minimum(images + 0.06, 1)
    margins = worst_margins(made.classifier, tf.constant(low), tf.constant(high), labels)

    def cross_entropy(logits):
        return -tf.nn.log_softmax(logits).numpy()[np.arange(12), labels]

    logits = made.classifier(images)
    expected = 0.7 * first * cross_entropy(logits) + 0.3 * second * cross_entropy(margins)
    logs = made.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(expected.mean(), abs=1e-4)
    assert set(logs) == {"loss", "accuracy", "certified_accuracy"}


def test_with_an_attack_the_first_term_is_at_adversarial_examples(digits):
    images, labels = digits.train.scaled(0, 12), digits.train.labels[:12]
    made = trainer(attack=InnerMaximization(steps=1, step_ratio=1.0, start="none"))
    made.optimizer.iterations.assign(2)  # half-way: eps 0.06, kappa 0.7

    def cross_entropy(logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = cross_entropy(made.classifier(x))
    fgsm = np.clip(images + np.float32(0.06) * np.sign(tape.gradient(loss, x)), 0, 1)
    low, high = np.maximum(images - 0.06, 0), np.minimum(images + 0.06, 1)
    margins = worst_margins(made.classifier, tf.constant(low), tf.constant(high), labels)
    logits = made.classifier(fgsm)
    expected = 0.7 * cross_entropy(logits) + 0.3 * cross_entropy(margins)
    right = np.mean(np.argmax(logits, -1) == labels)
    logs = made.train_on_batch(images, labels, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(np.mean(expected), abs=1e-4)
    assert float(logs["robust_accuracy"]) == pytest.approx(right)
    assert set(logs) == {"loss", "robust_accuracy", "certified_accuracy"}


def test_two_replicas_train_like_one(digits, two_replicas):
    found = []
    for chosen in (None, two_replicas):
        made = trainer(chosen, lambda: small_classifier(dropout=0), ema_decay=0.9)
        logs = fit(
            made,
            digits.train.take(64),
            epochs=2,
            batch_size=16,
            seed=0,
            validation=digits.validation.take(33),
        )
        found.append(([np.array(w.numpy()) for w in made.eval_model.weights], logs))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_ibp_certifies_what_plain_training_does_not_and_attacks_agree(digits, tmp_path):
    eps = 0.1
    defense = IBPTraining(
        eps=eps, epochs=18, batch_size=32, ramp_epochs=8, warmup_epochs=1, learning_rate=4e-3
    )
    hardened = defense.harden(network(), digits, directory=tmp_path)
    images, labels = digits.test.scaled(0, 150), digits.test.labels[:150]
    proved = certified(hardened, images, labels, eps)
    found = PGD(eps, steps=40)(hardened, images, labels)
    assert (proved <= found.robust).all()
    assert 0.5 < proved.mean() <= found.robust_accuracy <= found.clean_accuracy
    assert found.clean_accuracy > 0.85
    again = defense.harden(network(), digits, directory=tmp_path, resume=True)
    for one, other in zip(hardened.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_log_shows_clean_certified_and_attacked_accuracy_in_order(digits):
    rows = []

    class Rows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rows.append(dict(logs))

    small = dataclasses.replace(digits, train=digits.train.take(320))
    defense = IBPTraining(
        eps=0.05, epochs=6, batch_size=32, ramp_epochs=2, validation_samples=100, learning_rate=5e-3
    )
    hardened = defense.harden(network(), small, callbacks=lambda stage: [Rows()])
    for row in rows:
        assert (
            0 <= row["val_certified_accuracy"] <= row["val_robust_accuracy"] <= row["val_accuracy"]
        )
    best = max(row["val_certified_accuracy"] for row in rows)
    validation = small.validation.take(100, seed=0)
    found = certified_accuracy(hardened, validation.scaled(), validation.labels, 0.05)
    assert found == pytest.approx(best, abs=1e-6) and best > 0.1


def test_boundary_samples_count_in_the_robust_term_alone():
    defense = BoundaryIBPTraining()
    assert defense.monitor == "val_certified_accuracy" and not defense.extra_in_clean_term


def test_initial_weights_keep_the_width_of_bounds():
    """E|w| n = 2 for N(0, 2 pi / n^2), and half of the units pass: the width stays."""
    image = keras.Input((40, 40, 6))
    apart = keras.layers.SeparableConv2D(400, 5, depth_multiplier=4)
    deep = keras.Model(image, apart(keras.layers.DepthwiseConv2D(5, depth_multiplier=40)(image)))
    reset_for_ibp(deep, seed=3)
    drawn = (deep.layers[1].kernel, apart.depthwise_kernel, apart.pointwise_kernel)
    for kernel, inputs in zip(drawn, (25, 25, 960), strict=True):
        assert np.std(kernel) == pytest.approx(np.sqrt(2 * np.pi) / inputs, rel=0.03)
    model = mlp(400, 10, hidden=(600, 600), seed=0)
    reset_for_ibp(model, seed=3)
    kernels = [layer.kernel.numpy() for layer in model.layers[1:]]
    for kernel in kernels:
        inputs = kernel.shape[0]
        assert np.abs(kernel).sum(0).mean() == pytest.approx(2.0, rel=0.03)
        assert kernel.std() == pytest.approx(np.sqrt(2 * np.pi) / inputs, rel=0.02)
    assert all((layer.bias.numpy() == 0).all() for layer in model.layers[1:])
    other = mlp(400, 10, hidden=(600, 600), seed=1)
    reset_for_ibp(other, seed=3)
    np.testing.assert_array_equal(kernels[0], other.layers[1].kernel)


def test_initial_weights_of_batch_normalisation_are_the_identity():
    image = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    inner = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model = keras.Sequential([keras.Input((8, 8, 1)), inner])
    for weight in model.weights:
        weight.assign(weight + 3.0)
    reset_for_ibp(model, seed=0)
    norm = inner.layers[2]
    assert [float(np.mean(v)) for v in norm.get_weights()] == [1.0, 0.0, 0.0, 1.0]
    assert inner.layers[1].kernel.numpy().std() == pytest.approx(np.sqrt(2 * np.pi) / 9, rel=0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IBPTraining(eps_ratio=0.5), r"eps_ratio is 0\.5"),
        (lambda: IBPTraining(eps=0.5, eps_ratio=3), "at most 2"),
        (lambda: IBPTraining(epochs=8), "eps rises until epoch 13 of 8; choose more epochs"),
        (lambda: IBPTraining(kappa=1), "kappa is 1"),
        (lambda: IBPTraining(dtype="mixed_bfloat16"), "computed in float32: leave it out"),
        (lambda: IBPTraining(attack_steps=-1), "attack_steps is -1; choose a whole number from 0"),
        (lambda: IBPTraining(start="random"), "start is 'random'; choose ibp or given"),
        (lambda: BoundaryIBPTraining(fakes="x"), "fakes is 'x'"),
    ],
)
def test_impossible_settings(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_a_classifier_without_bounds_is_refused_at_once(digits):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2DTranspose(2, 3, name="wide")(image)
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    for defense in (IBPTraining(), BoundaryIBPTraining()):  # no GAN is trained first
        message = "Conv2DTranspose 'wide' has no interval bounds here; replace .* such as pgd-at"
        with pytest.raises(UserError, match=message):
            defense.harden(model, digits)
