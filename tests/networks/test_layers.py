"""Dropout that resumes and differs per replica."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.networks.layers import ResumableDropout

ONES = np.ones((4, 500), np.float32)


def kept(layer, inputs=ONES):
    return layer(inputs, training=True).numpy() > 0


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    outputs = ResumableDropout(0.3, seed=1)(np.ones((50, 2000), np.float32), training=True).numpy()
    assert set(np.unique(outputs.round(5))) == {0, np.float32(1 / 0.7).round(5)}
    assert abs(outputs.mean() - 1) < 0.01


def test_dropout_is_off_in_inference_and_does_not_count_it():
    layer = ResumableDropout(0.5)
    np.testing.assert_array_equal(layer(ONES), ONES)
    assert int(layer.calls) == 0
    np.testing.assert_array_equal(ResumableDropout(0.0)(ONES, training=True), ONES)


def test_every_call_draws_another_mask_and_the_sequence_repeats():
    layer, same, other = (ResumableDropout(0.5, seed=seed) for seed in (1, 1, 2))
    masks = [kept(layer) for _ in range(3)]
    assert int(layer.calls) == 3
    for mask in masks:
        np.testing.assert_array_equal(mask, kept(same))
        assert 0.4 < np.mean(mask != kept(other)) < 0.6
    assert 0.4 < np.mean(masks[0] != masks[1]) < 0.6


def test_the_counter_is_saved(tmp_path):
    image = keras.Input((500,))
    model = keras.Model(image, ResumableDropout(0.5, seed=3)(image))
    for _ in range(2):
        model(ONES, training=True)
    model.save(tmp_path / "dropout.keras")
    loaded = keras.models.load_model(tmp_path / "dropout.keras")
    assert int(loaded.layers[-1].calls) == 2
    np.testing.assert_array_equal(loaded(ONES, training=True), model(ONES, training=True))


def test_replicas_drop_different_units_and_count_once(two_replicas):
    with two_replicas.scope():
        layer = ResumableDropout(0.5, seed=1)
        layer.build(ONES.shape)

    @tf.function
    def run():
        return two_replicas.run(lambda: layer(tf.constant(ONES), training=True))

    for calls in (1, 2):
        first, second = (v.numpy() > 0 for v in two_replicas.experimental_local_results(run()))
        assert 0.4 < np.mean(first != second) < 0.6
        assert int(layer.calls.numpy()) == calls


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        ResumableDropout(rate)
