"""Boundary samples inside adversarial training: stages, controls, refreshing, resume, replicas."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.data import load_dataset
from bcgan_tf.defenses import boundary_adversarial
from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining, BoundaryTRADESTraining
from bcgan_tf.defenses.extra_rows import ExtraExamples, batches, generated_rows
from bcgan_tf.defenses.gan import build_gan
from bcgan_tf.errors import UserError
from bcgan_tf.settings.defenses import GANSettings
from bcgan_tf.training.adversarial_trainer import AdversarialTrainer
from bcgan_tf.training.augmentation import shifted_images
from bcgan_tf.training.fit import fit
from bcgan_tf.training.inner_maximization import InnerMaximization

GAN = GANSettings(
    gan_epochs=1,
    gan_batch_size=32,
    generator_width=0.05,
    discriminator_width=0.05,
    latent_dim=6,
    delay_epochs=0.0,
    warmup_epochs=0.0,
    dropout=0.0,
)
TINY = {
    "gan": GAN,
    "epochs": 1,
    "batch_size": 32,
    "steps": 2,
    "ramp_epochs": 0.0,
    "eps": 0.1,
    "validation_samples": 16,
}


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits")
    return dataclasses.replace(data, train=data.train.take(96), validation=data.validation.take(32))


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    image = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(2))
    return keras.Model(image, logits(keras.layers.Flatten()(image)))


def arrays(model):
    return [np.array(weight.numpy()) for weight in model.weights]


def assert_same(one, other, atol=0.0):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("kind", "options", "stages"),
    [
        (BoundaryPGDTraining, {"oracle_epochs": 1}, ["oracle", "gan", "bcgan-at"]),
        (BoundaryTRADESTraining, {}, ["gan", "bcgan-trades"]),
        (BoundaryPGDTraining, {"fakes": "duplicates", "augment": "shift"}, ["bcgan-at"]),
    ],
)
def test_the_stages_and_the_classifier_that_comes_out(
    classifier, digits, tmp_path, capsys, kind, options, stages
):
    asked = []
    before = arrays(classifier)
    defense = kind(**TINY, **options)
    hardened = defense.harden(
        classifier, digits, directory=tmp_path, callbacks=lambda stage: asked.append(stage) or []
    )
    assert asked == stages
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stages)
    assert_same(before, arrays(classifier))
    assert hardened is not classifier and hardened.trainable
    assert all((a != b).any() for a, b in zip(before, arrays(hardened), strict=True))
    assert ("the oracle finds the asked class in" in capsys.readouterr().err) == (
        "oracle" in stages
    )
    again = defense.harden(classifier, digits, directory=tmp_path, resume=True)
    assert_same(arrays(hardened), arrays(again))


def built_by(monkeypatch, defense, classifier, digits):
    """The batch that the defence's trainer learns from, and the settings of its GAN."""
    seen: dict = {}

    def build(settings, *arguments, **options):
        seen["settings"] = settings
        return build_gan(settings, *arguments, **options)

    def fit_and_restore_best(self, trainer, *arguments, **options):
        seen["batch"] = trainer._built_batch(
            tf.constant(digits.train.scaled(0, 32)), tf.constant(digits.train.labels[:32])
        )
        return classifier

    monkeypatch.setattr(boundary_adversarial, "build_gan", build)
    monkeypatch.setattr(boundary_adversarial, "fit_gan", lambda *arguments, **options: None)
    monkeypatch.setattr(type(defense), "fit_and_restore_best", fit_and_restore_best)
    defense.harden(classifier, digits)
    return seen


@pytest.mark.parametrize(
    ("fakes", "rows", "beta"),
    [("boundary", 64, 0.1), ("plain", 64, 0.0), ("duplicates", 64, None), ("none", 32, None)],
)
def test_the_controls_attack_as_many_rows_but_none(
    monkeypatch, classifier, digits, fakes, rows, beta
):
    defense = BoundaryPGDTraining(**TINY, fakes=fakes, oracle_epochs=0)
    seen = built_by(monkeypatch, defense, classifier, digits)
    images, labels, weights = seen["batch"]
    assert images.shape == (rows, 8, 8, 1) and labels.shape == (rows,)
    settings = seen.get("settings")
    assert (settings.beta if settings else None) == beta
    first = weights.numpy() if len(weights.shape) == 1 else weights.numpy()[:, 0]
    assert sorted(set(np.round(first, 5))) == ([1.0, 2.0] if rows == 64 else [1.0])
    real = {image.tobytes() for image in digits.train.scaled(0, 32)}
    known = sum(image.tobytes() in real for image in images.numpy())
    assert known == (64 if fakes == "duplicates" else 32)


def test_labels_of_fakes_count_for_bcgan_at_and_not_for_bcgan_trades(
    monkeypatch, classifier, digits
):
    found = {}
    for kind, options in (
        (BoundaryPGDTraining, {"oracle_epochs": 0}),
        (BoundaryTRADESTraining, {}),
    ):
        with monkeypatch.context() as patch:
            defense = kind(**TINY, **options, fake_weight=0.25)
            found[kind.name] = built_by(patch, defense, classifier, digits)["batch"][2].numpy()
    # Real and fake rows alternate: 64 / 32 each, times lambda.
    np.testing.assert_allclose(found["bcgan-at"][:, 0], np.tile([2, 0.5], 32))
    np.testing.assert_allclose(found["bcgan-trades"][:, 0], np.tile([2, 0], 32))
    np.testing.assert_allclose(found["bcgan-trades"][:, 1], np.tile([2, 0.5], 32))


class Kill(keras.callbacks.Callback):
    """Ends the process's work in the middle of an epoch, counted from 0."""

    def __init__(self, epoch):
        super().__init__()
        self.killed_in, self.epoch = epoch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.killed_in:
            raise KeyboardInterrupt


REFRESHED = {**TINY, "epochs": 3, "refresh_epochs": 1, "oracle_epochs": 0}


@pytest.fixture(scope="module")
def whole(classifier, digits, tmp_path_factory):
    """An uninterrupted training with two refreshments: folder and weights."""
    folder = tmp_path_factory.mktemp("whole")
    hardened = BoundaryPGDTraining(**REFRESHED).harden(classifier, digits, directory=folder)
    return folder, arrays(hardened)


def test_the_gan_is_trained_on_against_the_network_of_the_moment(whole, classifier):
    folder, _ = whole
    assert (folder / "gan" / "epoch-0003").is_dir()  # 1 and 2 more
    with np.load(folder / "bcgan-at" / "epoch-0002" / "state.npz") as state:
        robust = [state[name] for name in sorted(state.files)[:2]]
    with np.load(folder / "gan" / "epoch-0003" / "state.npz") as state:
        seen = [state[name] for name in state.files]
    for weight, first in zip(robust, arrays(classifier), strict=True):
        assert any(np.array_equal(weight, array) for array in seen)
        assert not any(np.array_equal(first, array) for array in seen)


def test_without_a_folder_the_same_comes_out(whole, classifier, digits):
    hardened = BoundaryPGDTraining(**REFRESHED).harden(classifier, digits)
    assert_same(whole[1], arrays(hardened), atol=1e-6)


@pytest.mark.parametrize(("stage", "epoch"), [("gan", 2), ("bcgan-at", 1)])
def test_a_killed_training_resumes_exactly(whole, classifier, digits, tmp_path, stage, epoch):
    defense = BoundaryPGDTraining(**REFRESHED)
    with pytest.raises(KeyboardInterrupt):
        defense.harden(
            classifier,
            digits,
            directory=tmp_path,
            callbacks=lambda name: [Kill(epoch)] if name == stage else [],
        )
    resumed = defense.harden(classifier, digits, directory=tmp_path, resume=True)
    assert_same(whole[1], arrays(resumed), atol=1e-6)


@pytest.mark.parametrize("beta", [None, 2.0])
def test_two_replicas_train_like_one_with_fakes_and_shifts(classifier, digits, two_replicas, beta):
    """The rows' order decides which start of an attack and which shift each of them gets."""
    found = []
    for devices in (1, 2):
        gan = build_gan(GAN, classifier, digits, seed=3, devices=devices)
        rows = generated_rows(gan, gan.classifier if beta is None else None)
        build_batch = batches(
            ExtraExamples(rows, ratio=0.5, weight=0.7),
            clean_term=beta is None,
            augment=shifted_images,
        )
        with distribute.scope(two_replicas if devices == 2 else None):
            trainer = AdversarialTrainer(
                keras.models.clone_model(classifier),
                eps=0.1,
                attack=InnerMaximization(steps=2),
                trades_beta=beta,
                build_batch=build_batch,
            )
            trainer.classifier.set_weights(classifier.get_weights())
            trainer.compile(keras.optimizers.SGD(0.1))
        logs = fit(trainer, digits.train, epochs=2, batch_size=16, seed=0)
        found.append((arrays(trainer.classifier), logs))
    assert_same(found[0][0], found[1][0], atol=5e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BoundaryPGDTraining(fakes="real"), "fakes is 'real'; choose boundary"),
        (lambda: BoundaryPGDTraining(fake_ratio=0), "fake_ratio is 0"),
        (lambda: BoundaryPGDTraining(fake_weight=0), "fake_weight is 0"),
        (lambda: BoundaryPGDTraining(refresh_epochs=-1), "refresh_epochs is -1"),
        (lambda: BoundaryPGDTraining(oracle_epochs=-1), "oracle_epochs is -1"),
        (lambda: BoundaryPGDTraining(eps=0), "eps is 0"),
        (lambda: BoundaryTRADESTraining(beta=0), "beta is 0"),
        (
            lambda: BoundaryTRADESTraining(augment="turn"),
            "augment is 'turn'; choose none, shift, flip or crop-flip",
        ),
        (lambda: GANSettings(gan_epochs=0), "gan_epochs is 0"),
    ],
)
def test_impossible_settings(build, message):
    with pytest.raises(UserError, match=message):
        build()
