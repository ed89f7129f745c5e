"""Every defense holds the contract, in bfloat16 where it can."""

from __future__ import annotations

import dataclasses

import keras
import pytest

from bcgan_tf.data import load_dataset
from bcgan_tf.defenses.presets import DEFENSES
from bcgan_tf.settings.defenses import GANSettings
from helpers.contracts import assert_defense_contract
from helpers.small_networks import SMALL_GAN as GAN

SHORT = {"epochs": 1, "batch_size": 32}
MIXED = {**SHORT, "dtype": "mixed_bfloat16"}
ROBUST = {"eps": 0.1, "ramp_epochs": 0.0, "validation_samples": 16}
BOUNDARY = {**ROBUST, "gan": GANSettings(**GAN, dtype="mixed_bfloat16")}
SETTINGS = {
    "bcgan": {**GAN, **MIXED},
    "fgsm-at": {**ROBUST, **MIXED},
    "pgd-at": {**ROBUST, **MIXED, "steps": 2},
    "trades": {**ROBUST, **MIXED, "steps": 2},
    "bcgan-at": {**BOUNDARY, **MIXED, "steps": 2, "oracle_epochs": 1},
    "bcgan-trades": {**BOUNDARY, **MIXED, "steps": 2},
    "ibp": {**ROBUST, **SHORT, "warmup_epochs": 0.0},
    "bcgan-ibp": {
        **ROBUST,
        **SHORT,
        "gan": GANSettings(**GAN),
        "warmup_epochs": 0.0,
        "oracle_epochs": 1,
    },
    "distillation": {**MIXED, "initial_epochs": 1},
    "defense-gan": {
        "steps": 3,
        "restarts": 2,
        "gan_epochs": 1,
        "gan_batch_size": 16,
        "critic_steps": 2,
        "latent_dim": 6,
        "generator_width": 0.05,
        "critic_width": 0.05,
        "dtype": "mixed_bfloat16",
    },
}


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits")
    return dataclasses.replace(data, train=data.train.take(96), validation=data.validation.take(32))


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(10)(x))


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_is_one(name, classifier, digits, tmp_path):
    assert_defense_contract(DEFENSES[name](**SETTINGS[name]), classifier, digits, tmp_path)
