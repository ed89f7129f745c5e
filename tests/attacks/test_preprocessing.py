"""Attacks through a network's own preprocessing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.attacks.preprocessing import (
    as_attacked,
    may_hide_gradients,
    monotone_preprocessing,
    through_preprocessing,
)
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.keras_graph import leading_layers
from bcgan_tf.networks.copies import clone_with_dtype
from bcgan_tf.networks.strided_cnn import strided_cnn

IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype(np.float32)


@keras.saving.register_keras_serializable(package="test")
class Quantized(keras.layers.Layer):
    """Pixels of two levels."""

    def call(self, inputs):
        return tf.round(inputs)


def _linear_behind(*layers: keras.layers.Layer) -> keras.Model:
    """Class 1 where the mean of the prepared pixels exceeds a half."""
    images = x = keras.Input((8, 8, 1))
    for layer in layers:
        x = layer(x)
    logits = keras.layers.Dense(2, name="logits")
    model = keras.Model(images, logits(keras.layers.Flatten()(x)))
    weights = np.stack([np.zeros(64), np.full(64, 1 / 64)], axis=1)
    logits.set_weights([weights, np.array([0.0, -0.5])])
    return model


def test_the_answers_are_the_models_own():
    model = strided_cnn((8, 8, 1), 10, threshold=0.3, seed=0)
    expected = model(IMAGES, training=False)
    np.testing.assert_array_equal(through_preprocessing(model)(tf.constant(IMAGES)), expected)


@pytest.mark.parametrize("factor", [5.0, -5.0])
def test_what_cuts_off_passes_the_gradient_and_the_rest_keeps_its_own(factor):
    """With the identity for all of it, an attack on a negative would go the wrong way."""
    stretch = keras.layers.Rescaling(factor, -2.0 if factor > 0 else 3.0)
    logits_fn = through_preprocessing(_linear_behind(stretch, keras.layers.ReLU(max_value=1.0)))
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        second = tf.reduce_sum(logits_fn(images)[:, 1])
    expected = np.full(IMAGES.shape, factor / 64)
    np.testing.assert_allclose(tape.gradient(second, images), expected)


def _broken_behind(model: keras.Model) -> bool:
    images, labels = np.full((4, 8, 8, 1), 0.4, np.float32), np.zeros(4, np.int64)
    attack = PGD(0.15, steps=5, random_start=False)
    return bool(attack(through_preprocessing(model), images, labels).success.all())


def test_it_finds_what_a_flat_gradient_hides():
    """All pixels at 0.4 are rounded to 0; with 0.15 more to 1; the gradient is zero."""
    assert _broken_behind(_linear_behind(Quantized()))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_linear_behind(), "no preprocessing before its first weights"),
        (lambda images: images, "give a functional or sequential Keras model"),
    ],
)
def test_what_cannot_be_looked_into_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        through_preprocessing(model)


def test_a_branch_ends_the_preprocessing():
    images = keras.Input((8, 8, 1))
    stretched = keras.layers.Rescaling(2.0)(images)
    both = keras.layers.Concatenate()([stretched, keras.layers.ReLU(max_value=1.0)(stretched)])
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(both)))
    assert [type(layer) for layer in leading_layers(model)] == [keras.layers.Rescaling]
    assert not may_hide_gradients(model)
    np.testing.assert_array_equal(through_preprocessing(model)(tf.constant(IMAGES)), model(IMAGES))


def _breakers(model: keras.Model, suite: str = "standard") -> dict[str, int]:
    """Images that each attack of the suite broke, of four that rounding alone protects."""
    images, labels = np.full((4, 8, 8, 1), 0.4, np.float32), np.zeros(4, np.int64)
    found = run_suite(EvaluationTask(model, images, labels, eps=0.15), suite)
    return {result.attack: int(result.success.sum()) for result in found.results}


def test_the_standard_suite_looks_behind_preprocessing():
    found = _breakers(_linear_behind(Quantized()))
    assert list(found)[-1] == "Square"
    assert (found["APGD-CE"], found["APGD-CE+BPDA"]) == (0, 4)


def test_so_does_the_fast_suite():
    """A gradient that only the preprocessing hides is no reason for the whole of standard."""
    found = _breakers(_linear_behind(Quantized()), "fast")
    assert list(found) == [
        "CR",
        *("CR+BPDA", "CR (near)+BPDA", "APGD-T (near)+BPDA"),
        *("Square (short)", "CR (near)", "APGD-T (near)", "Square (near)"),
    ]
    assert (found["CR"], found["CR+BPDA"]) == (0, 4)


def test_an_affine_map_needs_no_second_look():
    assert list(_breakers(_linear_behind(keras.layers.Rescaling(2.0, -0.5)))) == [
        "APGD-CE",
        "APGD-T",
        "FAB-T",
        "Square",
    ]


def test_the_parts_of_a_network_that_cuts_off_give_the_whole():
    model = strided_cnn((8, 8, 1), 10, threshold=0.3, seed=0)
    parts = monotone_preprocessing(model)
    assert parts is not None
    before, after = parts
    prepared = before(IMAGES)
    np.testing.assert_allclose(prepared, np.clip((IMAGES - 0.3) / 0.4, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(after(prepared), model(IMAGES))


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [keras.layers.Rescaling(2.0)],  # its gradient is right as it is
        [Quantized()],
        [keras.layers.Rescaling(-1.0, 1.0), keras.layers.ReLU(max_value=0.5)],
        [keras.layers.ReLU(max_value=0.5, negative_slope=0.1)],
    ],
)
def test_other_preprocessing_has_no_box_behind_it(layers):
    assert monotone_preprocessing(_linear_behind(*layers)) is None


def test_a_copy_in_less_precision_is_looked_into_all_the_same():
    """Its first convolution reads a cast of the prepared pixels, which are float32 themselves."""
    model = strided_cnn((8, 8, 1), 10, threshold=0.3, seed=0)
    copy = clone_with_dtype(model, "mixed_bfloat16", ends="float32")
    parts = monotone_preprocessing(copy)
    assert parts is not None
    np.testing.assert_array_equal(parts[0](IMAGES), monotone_preprocessing(model)[0](IMAGES))
    assert copy.get_layer("conv_1").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(through_preprocessing(copy)(tf.constant(IMAGES)), copy(IMAGES))


def _linear() -> list[keras.layers.Layer]:
    return [keras.layers.Flatten(), keras.layers.Dense(2, name="logits")]


def _added(layers: list[keras.layers.Layer]) -> keras.Sequential:
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for layer in layers:
        model.add(layer)
    return model


def _loaded(model: keras.Model, folder) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("source", ["listed", "added", "loaded", "backbone", "loaded backbone"])
def test_a_sequential_model_is_looked_into_however_it_was_made(source, tmp_path):
    """Each ``add`` calls all layers again, and the earlier calls stay behind."""
    if "backbone" in source:
        backbone = keras.Sequential([keras.Input((8, 8, 1)), *_linear()])
        model = keras.Sequential([keras.Input((8, 8, 1)), Quantized(), backbone])
    elif source == "added":
        model = _added([Quantized(), *_linear()])
    else:
        model = keras.Sequential([keras.Input((8, 8, 1)), Quantized(), *_linear()])
    model.set_weights(_linear_behind().get_weights())
    if "loaded" in source:
        model = _loaded(model, tmp_path)
    np.testing.assert_array_equal(through_preprocessing(model)(tf.constant(IMAGES)), model(IMAGES))
    assert may_hide_gradients(model)
    assert _broken_behind(model)


def test_operations_without_a_layer_are_seen():
    images = keras.Input((8, 8, 1))
    rounded = keras.layers.Rescaling(1 / 15)(keras.ops.round(images * 15))
    logits = keras.layers.Dense(2)(keras.layers.Flatten()(rounded))
    assert may_hide_gradients(keras.Model(images, logits))

    negative = keras.layers.ReLU(max_value=0.5)(1.0 - images)
    falling = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(negative)))
    assert may_hide_gradients(falling) and monotone_preprocessing(falling) is None
    np.testing.assert_array_equal(
        through_preprocessing(falling)(tf.constant(IMAGES)), falling(IMAGES)
    )


def test_a_model_in_front_is_looked_through():
    pixels = keras.Input((8, 8, 1))
    first = keras.Model(pixels, Quantized()(keras.layers.Rescaling(1.0)(pixels)))
    model = _linear_behind(first)
    np.testing.assert_array_equal(through_preprocessing(model)(tf.constant(IMAGES)), model(IMAGES))
    assert may_hide_gradients(model) and _broken_behind(model)
    assert not may_hide_gradients(_linear_behind(keras.Model(pixels, keras.ops.flip(pixels, 1))))


def test_an_input_that_is_read_twice_has_nothing_in_front_of_all():
    images = keras.Input((8, 8, 1))
    both = keras.layers.Concatenate()([Quantized()(images), keras.layers.Conv2D(1, 1)(images)])
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(both)))
    assert not may_hide_gradients(model)
    with pytest.raises(UserError, match="no preprocessing"):
        through_preprocessing(model)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RandomFlip(),
        keras.layers.RandomTranslation(0.1, 0.1),
        keras.layers.Dropout(0.5),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Permute((2, 1, 3)),
        keras.layers.Normalization(mean=0.5, variance=0.1),
    ],
    ids=lambda layer: layer.name,
)
def test_what_hides_nothing_is_attacked_as_it_is(layer):
    """Behind a negative, where a gradient that only passes through would have the wrong sign."""
    model = _linear_behind(keras.layers.Rescaling(-1.0, 1.0), layer)
    assert not may_hide_gradients(model)
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        second = tf.reduce_sum(as_attacked(model)(images)[:, 1])
    assert (tape.gradient(second, images).numpy() < 0).all()
