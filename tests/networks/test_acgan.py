"""The GAN's two networks: shapes, sizes counted by hand, ranges, seeds, precision."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.infogan import infogan_discriminator, infogan_generator
from bcgan_tf.networks.layers import ResumableDropout
from bcgan_tf.networks.oracle import oracle

SHAPES = [(28, 28, 1), (32, 32, 3), (8, 8, 1), (2,), (20, 24, 3), (21, 27, 3), (7, 9, 1)]


def inputs(latent_dim, rows=3):
    noise = np.random.default_rng(0).normal(0, 3, (rows, latent_dim)).astype(np.float32)
    return [noise, np.arange(rows, dtype=np.int32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_range(shape):
    generator = acgan_generator(shape, 4, latent_dim=5, width=0.1)
    images = generator(inputs(5)).numpy()
    assert images.shape == (3, *shape)
    assert generator.output_shape == (None, *shape)
    assert images.dtype == np.float32
    if len(shape) == 3:
        assert images.min() >= 0
        assert images.max() <= 1
    found = acgan_discriminator(shape, 4, width=0.1)(images)
    assert {name: value.shape for name, value in found.items()} == {"source": (3,), "label": (3, 4)}
    assert all(value.dtype == "float32" for value in found.values())
    assert oracle(shape, 4)(images).shape == (3, 4)


def test_extreme_noise_stays_in_the_unit_range():
    generator = acgan_generator((8, 8, 1), 4, latent_dim=5, width=0.1)
    noise, label = inputs(5)
    images = generator([1e6 * noise, label]).numpy()
    assert images.min() == 0
    assert images.max() == 1


def test_the_generator_of_mnist_counted_by_hand():
    model = acgan_generator((28, 28, 1), 10, latent_dim=100)
    # 28 = 7 * 2 * 2: dense to 7x7x192, one hidden upsampling to 96, one to the image
    project = 101 * 7 * 7 * 192
    hidden = 25 * 192 * 96 + 4 * 96
    assert model.count_params() == 10 * 100 + project + hidden + (25 * 96 * 1 + 1)


def test_the_discriminator_of_cifar10_counted_by_hand():
    model = acgan_discriminator((32, 32, 3), 10)
    channels = (3, 16, 32, 64, 128, 256, 512)
    convolutions = sum((9 * below + 1) * above for below, above in itertools.pairwise(channels))
    # strides 2, 1, 2, 1, 2, 1: 4x4x512 at the heads; every dropout has its counter
    assert model.count_params() == convolutions + (4 * 4 * 512 + 1) * (1 + 10) + 6


def test_the_vector_networks_counted_by_hand():
    generator = acgan_generator((2,), 4, latent_dim=5)
    hidden = 2 * (128 * 128 + 128)
    assert generator.count_params() == (5 + 4 + 1) * 128 + hidden + 129 * 2
    assert acgan_discriminator((2,), 4).count_params() == 3 * 128 + hidden + 129 * (1 + 4)


@pytest.mark.parametrize("shape", [(8, 8, 1), (2,)])
@pytest.mark.parametrize("build", [acgan_generator, acgan_discriminator])
def test_the_seed_decides_every_weight(build, shape):
    first, same, other = (build(shape, 3, width=0.1, seed=seed).get_weights() for seed in (1, 1, 2))
    for one, two in zip(first, same, strict=True):
        np.testing.assert_array_equal(one, two)
    different = [(one != two).any() for one, two in zip(first, other, strict=True)]
    drawn = [np.unique(weight).size > 1 for weight in first]
    assert different == drawn  # all but constants: biases, batch norm, counters


def test_generator_and_discriminator_depend_on_the_class():
    generator = acgan_generator((8, 8, 1), 3, latent_dim=5, width=0.1)
    noise = np.ones((3, 5), np.float32)
    images = generator([noise, np.arange(3)]).numpy()
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


def test_every_batch_norm_is_synchronised():
    models = (
        acgan_generator((32, 32, 3), 3, width=0.05),
        acgan_discriminator((8, 8, 1), 3, width=0.1),
        oracle((8, 8, 1), 3),
    )
    counts = []
    for model in models:
        norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
        assert all(norm.synchronized for norm in norms)
        counts.append(len(norms))
    assert counts == [2, 0, 4]


def test_the_options_of_the_discriminator():
    plain = acgan_discriminator((8, 8, 1), 3, width=0.1, dropout=0)
    assert not any(isinstance(layer, ResumableDropout) for layer in plain.layers)
    normal = acgan_discriminator((8, 8, 1), 3, width=0.1)
    dropouts = [v for v in normal.layers if isinstance(v, ResumableDropout)]
    assert len({layer.seed for layer in dropouts}) == 6
    assert acgan_discriminator((8, 8, 1), 3, width=0.001).count_params() > 0
    assert acgan_generator((8, 8, 1), 3, width=0.001).output_shape == (None, 8, 8, 1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (2,)])
def test_bfloat16_inside_and_float32_at_the_ends(shape):
    options = {"width": 0.2, "seed": 1}
    mixed, plain = (
        acgan_discriminator(shape, 3, dtype=dtype, dropout=0, **options)
        for dtype in ("mixed_bfloat16", None)
    )
    images = np.random.default_rng(0).random((4, *shape), np.float32)
    found, expected = mixed(images), plain(images)
    for name in ("source", "label"):
        assert found[name].dtype == "float32"
        assert 0 < np.abs(found[name] - expected[name]).max() < 0.1, name
    mixed = acgan_generator(shape, 3, latent_dim=5, dtype="mixed_bfloat16", **options)
    plain = acgan_generator(shape, 3, latent_dim=5, **options)
    assert mixed(inputs(5)).dtype == "float32"
    assert 0 < np.abs(mixed(inputs(5)) - plain(inputs(5))).max() < 0.1
    assert all(weight.dtype == "float32" for weight in mixed.weights)


def test_the_oracle_has_no_large_dense_layer():
    model = oracle((28, 28, 1), 10)
    convolutions = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    norms = 4 * (32 + 32 + 64 + 64)
    assert model.count_params() == convolutions + norms + 65 * 10


def test_the_networks_of_infogan():
    """InfoGAN's sizes on MNIST, counted by hand; a class beside the noise changes the image."""
    # Names that Keras gives begin anew, as in a new process: none may be one of ours.
    keras.backend.clear_session()
    generator = infogan_generator((28, 28, 1), 10, latent_dim=100)
    hidden, project = 111 * 1024 + 4 * 1024, 1025 * 6272 + 4 * 6272
    up, image = 64 * (16 * 128 + 1) + 4 * 64, 16 * 64 + 1
    assert generator.count_params() == hidden + project + up + image
    discriminator = infogan_discriminator((28, 28, 1), 10)
    convolutions = 64 * 17 + 128 * (16 * 64 + 1) + 4 * 128
    assert discriminator.count_params() == convolutions + 6273 * 1024 + 4 * 1024 + 1025 * 11

    images = infogan_generator((8, 12, 3), 4, latent_dim=5, width=0.1)(inputs(5)).numpy()
    assert images.shape == (3, 8, 12, 3) and images.min() >= 0 and images.max() <= 1
    noise, labels = inputs(5)
    small = infogan_generator((8, 8, 1), 4, latent_dim=5, width=0.1)
    assert np.abs(small([noise, labels]) - small([noise, (labels + 1) % 4])).max() > 1e-6
    found = infogan_discriminator((8, 12, 3), 4, width=0.1)(images)
    assert {name: value.shape for name, value in found.items()} == {"source": (3,), "label": (3, 4)}
    with pytest.raises(UserError, match="multiples of 4, not 10x8"):
        infogan_generator((10, 8, 1), 4)
