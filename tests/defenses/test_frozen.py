"""Frozen layers stay as they are, unless all are to be trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from bcgan_tf import losses
from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.defenses import PGDTraining
from bcgan_tf.defenses.presets import DEFENSES
from bcgan_tf.errors import UserError
from helpers.small_networks import SMALL_GAN as GAN
from helpers.small_networks import weights_of

SHORT = {"epochs": 1, "batch_size": 32}
ROBUST = {**SHORT, "eps": 0.05, "ramp_epochs": 0.0, "validation_samples": 16}
MIXED = {"dtype": "mixed_bfloat16"}
PGD = {**ROBUST, "steps": 2}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("pgd-at", PGD),
    ("pgd-at", {**PGD, **MIXED, "ema_decay": 0.9}),
    ("trades", {**PGD, **MIXED}),
    ("fgsm-at", ROBUST),
    ("ibp", {**ROBUST, "warmup_epochs": 0.0}),
    ("bcgan", {**SHORT, **GAN, **MIXED}),
    ("distillation", {**SHORT, "initial_epochs": 1}),
]
NAMES = [f"{name} {settings.get('dtype', 'float32')}" for name, settings in CASES]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("digits")
    return dataclasses.replace(data, train=data.train.take(64), validation=data.validation.take(32))


def network(frozen: tuple[str, ...] = ("conv", "norm", "hidden")) -> keras.Model:
    """Nested; the statistics of its batch normalization are far from any batch's."""
    keras.utils.set_random_seed(0)
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu", name="hidden"),
        ]
    )
    norm = base.get_layer("norm")
    norm.moving_mean.assign([3.0, -2.0, 1.0, 0.5])
    norm.moving_variance.assign([2.0, 0.5, 3.0, 1.0])
    for name in frozen:
        base.get_layer(name).trainable = False
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Dense(10, name="head")(base(image)))


def layers_of(model: keras.Model) -> dict[str, list[np.ndarray]]:
    base = model.layers[1]
    return {layer.name: weights_of(layer) for layer in (*base.layers, model.layers[-1])}


def changed(before: keras.Model, after: keras.Model) -> set[str]:
    """The layers with a weight that differs, in whatever bit."""
    pairs = zip(layers_of(before).items(), layers_of(after).values(), strict=True)
    return {
        name
        for (name, old), new in pairs
        if any((a != b).any() for a, b in zip(old, new, strict=True))
    }


@pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
def test_frozen_layers_keep_every_bit_and_the_others_learn(name, settings, digits, capsys):
    model = network()
    hardened = DEFENSES[name](**settings).harden(model, digits)
    assert changed(model, hardened) == {"head"}
    assert [layer.trainable for layer in hardened.layers[1].layers] == [False, False, True, False]
    assert hardened.layers[1].get_layer("norm").trainable is False
    said = capsys.readouterr().err
    # 40 + 8 + 444 frozen parameters; the four statistics of each kind are none.
    assert f"{name} trains 1 of 4 layers, 130 of 622 parameters; the others are frozen" in said


@pytest.mark.parametrize(
    ("name", "settings"), [case for case in CASES if case[0] not in ("trades", "fgsm-at")]
)
def test_train_all_trains_them_too(name, settings, digits, capsys):
    model = network()
    hardened = DEFENSES[name](**settings, train_all=True).harden(model, digits)
    assert changed(model, hardened) == {"conv", "norm", "hidden", "head"}
    assert f"{name} trains all layers (4), all parameters (622)\n" in capsys.readouterr().err
    assert not model.layers[1].get_layer("norm").trainable  # the given one is as it was


def test_a_frozen_batch_normalization_runs_in_inference_mode(digits):
    """The loss of the first step is that of the network as it predicts."""
    logs: dict[str, float] = {}
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, found: logs.update(found))
    settings = {**PGD, "batch_size": 64, "eps": 1e-6}
    images, labels = digits.train.scaled(), digits.train.labels
    frozen, thawed = network(("norm",)), network(())
    expected = losses.cross_entropy(labels, frozen(images, training=False)).numpy().mean()
    for model, near in ((frozen, True), (thawed, False)):
        PGDTraining(**settings).harden(model, digits, callbacks=[note])
        assert (abs(logs["loss"] - expected) < 1e-4) == near


def test_nothing_to_train_is_refused(digits):
    model = network()
    model.trainable = False
    with pytest.raises(UserError, match=r"all layers .* are frozen.* train_all=true, or save it"):
        PGDTraining(**PGD).harden(model, digits)
    PGDTraining(**PGD, train_all=True).check(model, digits)
