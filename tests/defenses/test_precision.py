"""Training in bfloat16: what computes in it, and that what comes out does not."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from bcgan_tf.data import load
from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining, TRADESTraining
from bcgan_tf.defenses.boundary_gan import BCGANTraining
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.defenses.distillation import DistillationTraining
from bcgan_tf.errors import UserError
from bcgan_tf.models.defended_classifier import DefenseGANClassifier

ONE_EPOCH = {"epochs": 1, "batch_size": 32, "dtype": "mixed_bfloat16"}
AT_ONCE = {**ONE_EPOCH, "ramp_epochs": 0}
GAN = {
    "gan_epochs": 1,
    "gan_batch_size": 32,
    "generator_width": 0.05,
    "discriminator_width": 0.05,
    "latent_dim": 6,
    "delay_epochs": 0.0,
    "warmup_epochs": 0.0,
}
DEFENSES = [
    PGDTraining(eps=0.1, steps=2, **AT_ONCE),
    FGSMTraining(eps=0.1, **AT_ONCE),
    TRADESTraining(eps=0.1, steps=2, **AT_ONCE),
    DistillationTraining(initial_epochs=1, **ONE_EPOCH),
    BCGANTraining(**GAN, **ONE_EPOCH),
    DefenseGANTraining(
        steps=3,
        restarts=2,
        gan_epochs=1,
        gan_batch_size=16,
        critic_steps=2,
        latent_dim=6,
        generator_width=0.05,
        critic_width=0.05,
        dtype="mixed_bfloat16",
    ),
]


class Seen(keras.callbacks.Callback):
    """The policies of the networks that a trainer trains."""

    def __init__(self, stage: str, seen: dict[str, set[str]]) -> None:
        super().__init__()
        self.stage, self.seen = stage, seen

    def on_epoch_end(self, epoch, logs=None):
        del epoch
        assert all(np.isfinite(value) for value in (logs or {}).values())
        trainer = self.model
        for name in ("classifier", "generator", "discriminator", "critic"):
            network = getattr(trainer, name, None)
            frozen = (self.stage, name) == ("gan", "classifier")
            if network is not None and not frozen:
                found = {layer.dtype_policy.name for layer in network.layers if layer.weights}
                self.seen[f"{self.stage}: {name}"] = found


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return dataclasses.replace(data, train=data.train.take(96), validation=data.validation.take(32))


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    return keras.Model(image, logits)


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_training_computes_in_it_and_the_result_does_not(digits, classifier, defense):
    seen: dict[str, set[str]] = {}
    before = classifier.get_weights()
    hardened = defense.harden(classifier, digits, callbacks=lambda s: [Seen(s, seen)])
    assert seen and all("mixed_bfloat16" in found for found in seen.values()), seen
    networks = [hardened]
    if isinstance(hardened, DefenseGANClassifier):
        networks = [hardened.classifier, hardened.reconstruction.generator]
    for network in networks:
        assert {layer.dtype_policy.name for layer in network.layers} == {"float32"}
    logits = np.asarray(hardened(digits.test.scaled(0, 4), training=False))
    assert logits.dtype == np.float32 and np.isfinite(logits).all()
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "kind", [DistillationTraining, DefenseGANTraining, BCGANTraining, PGDTraining]
)
def test_other_precisions_are_refused(kind):
    with pytest.raises(UserError, match="dtype is 'int8'; choose float32 or mixed_bfloat16, or"):
        kind(dtype="int8")
