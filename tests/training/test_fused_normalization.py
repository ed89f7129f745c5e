"""Fused batch normalisation is Keras' own but for rounding, and leaves nothing behind."""

from __future__ import annotations

import contextlib
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data import Split
from bcgan_tf.networks.classifiers import resnet18
from bcgan_tf.training import fit
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fused_normalization import fused_normalization

IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("float32")


@pytest.fixture
def kernels(monkeypatch) -> list[bool]:
    """The calls of the kernel, as whether they were of training."""
    calls = []
    kernel = tf.raw_ops.FusedBatchNormV3

    def noted(**options):
        calls.append(options["is_training"])
        return kernel(**options)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", noted)
    return calls


def layer_on(shape, **options) -> keras.layers.BatchNormalization:
    """With statistics, scale and offset that are none of the defaults."""
    layer = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3, **options)
    layer.build(shape)
    draw = np.random.default_rng(1)
    layer.set_weights([draw.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return layer


def step(layer, images, training):
    """Answer, gradients and the statistics afterwards, as float64 arrays."""
    x = tf.constant(images, layer.compute_dtype)
    variables = [layer.gamma.value, layer.beta.value] if layer.scale else []
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    found = [y, *tape.gradient(loss, [x, *variables]), layer.moving_mean, layer.moving_variance]
    return [np.asarray(keras.ops.cast(part, "float32"), np.float64) for part in found]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_answers_gradients_and_statistics_are_those_of_keras(kernels, dtype, tolerance, training):
    wanted = step(layer_on(IMAGES.shape, dtype=dtype), IMAGES, training)
    layer = layer_on(IMAGES.shape, dtype=dtype)
    with fused_normalization(keras.Sequential([layer])):
        found = step(layer, IMAGES, training)
    assert kernels == [training]
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
    # Statistics are float32 in either precision, and so are their sums.
    for ours, theirs in zip(found[-2:], wanted[-2:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_frozen_layer_normalises_as_in_inference(kernels):
    layer = layer_on(IMAGES.shape)
    layer.trainable = False
    before = layer.get_weights()
    wanted = layer(IMAGES, training=True)
    with fused_normalization(keras.Sequential([layer])):
        np.testing.assert_allclose(layer(IMAGES, training=True), wanted, rtol=1e-5, atol=1e-6)
    assert kernels == [False]
    for now, then in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    "images, options",
    [
        (IMAGES, {"axis": 1}),
        (IMAGES[:, 0, 0], {}),
        (IMAGES, {"dtype": "float64"}),
        (IMAGES, {"scale": False}),
        (IMAGES, {"renorm": True}),
    ],
    ids=["axis", "vectors", "float64", "no scale", "renorm"],
)
def test_what_the_kernel_does_not_know_is_keras_own(kernels, images, options):
    layer, other = layer_on(images.shape, **options), layer_on(images.shape, **options)
    wanted = other(images, training=True)
    with fused_normalization(keras.Sequential([layer])):
        np.testing.assert_array_equal(layer(images, training=True), wanted)
    assert kernels == []


def test_replicas_keep_their_shared_statistics(kernels, two_replicas):
    with two_replicas.scope():
        layer = layer_on(IMAGES.shape, synchronized=True)
    with fused_normalization(keras.Sequential([layer])):
        two_replicas.run(tf.function(lambda x: layer(x, training=True)), (tf.constant(IMAGES),))
    assert kernels == []


def test_layers_within_models_are_found_and_released(kernels, tmp_path):
    inner = resnet18(IMAGES.shape[1:], 4, width=1 / 16, seed=0)
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), inner])
    wanted = model(IMAGES)
    with fused_normalization(model):
        np.testing.assert_allclose(model(IMAGES), wanted, atol=1e-5)
        model.save(tmp_path / "meanwhile.keras")
    count = len([layer for layer in inner.layers if "norm" in layer.name])
    assert len(kernels) == count == 20
    model(IMAGES)
    assert len(kernels) == count
    loaded = keras.models.load_model(tmp_path / "meanwhile.keras")
    np.testing.assert_array_equal(loaded(IMAGES), wanted)


def test_layers_are_released_after_a_failure():
    layer = layer_on(IMAGES.shape)
    with pytest.raises(KeyboardInterrupt), fused_normalization(keras.Sequential([layer])):
        raise KeyboardInterrupt
    assert "call" not in vars(layer)


def test_a_layer_derived_from_it_is_left_alone(kernels):
    class Doubled(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    layer = Doubled()
    wanted = layer(IMAGES)
    with fused_normalization(keras.Sequential([layer])):
        np.testing.assert_array_equal(layer(IMAGES), wanted)
    assert kernels == []


def test_fit_trains_with_it(kernels, tmp_path):
    """Two epochs end where Keras' own layers would have ended."""

    def trained():
        trainer = ClassifierTrainer(resnet18((8, 8, 3), 4, width=1 / 16, seed=0), seed=0)
        trainer.compile(keras.optimizers.SGD(0.01))
        draw = np.random.default_rng(2)
        split = Split(draw.integers(0, 256, (24, 8, 8, 3), "uint8"), np.arange(24) % 4)
        fit.fit(trainer, split, epochs=2, batch_size=12, seed=0)
        return trainer.classifier.get_weights()

    found = trained()
    assert True in kernels
    kernels.clear()
    with mock.patch.object(fit, "fused_normalization", contextlib.nullcontext):
        wanted = trained()
    assert kernels == []
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
