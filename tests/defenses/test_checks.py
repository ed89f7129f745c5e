"""What every defence refuses before it trains anything."""

from __future__ import annotations

import dataclasses

import keras
import pytest

from bcgan_tf.data import Dataset, load
from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining
from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining
from bcgan_tf.defenses.boundary_gan import BCGANDefense
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGAN
from bcgan_tf.defenses.distillation import DefensiveDistillation
from bcgan_tf.defenses.gan_settings import GANSettings
from bcgan_tf.defenses.ibp import IBPTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import mlp


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load("digits")
    return dataclasses.replace(data, train=data.train.take(96))


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))


LARGE, ODD = 97, 33
WAYS = [
    *(
        (kind, "batch_size")
        for kind in (FGSMTraining, PGDTraining, IBPTraining, DefensiveDistillation)
    ),
    (BCGANDefense, "batch_size"),
    (BCGANDefense, "gan_batch_size"),
    (DefenseGAN, "gan_batch_size"),
    (BoundaryPGDTraining, "batch_size"),
]


@pytest.mark.parametrize(("kind", "field"), WAYS)
def test_batches_that_cannot_be(
    kind: type[Defense], field: str, classifier: keras.Model, digits: Dataset
) -> None:
    sizes = {name: 32 for of, name in WAYS if of is kind}
    if kind is BoundaryPGDTraining:
        sizes["gan"] = GANSettings(gan_batch_size=32)
    if kind is DefenseGAN:
        sizes["critic_steps"] = 2
    kind(**sizes).check(classifier, digits)
    for changed, message in (
        ({field: LARGE}, "larger than the split of 96"),
        ({field: ODD, "devices": 2}, "does not divide by 2"),
        ({"devices": 64}, "64 devices were asked for"),
    ):
        with pytest.raises(UserError, match=message):
            kind(**{**sizes, **changed}).check(classifier, digits)


def test_a_steps_batches_are_counted_together(classifier: keras.Model, digits: Dataset) -> None:
    """Defense-GAN reads one batch for each update of its critic."""
    DefenseGAN(gan_batch_size=48, critic_steps=2).check(classifier, digits)
    with pytest.raises(UserError, match="144 is larger than the split of 96"):
        DefenseGAN(gan_batch_size=48, critic_steps=3).check(classifier, digits)


def test_the_gan_inside_a_robust_training(classifier: keras.Model, digits: Dataset) -> None:
    large = GANSettings(gan_batch_size=LARGE)
    for fakes in ("plain", "boundary"):
        with pytest.raises(UserError, match="larger than the split of 96"):
            BoundaryPGDTraining(gan=large, batch_size=32, fakes=fakes).check(classifier, digits)
    # No GAN is trained for these.
    for fakes in ("none", "duplicates"):
        BoundaryPGDTraining(gan=large, batch_size=32, fakes=fakes).check(classifier, digits)


def test_vectors_cannot_be_shifted() -> None:
    with pytest.raises(UserError, match="augment=shift moves images"):
        PGDTraining(augment="shift", batch_size=32).check(mlp(2, 2), load("gaussians"))


def test_harden_checks_first(classifier: keras.Model, digits: Dataset) -> None:
    began = []
    with pytest.raises(UserError, match="larger than the split of 96"):
        BCGANDefense(batch_size=LARGE, gan_batch_size=32).harden(
            classifier, digits, callbacks=lambda stage: began.append(stage) or ()
        )
    assert not began  # the GAN's own batch would have been possible
