"""`harden(model, x, y)`: arrays as Keras users have them train exactly as a `Dataset` does."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data.dataset import Dataset, stratified_split
from bcgan_tf.defenses import DistillationTraining, PGDTraining
from bcgan_tf.errors import UserError
from helpers.small_networks import weights_of

DEFENSE = PGDTraining(eps=0.1, steps=2, epochs=2, batch_size=32, ramp_epochs=0, seed=5)


@pytest.fixture(scope="module")
def classifier(networks) -> keras.Model:
    return networks["classifier"](dropout=0)


@pytest.fixture(scope="module")
def parts(some) -> Dataset:
    train, validation = stratified_split(some, 13, seed=DEFENSE.seed)
    return Dataset("some", train, validation, validation, tuple("0123456789"))


@pytest.fixture(scope="module")
def expected(classifier, parts):
    return weights_of(DEFENSE.harden(classifier, parts))


def _given(some, parts, form):
    validation = (parts.validation.scaled(), np.eye(10)[parts.validation.labels])
    pipeline = tf.data.Dataset.from_tensor_slices((some.images, some.labels)).batch(7)
    return {
        "uint8 and one-hot": ((some.images, np.eye(10)[some.labels]), {"validation_split": 0.2}),
        "no channel, one column": (
            (some.images[..., 0], some.labels[:, None].astype(np.uint8)),
            {"validation_split": 0.2},
        ),
        "tf.data": ((pipeline,), {"validation_split": 0.2}),
        "floats and validation_data": (
            (parts.train.scaled(), parts.train.labels),
            {"validation_data": validation},
        ),
    }[form]


@pytest.mark.parametrize(
    "form", ["uint8 and one-hot", "no channel, one column", "tf.data", "floats and validation_data"]
)
def test_arrays_train_to_the_bit_as_a_dataset_does(classifier, some, parts, expected, form):
    arguments, options = _given(some, parts, form)
    hardened = DEFENSE.harden(classifier, *arguments, **options)
    for one, other in zip(weights_of(hardened), expected, strict=True):
        np.testing.assert_array_equal(one, other)


class Epochs(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, set[str]]] = []

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.model
        self.seen.append((type(trainer).__name__, epoch, set(logs or {})))


def test_a_list_of_callbacks_is_for_the_last_stage(classifier, parts):
    epochs = Epochs()
    DistillationTraining(epochs=2, initial_epochs=1, batch_size=32).harden(
        classifier, parts, callbacks=[epochs]
    )
    assert [epoch for _, epoch, _ in epochs.seen] == [0, 1]  # the student's alone


def test_early_stopping_ends_the_training(classifier, parts):
    epochs = Epochs()
    stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", baseline=2.0)
    dataclasses.replace(DEFENSE, epochs=5).harden(classifier, parts, callbacks=[stop, epochs])
    assert len(epochs.seen) == 2 and "val_robust_accuracy" in epochs.seen[0][2]


def test_a_class_that_the_classifier_lacks_is_refused(classifier, some):
    with pytest.raises(UserError, match="has 10 outputs, but there are 12 classes"):
        DEFENSE.harden(classifier, some.images, some.labels + 2)


def test_a_class_without_examples_is_no_fault(classifier, some):
    few = some.labels < 5
    hardened = dataclasses.replace(DEFENSE, batch_size=16).harden(
        classifier, some.images[few], some.labels[few], validation_split=0.2
    )
    assert hardened.output_shape == (None, 10)
