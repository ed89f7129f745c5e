"""`.keras` files of the GANs: everything comes back, both optimizers included."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from bcgan_tf.data import training_stream
from bcgan_tf.models import ACGAN, BCGAN


def trained(gan, some, start_epoch=0):
    stream = training_stream(some, batch_size=16, seed=0, start_epoch=start_epoch)
    gan.fit(stream, epochs=2, steps_per_epoch=4, verbose=0, shuffle=False)
    return gan


def load(path):
    with warnings.catch_warnings():
        # "Skipping variable loading for optimizer": the moments would be lost with a mere warning
        warnings.simplefilter("error")
        return keras.models.load_model(path)


OPTIONS = {"beta": 0.7, "delay_steps": 2, "warmup_steps": 5, "boundary_loss": "top2"}
COMMON = {"real_target": 0.8, "seed": 7}


@pytest.mark.parametrize(("kind", "options"), [(ACGAN, {}), (BCGAN, OPTIONS)])
def test_a_gan_comes_back_whole(make_gan, some, tmp_path, weights, kind, options):
    gan = trained(make_gan(kind, **COMMON, **options), some)
    gan.save(tmp_path / "gan.keras")
    loaded = load(tmp_path / "gan.keras")
    assert type(loaded) is kind
    for name, value in {**COMMON, **options, "num_classes": 10, "latent_dim": 4}.items():
        assert getattr(loaded, name) == value, name
    for one, other in zip(weights(gan), weights(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    for mine, theirs in zip(gan.optimizers, loaded.optimizers, strict=True):
        assert mine.get_config() == theirs.get_config()
        assert int(theirs.iterations) == 8
        moments = [np.abs(v.numpy()).max() for v in theirs.variables[2:]]
        assert len(moments) >= 10
        assert min(moments) > 0
        for one, other in zip(mine.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        gan.generate(np.arange(10), seed=2), loaded.generate(np.arange(10), seed=2)
    )


def test_a_loaded_gan_goes_on_like_the_saved_one(make_gan, some, tmp_path, weights):
    gan = trained(make_gan(), some)
    gan.save(tmp_path / "gan.keras")
    loaded = load(tmp_path / "gan.keras")
    trained(gan, some, start_epoch=2)
    trained(loaded, some, start_epoch=2)
    for one, other in zip(weights(gan), weights(loaded), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_generator_alone_is_a_plain_keras_model(make_gan, tmp_path):
    gan = make_gan()
    gan.generator.save(tmp_path / "generator.keras")
    loaded = keras.models.load_model(tmp_path / "generator.keras")
    noise, label = np.ones((3, 4), np.float32), np.arange(3)
    np.testing.assert_array_equal(loaded([noise, label]), gan.generator([noise, label]))


def test_two_different_optimizers_keep_their_places(make_gan, tmp_path):
    gan = make_gan()
    gan.compile(keras.optimizers.SGD(0.1, momentum=0.5), keras.optimizers.RMSprop(0.2))
    gan.save(tmp_path / "gan.keras")
    first, second = load(tmp_path / "gan.keras").optimizers
    assert (type(first).__name__, float(first.learning_rate)) == ("SGD", pytest.approx(0.1))
    assert (type(second).__name__, float(second.learning_rate)) == ("RMSprop", pytest.approx(0.2))
