"""Two replicas train like one on the same global batch: every part, not only plain SGD."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from bcgan_tf import distribute
from bcgan_tf.models import BCGAN
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fit import fit


def gradient_descent():
    return keras.optimizers.SGD(0.1)


def trained(make_gan, some, chosen, **options):
    gan = make_gan(BCGAN, chosen, optimizer=gradient_descent, dropout=0, **options)
    return gan, fit(gan, some, epochs=2, batch_size=16, seed=0)


def assert_equal(one, other, weights, **tolerance):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("options", [{}, {"boundary_loss": "top2"}])
def test_a_boundary_gan(make_gan, some, two_replicas, weights, options):
    """Weights, batch norm's moving statistics and the logs."""
    one, logs = trained(make_gan, some, None, **options)
    two, other_logs = trained(make_gan, some, two_replicas, **options)
    assert_equal(one.classifier, two.classifier, weights)  # frozen, its statistics too
    assert_equal(one.generator, two.generator, weights, atol=2e-6)
    assert_equal(one.discriminator, two.discriminator, weights, atol=2e-6)
    for log, other in zip(logs, other_logs, strict=True):
        assert log == pytest.approx(other, abs=1e-5)


def test_a_classifier_with_batch_norm(networks, digits, some, two_replicas, weights):
    """And its validation, whose last batch has fewer rows than replicas."""
    found = {}
    for chosen in (None, two_replicas):
        with distribute.scope(chosen):
            trainer = ClassifierTrainer(networks["classifier"](dropout=0))
            trainer.compile(gradient_descent())
        validation = digits.train.take(501, seed=1)
        logs = fit(trainer, some, epochs=2, batch_size=16, seed=0, validation=validation)
        found[chosen] = trainer.classifier, logs
    (one, logs), (two, other_logs) = found.values()
    norm = next(v for v in one.layers if isinstance(v, keras.layers.BatchNormalization))
    assert np.abs(norm.moving_mean.numpy()).max() > 0.05
    assert_equal(one, two, weights, atol=2e-6)
    for log, other in zip(logs, other_logs, strict=True):
        assert set(log) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
        assert log == pytest.approx(other, abs=1e-5)


def test_an_indivisible_batch_is_refused(make_gan, some, two_replicas):
    gan = make_gan(BCGAN, two_replicas)
    with pytest.raises(ValueError, match="15 is for all 2 devices together"):
        fit(gan, some, epochs=1, batch_size=15, seed=0)


def test_adam_with_the_default_collectives_in_a_process_of_its_own():
    """What a user's own strategy does: optimizers built too late would crash here."""
    script = """
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras, numpy as np
    from bcgan_tf.models import BCGAN
    from bcgan_tf.training.classifier_trainer import ClassifierTrainer
    from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
    from bcgan_tf.networks.classifiers import mlp
    x = np.random.default_rng(0).normal(size=(32, 2)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(32) % 3)).batch(8, drop_remainder=True)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        trainer = ClassifierTrainer(mlp(2, 3, hidden=(8,), seed=0))
        trainer.compile(keras.optimizers.Adam(0.01))
        gan = BCGAN(
            acgan_generator((2,), 3, latent_dim=4, width=0.1),
            acgan_discriminator((2,), 3, width=0.1),
            classifier=trainer.classifier, beta=1.0, num_classes=3)
        gan.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01))
    for model, optimizers in ((trainer, trainer.optimizers), (gan, gan.optimizers)):
        history = model.fit(data, epochs=2, verbose=0, shuffle=False).history
        assert all(np.isfinite(values).all() for values in history.values()), history
        assert [int(o.iterations.numpy()) for o in optimizers] == [8] * len(optimizers)
    for weight in (*gan.generator.weights, *trainer.classifier.weights):
        parts = [v.numpy() for v in weight.value.values]
        assert len(parts) == 2
        np.testing.assert_array_equal(parts[0], parts[1])
    print("the replicas agree")
    """
    result = subprocess.run(
        [sys.executable, "-c", "import bcgan_tf\n" + textwrap.dedent(script)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "the replicas agree" in result.stdout
