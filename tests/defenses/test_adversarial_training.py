"""Adversarial training and distillation as defences: what they do to real digits."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.data import load_dataset
from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining, TRADESTraining
from bcgan_tf.defenses.distillation import DistillationTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.strided_cnn import strided_cnn

EPS = 0.15


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def fresh(digits):
    return strided_cnn(digits.image_shape, digits.num_classes, seed=0)


def test_pgd_training_gives_robustness_that_plain_training_has_not(digits, fresh, tmp_path):
    stages = []
    defense = PGDTraining(eps=EPS, epochs=12, batch_size=32, ramp_epochs=3)
    hardened = defense.harden(
        fresh, digits, directory=tmp_path, callbacks=lambda stage: stages.append(stage) or []
    )
    images, labels = digits.test.scaled(0, 150), digits.test.labels[:150]
    found = PGD(EPS, steps=40)(hardened, images, labels)
    # An undefended network of this kind has below 10 % here, tests/attacks/test_undefended.py.
    assert found.clean_accuracy > 0.93 and found.robust_accuracy > 0.5
    assert stages == ["pgd-at"] and list(tmp_path.glob("pgd-at/*/best.npz"))
    assert hardened.trainable and hardened is not fresh


def test_trades_gives_robustness_also_in_less_precision(digits, fresh):
    defense = TRADESTraining(
        eps=EPS,
        epochs=8,
        batch_size=32,
        ramp_epochs=2,
        ema_decay=0.99,
        dtype="mixed_bfloat16",
    )
    policies = []

    class Policies(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            policies.append([layer.dtype_policy.name for layer in self.model.classifier.layers])

    hardened = defense.harden(fresh, digits, callbacks=lambda stage: [Policies()])
    ((first, *between, last),) = policies
    assert set(between) == {"mixed_bfloat16"} and first == last == "float32"
    # What comes back computes as what was given.
    assert {layer.dtype_policy.name for layer in hardened.layers} == {"float32"}
    found = PGD(EPS)(hardened, digits.test.scaled(0, 150), digits.test.labels[:150])
    assert found.clean_accuracy > 0.93 and found.robust_accuracy > 0.45


def test_fgsm_training_is_one_step_mixed_with_clean_images():
    defense = FGSMTraining(eps=EPS)
    assert defense.attack.steps == 1 and defense.attack.start == "none"
    assert defense.attack.step_ratio == 1.0
    assert defense.trainer_options() == {"clean_weight": 0.5, "accumulate": False}


def test_distillation_masks_the_gradient_and_a_scaled_attack_unmasks_it(digits, fresh):
    defense = DistillationTraining(epochs=12, initial_epochs=3, batch_size=64, learning_rate=0.1)
    student = defense.harden(fresh, digits)
    images, labels = digits.test.scaled(0, 150), digits.test.labels[:150]
    found = FGSM(0.3)(student, images, labels)
    scaled = FGSM(0.3)(lambda x: student(x, training=False) / 100.0, images, labels)
    assert found.clean_accuracy > 0.9
    assert found.robust_accuracy > 0.7 > 0.4 > scaled.robust_accuracy
    assert (
        PGD(0.3)(lambda x: student(x, training=False) / 100.0, images, labels).robust_accuracy == 0
    )
    assert np.abs(student(images)).max() > 200


def test_what_cannot_be_rebuilt_cannot_be_trained_in_less_precision(digits):
    @keras.saving.register_keras_serializable("tests")
    class KnowsNoDtype(keras.layers.Layer):
        def __init__(self, name=None):
            super().__init__(name=name)

        def call(self, inputs):
            return inputs

        def get_config(self):
            return {"name": self.name}

    images = keras.Input(digits.image_shape)
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(KnowsNoDtype()(images)))
    defense = PGDTraining(eps=EPS, dtype="mixed_bfloat16")
    with pytest.raises(UserError, match=r"cannot be rebuilt in mixed_bfloat16.*leave out dtype"):
        defense.build_trainer(keras.Model(images, logits), digits)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: PGDTraining(dtype="int8"), "dtype is 'int8'; choose float32 or mixed_bfloat16"),
        (lambda: PGDTraining(eps=0), "eps is 0"),
        (lambda: PGDTraining(eps=8), "eps is 8"),
        (lambda: PGDTraining(clean_weight=1), "clean_weight is 1"),
        (lambda: PGDTraining(epochs=0), "epochs is 0"),
        (lambda: TRADESTraining(beta=0), "beta is 0"),
        (lambda: TRADESTraining(clean_weight=0.5), "no clean_weight"),
        (lambda: DistillationTraining(temperature=0.5), "temperature is 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(build, named):
    with pytest.raises(UserError, match=named):
        build()


def test_trades_names_what_it_lacks_and_nothing_else():
    with pytest.raises(UserError) as found:
        TRADESTraining(clean_weight=0.5, accumulate=True)
    assert "no clean_weight" in str(found.value) and "no accumulate" in str(found.value)
    assert "choose clean_weight=0" not in str(found.value)


def test_a_path_that_is_learned_from_begins_at_the_image():
    assert PGDTraining().attack.start == "uniform"
    assert PGDTraining(accumulate=True).attack.start == "none"
