"""Classifiers: sizes counted by hand, precision, stable names, and files that Keras alone reads."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import CLASSIFIERS, classifier, mlp, resnet18, small_cnn
from bcgan_tf.networks.deep_cnn import deep_cnn
from bcgan_tf.networks.strided_cnn import strided_cnn


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def small_cnn_count(side: int, channels: int, classes: int) -> int:
    convolutions = (25 * channels + 1) * 32 + (25 * 32 + 1) * 64
    return convolutions + ((side // 4) ** 2 * 64 + 1) * classes


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (8, 1), (32, 3)])
def test_small_cnn_has_two_convolutions_and_one_dense_layer(side, channels):
    model = small_cnn((side, side, channels), 10)
    assert model.count_params() == small_cnn_count(side, channels, 10)
    kinds = [type(layer).__name__ for layer in model.layers if layer.weights]
    assert kinds == ["Conv2D", "Conv2D", "Dense"]


def test_the_mnist_network_has_83466_parameters():
    assert small_cnn((28, 28, 1), 10).count_params() == 83_466
    assert classifier("paper_cnn", (28, 28, 1), 10).count_params() == 28_938


def test_strided_cnn_is_the_network_of_fast_adversarial_training():
    model = strided_cnn((28, 28, 1), 10)
    convolutions = (16 + 1) * 16 + (16 * 16 + 1) * 32
    assert model.count_params() == convolutions + (7 * 7 * 32 + 1) * 100 + 101 * 10
    assert strided_cnn((28, 28, 1), 10, width=2).layers[1].filters == 32


def test_what_lies_within_the_threshold_of_black_or_white_changes_nothing():
    """The answers to two images that differ only there are equal to the last bit."""
    model = strided_cnn((8, 8, 1), 10, threshold=0.3, seed=0)
    rng = np.random.default_rng(0)
    pixels = rng.choice([0.0, 0.5, 1.0], (20, 8, 8, 1)).astype(np.float32)
    change = np.where(pixels == 0.5, 0, rng.uniform(-0.2999, 0.2999, pixels.shape)).astype(
        np.float32
    )
    changed = np.clip(pixels + change, 0, 1)
    assert np.abs(changed - pixels).max() > 0.29
    np.testing.assert_array_equal(model(pixels), model(changed))
    assert np.abs(np.asarray(model(pixels)) - np.asarray(model(1 - pixels))).max() > 0.01


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"threshold": -0.1}, {"width": 0.01}])
def test_strided_cnn_refuses_what_it_cannot_build(options):
    with pytest.raises(UserError, match=next(iter(options))):
        strided_cnn((28, 28, 1), 10, **options)


def test_deep_cnn_has_the_convolutions_of_wong_and_kolter():
    model = deep_cnn((28, 28, 1), 10)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64]
    assert [layer.output.shape[1] for layer in convolutions] == [28, 14, 14, 7]
    kernels = 9 * 32 + 16 * 32 * 32 + 9 * 32 * 64 + 16 * 64 * 64
    dense = 49 * 64 * 256 + 256 * 256 + 256 * 10
    biases = 2 * 32 + 2 * 64 + 2 * 256 + 10
    assert trainable(model) == kernels + dense + biases
    assert deep_cnn((28, 28, 1), 10, width=0.5).get_layer("conv_4").filters == 32


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"width": 0.01}])
def test_deep_cnn_refuses_what_it_cannot_build(options):
    with pytest.raises(UserError, match=next(iter(options))):
        deep_cnn((28, 28, 1), 10, **options)


def test_resnet18_has_the_standard_number_of_parameters():
    model = resnet18((32, 32, 3), 10)
    assert trainable(model) == 11_173_962
    # A moving mean and a moving variance for each of the 4,800 normalised channels.
    assert model.count_params() == 11_173_962 + 2 * 4_800


def test_resnet18_width_scales_every_stage():
    model = resnet18((32, 32, 3), 10, width=0.25)
    filters = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sorted(set(filters)) == [16, 32, 64, 128]
    assert len(filters) == 20  # 17 of the 18 weighted layers, and 3 projection shortcuts


def test_resnet18_reduces_the_resolution_by_eight():
    model = resnet18((32, 32, 3), 10, width=1 / 16)
    assert model.get_layer("stage_1_block_2_relu").output.shape[1:] == (32, 32, 4)
    assert model.get_layer("stage_4_block_2_relu").output.shape[1:] == (4, 4, 32)


def test_resnet18_normalises_over_all_replicas():
    norms = [
        layer
        for layer in resnet18((8, 8, 1), 2, width=1 / 16).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 20
    assert all(norm.synchronized for norm in norms)


def test_resnet18_maps_grey_to_zero():
    rescale = resnet18((8, 8, 1), 2, width=1 / 16).get_layer("rescale")
    np.testing.assert_array_equal(rescale(np.float32([0, 0.5, 1])), [-1, 0, 1])


def test_mlp_parameters():
    assert mlp(2, 2).count_params() == 2 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2
    assert mlp(5, 3, hidden=()).count_params() == 5 * 3 + 3


def test_a_linear_mlp_is_its_kernel():
    model = mlp(2, 2, hidden=())
    model.get_layer("logits").set_weights([np.float32([[1, -1], [2, 0]]), np.float32([0, 3])])
    np.testing.assert_allclose(model(np.float32([[10, 1]])), [[12, -7]])


def test_equal_layers_start_unequal():
    model = mlp(64, 2, hidden=(64, 64), seed=0)
    assert not np.array_equal(model.get_layer("dense_1").kernel, model.get_layer("dense_2").kernel)


def test_keras_alone_reads_the_file(tmp_path):
    """In a process that cannot import bcgan_tf."""
    images = np.random.default_rng(0).random((5, 8, 8, 3), "float32")
    np.save(tmp_path / "images.npy", images)
    names = [name for name in CLASSIFIERS if name != "mlp"]
    for name in names:
        options = {"width": 1 / 16} if name == "resnet18" else {}
        model = classifier(name, (8, 8, 3), 4, **options)
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", model(images, training=False))
    script = (
        "import sys; sys.modules['bcgan_tf'] = None\n"
        "import keras, numpy as np\n"
        "images = np.load('images.npy')\n"
        "for name in sys.argv[1:]:\n"
        "    model = keras.models.load_model(name + '.keras')\n"
        "    found = model(images, training=False)\n"
        "    np.testing.assert_allclose(found, np.load(name + '.npy'), atol=1e-6)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, *names],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classifier("vgg", (8, 8, 1), 10),
            "'vgg'.*small_cnn, paper_cnn, strided_cnn, deep_cnn, resnet18, mlp",
        ),
        (lambda: classifier("small_cnn", (8, 8, 1), 10, width=2), "'width'.*it has seed, dtype"),
        (lambda: classifier("mlp", (8, 8, 1), 10), "vectors.*small_cnn"),
        (lambda: small_cnn((2,), 2), "images.*choose mlp"),
        (lambda: small_cnn((3, 8, 1), 2), "at least 4x4"),
        (lambda: resnet18((8, 8, 1), 1), "num_classes is .; choose a whole number from 2"),
        (lambda: resnet18((8, 8, 1), 2, width=0.001), "width is .*; choose at least 0.015625"),
        (lambda: mlp(2, 2, hidden=(0,)), "choose"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_small_cnn_learns_real_digits():
    """The embedded 8x8 digits: at least 93 % on writers it has not seen, with plain Keras."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    model = small_cnn((8, 8, 1), 10, seed=0)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    keras.utils.set_random_seed(0)
    model.fit(images[:1300], data.target[:1300], batch_size=64, epochs=8, verbose=0)
    _, accuracy = model.evaluate(images[1300:], data.target[1300:], batch_size=500, verbose=0)
    assert accuracy >= 0.93
