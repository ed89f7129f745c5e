"""What ACGAN and BCGAN do in training: beta, the frozen classifier, logs, generation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.models import ACGAN, BCGAN
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.classifiers import small_cnn

KEYS = ["discriminator_loss", "generator_loss", "real_accuracy", "fake_accuracy"]
BOUNDARY_KEYS = [*KEYS, "kl_to_uniform", "classifier_confidence"]


def batches(some, size=16):
    examples = tf.data.Dataset.from_tensor_slices((some.scaled(), some.labels))
    return examples.batch(size, drop_remainder=True)


def trained(gan, some, epochs=1, size=16):
    history = gan.fit(batches(some, size), epochs=epochs, verbose=0, shuffle=False)
    return history.history


def test_training_changes_all_but_the_frozen_classifier(make_gan, some, weights):
    gan = make_gan(beta=3.0)
    norm = next(v for v in gan.generator.layers if isinstance(v, keras.layers.BatchNormalization))
    before, start, mean = weights(gan.classifier), weights(gan.generator), norm.moving_mean.numpy()
    assert len(gan.classifier.non_trainable_weights) == 3  # batch norm's two, dropout's counter
    assert [metric.name for metric in gan.metrics] == BOUNDARY_KEYS
    history = trained(gan, some, epochs=2)
    for one, other in zip(before, weights(gan.classifier), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all((a != b).any() for a, b in zip(start, weights(gan.generator), strict=True))
    assert np.abs(norm.moving_mean.numpy() - mean).max() > 1e-3
    assert [int(v.iterations) for v in gan.optimizers] == [8, 8]
    # The logs have the same keys every epoch.
    assert sorted(history) == sorted(BOUNDARY_KEYS)
    assert all(len(values) == 2 and np.isfinite(values).all() for values in history.values())


def test_beta_zero_is_the_acgan_bit_for_bit(make_gan, some, weights):
    plain, boundary = make_gan(ACGAN), make_gan(BCGAN, beta=0.0)
    logs, boundary_logs = trained(plain, some, 2), trained(boundary, some, 2)
    for part in ("generator", "discriminator"):
        pairs = zip(weights(getattr(plain, part)), weights(getattr(boundary, part)), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)
    assert {key: boundary_logs[key] for key in KEYS} == logs


def test_beta_lowers_the_classifiers_confidence(make_gan, some):
    found = {}
    for beta in (0.0, 20.0):
        gan = make_gan(beta=beta, dropout=0)
        sharp = gan.classifier.layers[-1]
        sharp.set_weights([6 * sharp.get_weights()[0], sharp.get_weights()[1]])
        found[beta] = trained(gan, some, 12)["kl_to_uniform"]
    assert found[0.0][0] > 0.3
    assert found[20.0][-1] < 0.5 * found[0.0][-1]


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("uniform", lambda z, c: losses.kl_to_uniform(z)),
        ("top2", losses.kl_uniform_top2),
    ],
)
def test_the_generators_loss_is_the_acgans_plus_the_chosen_boundary_term(
    make_gan, some, kind, loss
):
    gan = make_gan(beta=0.7, boundary_loss=kind, dropout=0)
    images, labels = some.scaled(0, 16), tf.constant(some.labels[:16])
    terms = loss(gan.classifier(images, training=False), labels)
    assert np.ptp(terms) > 0.1
    plain = make_gan(ACGAN, dropout=0).generator_loss(images, labels, tf.constant(0))
    found = gan.generator_loss(images, labels, tf.constant(0))
    np.testing.assert_allclose(found, plain + 0.7 * terms, atol=1e-5)


def test_an_unknown_boundary_loss(make_gan):
    with pytest.raises(ValueError, match="boundary_loss is 'top3'; choose uniform or top2"):
        make_gan(boundary_loss="top3")


@pytest.mark.parametrize(
    ("delay", "warmup", "expected"),
    [
        (0, 0, [2, 2, 2, 2, 2, 2]),
        (2, 0, [0, 0, 2, 2, 2, 2]),
        (0, 4, [0, 0.5, 1, 1.5, 2, 2]),
        (1, 2, [0, 0, 1, 2, 2, 2]),
    ],
)
def test_the_schedule_of_beta(make_gan, delay, warmup, expected):
    gan = make_gan(beta=2.0, delay_steps=delay, warmup_steps=warmup)
    found = [float(gan.current_beta(tf.constant(step))) for step in range(6)]
    assert found == expected
    assert all(gan.current_beta(tf.constant(step, tf.int64)).dtype == tf.float32 for step in (0, 9))


def test_before_the_delay_is_over_the_update_is_the_acgans(make_gan, some, weights):
    plain, late = make_gan(ACGAN), make_gan(beta=5.0, delay_steps=4, warmup_steps=4)
    trained(plain, some)
    trained(late, some)
    for one, other in zip(weights(plain.generator), weights(late.generator), strict=True):
        np.testing.assert_array_equal(one, other)
    trained(plain, some)
    trained(late, some)
    assert (weights(plain.generator)[0] != weights(late.generator)[0]).any()


def test_a_negative_beta(make_gan):
    with pytest.raises(ValueError, match=r"beta is -0\.1; choose a number from 0"):
        make_gan(beta=-0.1)


def test_the_names_of_the_logs(make_gan):
    assert [metric.name for metric in make_gan(ACGAN).metrics] == KEYS
    names = [metric.name for metric in make_gan(BCGAN, boundary_loss="top2").metrics]
    assert names == [*KEYS, "kl_uniform_top2", "classifier_confidence"]


def test_the_logs_are_means_over_the_epoch(make_gan, some):
    """One epoch of four batches against the four logs of each batch alone."""
    together = trained(make_gan(), some)
    single = make_gan()
    logs = []
    for start in range(0, 64, 16):
        part = (some.scaled(start, start + 16), some.labels[start : start + 16])
        batch = tf.data.Dataset.from_tensors(part)
        logs.append(single.fit(batch, verbose=0, shuffle=False).history)
    for key in BOUNDARY_KEYS:
        values = [log[key][0] for log in logs]
        np.testing.assert_allclose(together[key][0], np.mean(values), rtol=1e-5)
    losses = [log["discriminator_loss"][0] for log in logs]
    assert abs(losses[-1] - np.mean(losses)) > 1e-3  # the last batch alone would show


def test_batches_of_unknown_size_are_refused(make_gan, some):
    # A short last batch makes the size unknown.
    short = tf.data.Dataset.from_tensor_slices((some.scaled(0, 40), some.labels[:40])).batch(16)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        make_gan().fit(short.repeat(), steps_per_epoch=3, verbose=0)


def test_what_is_generated(make_gan):
    gan = make_gan()
    labels = np.arange(37) % 10
    images = gan.generate(labels, seed=5)
    assert images.shape == (37, 8, 8, 1)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert gan.generate([], seed=5).shape == (0, 8, 8, 1)


def test_an_image_depends_on_its_place_seed_and_class_alone(make_gan):
    gan = make_gan()
    labels = np.arange(37) % 10
    images = gan.generate(labels, seed=5)
    np.testing.assert_allclose(gan.generate(labels, seed=5, batch_size=4), images, atol=1e-6)
    np.testing.assert_allclose(gan.generate(labels[:9], seed=5), images[:9], atol=1e-6)
    changed = labels.copy()
    changed[0] = 5
    others = gan.generate(changed, seed=5)
    np.testing.assert_allclose(others[1:], images[1:], atol=1e-6)
    assert np.abs(others[0] - images[0]).max() > 1e-4
    assert np.abs(gan.generate(labels, seed=6) - images).max() > 1e-2
    assert np.abs(make_gan(seed=4).generate(labels, seed=5) - images).max() > 1e-2


def test_generation_changes_nothing(make_gan, weights):
    gan = make_gan()
    before = weights(gan)
    gan.generate(np.arange(10))
    for one, other in zip(before, weights(gan), strict=True):
        np.testing.assert_array_equal(one, other)


def test_real_networks_in_bfloat16(some):
    """The package's own networks: float32 images, logits, weights, losses."""
    gan = BCGAN(
        acgan_generator((8, 8, 1), 10, latent_dim=6, width=0.1, dtype="mixed_bfloat16"),
        acgan_discriminator((8, 8, 1), 10, width=0.1, dtype="mixed_bfloat16"),
        classifier=small_cnn((8, 8, 1), 10, seed=0, dtype="mixed_bfloat16"),
        beta=0.5,
        num_classes=10,
    )
    gan.compile()
    history = trained(gan, some)
    assert sorted(history) == sorted(BOUNDARY_KEYS)
    assert all(np.isfinite(values).all() for values in history.values())
    assert gan.generator.outputs[0].dtype == "float32"
    assert all(output.dtype == "float32" for output in gan.discriminator.outputs)
    assert all(weight.dtype in ("float32", "int32") for weight in gan.weights)
    assert gan.generate(np.arange(3)).dtype == np.float32


def test_default_optimizers_are_odenas():
    gan = ACGAN(
        acgan_generator((2,), 2, latent_dim=2, width=0.1),
        acgan_discriminator((2,), 2, width=0.1),
        num_classes=2,
    )
    gan.compile()
    for optimizer in gan.optimizers:
        assert float(optimizer.learning_rate) == np.float32(2e-4)
        assert optimizer.beta_1 == 0.5
        assert optimizer.built
    assert gan.optimizer is None  # no RMSprop that nobody asked for
