"""Every mistake a caller can make is answered in one clear line."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD, CarliniWagnerL2
from bcgan_tf.errors import UserError

IMAGES = np.random.default_rng(0).uniform(0, 1, (6, 2, 2, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def _linear(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 4]) @ WEIGHTS


LABELS = _linear(tf.constant(IMAGES)).numpy().argmax(-1)


def _refused(match: str, model=_linear, images=IMAGES, labels=LABELS, attack=None) -> None:
    with pytest.raises(UserError, match=match) as caught:
        (attack or FGSM(0.1))(model, images, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FGSM(-0.1), "eps is -0.1"),
        (lambda: FGSM(float("nan")), "eps is nan"),
        (lambda: FGSM("0.1"), "eps is '0.1'"),
        (lambda: FGSM(8), r"pixels lie in \[0, 1\]; for 0 ... 255 write eps / 255"),
        (lambda: FGSM(0.1, norm="l1"), "norm is 'l1'; choose linf or l2"),
        (lambda: PGD(0.1, steps=0), "steps is 0"),
        (lambda: PGD(0.1, steps=True), "steps is True"),
        (lambda: PGD(0.1, restarts=0), "restarts is 0"),
        (lambda: PGD(0.1, step_size=0.0), "step_size is 0.0; choose a number above 0"),
        (lambda: PGD(0.1, restarts=2, random_start=False), "restarts without random_start"),
        (lambda: CarliniWagnerL2(steps=0), "steps is 0"),
        (lambda: CarliniWagnerL2(binary_search_steps=0), "binary_search_steps is 0"),
        (lambda: CarliniWagnerL2(learning_rate=0), "learning_rate is 0"),
        (lambda: CarliniWagnerL2(initial_const=-1), "initial_const is -1"),
        (lambda: CarliniWagnerL2(confidence=-0.5), "confidence is -0.5"),
    ],
)
def test_settings(build, match):
    with pytest.raises(UserError, match=match):
        build()


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (IMAGES[:0], "at least one example"),
        (IMAGES[:, 0, 0, 0], "at least one example"),
        (2 * IMAGES - 1, r"floats in \[-"),
        (255 * IMAGES, r"not in \[0, 1\]; divide"),
        (np.where(IMAGES > 0.5, np.nan, IMAGES).astype(np.float32), "NaN or infinite"),
    ],
)
def test_images(images, match):
    _refused(match, images=images)


def test_rounding_outside_the_range_is_forgiven_and_clipped():
    images = IMAGES.copy()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = -3e-8, 1 + 5e-7
    result = FGSM(0.0)(_linear, images, LABELS)
    assert result.adversarials.min() >= 0 and result.adversarials.max() <= 1


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.eye(3)[LABELS] + 1, "not one-hot"),
        (LABELS[:4], r"6 images came with labels of shape \(4,\)"),
        (LABELS + 0.5, "labels are float64 and not all integers"),
        (LABELS - 5, "negative"),
        (LABELS + 3, "is no class of this model, which has 3"),
    ],
)
def test_labels(labels, match):
    _refused(match, labels=labels)


def _constant(value: float):
    return lambda images: _linear(images) * 0.0 + value


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("classifier.keras", "the model is a str, which cannot be called"),
        (lambda x: tf.nn.softmax(_linear(x)), "look like probabilities.*activation='softmax'"),
        (lambda x: tf.reduce_sum(x), r"shape \(\)"),
        (lambda x: tf.reshape(_linear(x), [-1, 3, 1]), "attacks need logits"),
        (lambda x: {"logits": _linear(x)}, "the model returned a dict"),
        (lambda x: _linear(x)[:, :1], "K >= 2 classes"),
        (lambda x: _linear(x)[:1], r"logits \(1, 3\) for 6 images"),
        (_constant(np.nan), "NaN or infinite logits on clean"),
        (_constant(np.inf), "NaN or infinite logits on clean"),
    ],
)
def test_models(model, match):
    _refused(match, model=model)


def test_probabilities_of_a_keras_model_are_refused_and_the_advice_works():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    images = IMAGES.reshape(6, 4)
    for attack in (FGSM(0.1), PGD(0.1), CarliniWagnerL2()):
        _refused("look like probabilities", model=model, images=images, attack=attack)
    labels = model(images).numpy().argmax(-1)
    model.layers[-1].activation = keras.activations.linear
    assert FGSM(0.1)(model, images, labels).clean_accuracy == 1


def test_non_negative_logits_that_do_not_sum_to_one_are_accepted():
    labels = np.abs(_linear(tf.constant(IMAGES))).argmax(-1)
    assert FGSM(0.01)(lambda x: tf.abs(_linear(x)), IMAGES, labels).clean_accuracy == 1


def test_a_keras_model_of_another_image_size():
    model = keras.Sequential(
        [keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    _refused(r"takes images of shape \(3, 3, 1\), but these are \(2, 2, 1\)", model=model)


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1), CarliniWagnerL2()])
def test_a_model_without_a_gradient_is_not_called_robust(attack):
    _refused("no gradient", model=lambda x: _linear(tf.round(x)), labels=_rounded(), attack=attack)


def _rounded() -> np.ndarray:
    return _linear(tf.round(tf.constant(IMAGES))).numpy().argmax(-1)


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1), CarliniWagnerL2(steps=20)])
def test_a_gradient_that_is_not_finite_is_not_called_robust(attack):
    @tf.custom_gradient
    def broken(images: tf.Tensor):
        # As of sqrt(0), log(0) or a norm at 0: the value is harmless, the derivative is not.
        return _linear(images), lambda upstream: images * float("nan")

    _refused("gradient is NaN or infinite", model=broken, attack=attack)


def test_a_model_that_returns_nan_on_adversarial_images():
    def brittle(images: tf.Tensor) -> tf.Tensor:
        near = tf.reduce_all(tf.abs(images[:, None] - IMAGES[None]) < 1e-3, axis=[2, 3, 4])
        clean = tf.reduce_any(near, axis=1)
        return _linear(images) + tf.where(clean, 0.0, float("nan"))[:, None]

    _refused("NaN logits on images changed by FGSM", model=brittle)
