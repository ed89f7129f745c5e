"""The Wasserstein GAN's two networks: shapes, sizes counted by hand, ranges, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.networks.wgan import wgan_critic, wgan_generator

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (21, 27, 3)]


def noise(rows=3, size=5):
    return np.random.default_rng(0).normal(0, 3, (rows, size)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_range(shape):
    generator = wgan_generator(shape, latent_dim=5, width=0.05)
    images = generator(noise()).numpy()
    assert images.shape == (3, *shape) and generator.output_shape == (None, *shape)
    assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    scores = wgan_critic(shape, width=0.05)(images)
    assert scores.shape == (3,) and scores.dtype == "float32"


def test_the_generator_of_mnist_counted_by_hand():
    model = wgan_generator((28, 28, 1))
    project = (128 + 1) * 4 * 4 * 256
    first, second = (25 * 256 + 1) * 128, (25 * 128 + 1) * 64
    assert model.count_params() == project + first + second + (25 * 64 + 1)
    # 4 doubles to 8, of which 7 remain; then 14 and 28.
    assert model.get_layer("crop_1").output.shape == (None, 7, 7, 128)
    assert model.get_layer("up_2").output.shape == (None, 14, 14, 64)


def test_the_critic_of_mnist_counted_by_hand():
    model = wgan_critic((28, 28, 1))
    convolutions = (25 * 1 + 1) * 64 + (25 * 64 + 1) * 128 + (25 * 128 + 1) * 256
    assert model.count_params() == convolutions + 4 * 4 * 256 + 1


def test_width_scales_the_channels():
    model = wgan_generator((32, 32, 3), latent_dim=10, width=0.25)
    assert model.get_layer("up_1").filters == 32 and model.get_layer("up_2").filters == 16
    assert model.get_layer("output").filters == 3
    assert wgan_critic((32, 32, 3), width=0.25).get_layer("conv_2").filters == 64


def test_a_score_depends_on_its_own_image_alone():
    critic = wgan_critic((8, 8, 1), width=0.1)
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    changed = np.concatenate([images[:1], 1 - images[1:]])
    one, other = critic(images, training=True), critic(changed, training=True)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    assert np.abs(one[1:] - other[1:]).min() > 1e-4


@pytest.mark.parametrize("build", [wgan_generator, wgan_critic])
def test_the_seed_decides_the_weights(build):
    first, again, other = (build((8, 8, 1), width=0.1, seed=seed) for seed in (1, 1, 2))
    for one, two, three in zip(first.weights, again.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)
        assert "bias" in one.path or np.abs(one - three).max() > 1e-3
    kernels = [w for w in first.weights if "kernel" in w.path]
    # Uniform with variance 4 / (fan in + fan out) in the convolutions.
    kernel = np.asarray(kernels[1])
    fans = 25 * (kernel.shape[2] + kernel.shape[3])
    assert kernel.var() == pytest.approx(4 / fans, rel=0.1)


@pytest.mark.parametrize("build", [wgan_generator, wgan_critic])
def test_vectors_are_refused(build):
    with pytest.raises(UserError, match="makes images"):
        build((2,))
