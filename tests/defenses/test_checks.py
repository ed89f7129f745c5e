"""What every defence refuses before it trains anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest

from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.data.dataset import Split
from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining
from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining
from bcgan_tf.defenses.boundary_gan import BCGANTraining
from bcgan_tf.defenses.defense import Defense, copy_classifier
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.defenses.distillation import DistillationTraining
from bcgan_tf.defenses.ibp import IBPTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import mlp
from bcgan_tf.settings.defenses import GANSettings


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("digits")
    return dataclasses.replace(data, train=data.train.take(96))


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))


LARGE, ODD = 97, 33
WAYS = [
    *(
        (kind, "batch_size")
        for kind in (FGSMTraining, PGDTraining, IBPTraining, DistillationTraining)
    ),
    (BCGANTraining, "batch_size"),
    (BCGANTraining, "gan_batch_size"),
    (DefenseGANTraining, "gan_batch_size"),
    (BoundaryPGDTraining, "batch_size"),
]


@pytest.mark.parametrize(("kind", "field"), WAYS)
def test_batches_that_cannot_be(
    kind: type[Defense], field: str, classifier: keras.Model, digits: Dataset
) -> None:
    sizes = {name: 32 for of, name in WAYS if of is kind}
    if kind is BoundaryPGDTraining:
        sizes["gan"] = GANSettings(gan_batch_size=32)
    if kind is DefenseGANTraining:
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
    DefenseGANTraining(gan_batch_size=48, critic_steps=2).check(classifier, digits)
    with pytest.raises(UserError, match="144 is larger than the split of 96"):
        DefenseGANTraining(gan_batch_size=48, critic_steps=3).check(classifier, digits)


def test_the_gan_inside_a_robust_training(classifier: keras.Model, digits: Dataset) -> None:
    large = GANSettings(gan_batch_size=LARGE)
    for fakes in ("plain", "boundary"):
        with pytest.raises(UserError, match="larger than the split of 96"):
            BoundaryPGDTraining(gan=large, batch_size=32, fakes=fakes).check(classifier, digits)
    # No GAN is trained for these.
    for fakes in ("none", "duplicates"):
        BoundaryPGDTraining(gan=large, batch_size=32, fakes=fakes).check(classifier, digits)


@pytest.fixture(scope="module")
def points() -> Dataset:
    """Vectors in [0, 1]."""
    draws = np.random.default_rng(0)
    split = Split(draws.uniform(size=(64, 2)).astype(np.float32), np.arange(64) % 2)
    return Dataset("points", split, split, split, ("a", "b"))


def test_vectors_cannot_be_shifted(points: Dataset) -> None:
    PGDTraining(batch_size=32).check(mlp(2, 2), points)
    with pytest.raises(UserError, match="augment=shift moves images"):
        PGDTraining(augment="shift", batch_size=32).check(mlp(2, 2), points)


@pytest.mark.parametrize("kind", [PGDTraining, IBPTraining])
def test_a_radius_is_defended_within_0_and_1(kind: type[Defense]) -> None:
    """Outside, the ball cut off to [0, 1] is empty: its least point is above its largest."""
    with pytest.raises(UserError, match=r"defends within \[0, 1\], and the examples lie in \[-"):
        kind(batch_size=32).check(mlp(2, 2), load_dataset("gaussians"))


@pytest.mark.parametrize("kind", [PGDTraining, BCGANTraining, DistillationTraining])
def test_float16_is_trained_in_float32_unless_told(kind: type[Defense]) -> None:
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Dense(5, dtype="mixed_float16")(keras.layers.Flatten()(image))
    half = keras.Model(image, keras.layers.Dense(10, dtype="float32")(hidden))
    assert kind().without_float16(half) == kind(dtype="float32")
    told = kind(dtype="mixed_bfloat16")
    assert told.without_float16(half) is told
    searching = DefenseGANTraining()  # the classifier is not trained there
    assert searching.without_float16(half) is searching


@pytest.mark.parametrize(
    "build",
    [
        lambda: BCGANTraining(gan_epochs=2),
        lambda: BoundaryPGDTraining(gan=GANSettings(gan_epochs=5, delay_epochs=20.0)),
    ],
)
def test_a_boundary_term_that_never_comes_is_refused(build: Callable[[], Defense]) -> None:
    with pytest.raises(UserError, match="the boundary term is at full strength after"):
        build()


def test_a_plain_gan_has_no_boundary_term_to_wait_for() -> None:
    BCGANTraining(gan_epochs=2, beta=0.0)
    for fakes in ("plain", "duplicates", "none"):
        BoundaryPGDTraining(gan=GANSettings(gan_epochs=2), fakes=fakes)


def test_eps_is_reached() -> None:
    PGDTraining(epochs=4, ramp_epochs=4)
    with pytest.raises(UserError, match="eps rises until epoch 4 of 3"):
        PGDTraining(epochs=3, ramp_epochs=4)
    with pytest.raises(UserError, match="ramp_epochs is -1"):
        PGDTraining(ramp_epochs=-1)


class Mine(keras.layers.Layer):
    """Registered nowhere."""

    def call(self, inputs):
        return inputs + 1.0


def test_layers_of_ones_own_are_copied() -> None:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda pixels: 2.0 * pixels)(Mine()(image))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    images = np.ones((2, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(copy_classifier(model)(images), model(images))


def test_harden_checks_first(classifier: keras.Model, digits: Dataset) -> None:
    began = []
    with pytest.raises(UserError, match="larger than the split of 96"):
        BCGANTraining(batch_size=LARGE, gan_batch_size=32).harden(
            classifier, digits, callbacks=lambda stage: began.append(stage) or ()
        )
    assert not began  # the GAN's own batch would have been possible
