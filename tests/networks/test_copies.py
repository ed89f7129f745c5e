"""Copies of networks with preprocessing layers of a user's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.networks.copies import clone, clone_reinitialized, clone_with_dtype

IMAGES = np.random.default_rng(0).uniform(0.2, 0.9, (20, 4, 4, 1)).astype("float32")


def network(*, nested: bool = False) -> keras.Model:
    """A Sequential model whose Normalization layer was adapted to the images."""
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(IMAGES)
    layers = [keras.Input((4, 4, 1)), normalization, keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    return keras.Sequential([keras.Input((4, 4, 1)), model]) if nested else model


@pytest.mark.parametrize("nested", [False, True])
def test_an_equal_copy_answers_the_same_and_is_another_model(nested):
    model = network(nested=nested)
    copy = clone(model)
    before = np.array(model(IMAGES))
    np.testing.assert_array_equal(copy(IMAGES), before)
    for weight in model.trainable_weights:
        weight.assign(2.0 * weight + 1.0)
    np.testing.assert_array_equal(copy(IMAGES), before)


@pytest.mark.parametrize("nested", [False, True])
def test_a_fresh_copy_sees_the_same_images_with_new_weights(nested):
    model = network(nested=nested)
    copy = clone_reinitialized(model)
    inner, fresh = (m.layers[0] if nested else m for m in (model, copy))
    expected = (IMAGES - IMAGES.mean()) / IMAGES.std()
    np.testing.assert_allclose(fresh.layers[0](IMAGES), expected, atol=1e-5)
    assert np.abs(fresh.layers[-1].kernel - inner.layers[-1].kernel).max() > 0.1
    names = [[layer.name for layer in m.layers] for m in (inner, fresh)]
    assert names[0] == names[1]


def test_statistics_that_are_arguments_need_no_copying():
    layer = keras.layers.Normalization(mean=0.5, variance=0.25)
    model = keras.Sequential([keras.Input((4, 4, 1)), layer, keras.layers.Flatten()])
    for copy in (clone_reinitialized(model), clone(model)):
        expected = np.reshape((IMAGES - 0.5) / 0.5, (20, 16))
        np.testing.assert_allclose(copy(IMAGES), expected, atol=1e-6)


@pytest.mark.parametrize("nested", [False, True])
def test_a_copy_in_less_precision_keeps_float32_at_its_ends(nested):
    model = network(nested=nested)
    copy = clone_with_dtype(model, "mixed_bfloat16", ends="float32")
    found = copy(IMAGES)
    assert found.dtype == "float32" and copy.trainable_weights[0].dtype == "float32"
    inner = copy.layers[0] if nested else copy
    policies = [layer.dtype_policy.name for layer in inner.layers]
    assert policies == ["mixed_bfloat16", "mixed_bfloat16", "float32"]
    exact = np.array(model(IMAGES))
    np.testing.assert_allclose(found, exact, atol=0.03 * np.abs(exact).max())
    assert np.abs(found - exact).max() > 0  # it did round


@pytest.mark.parametrize("nested", [False, True])
def test_a_copy_in_more_precision_answers_the_same(nested):
    model = network(nested=nested)
    found = clone_with_dtype(model, "float64")(IMAGES.astype("float64"))
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, model(IMAGES), atol=1e-5)
