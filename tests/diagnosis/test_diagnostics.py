"""Each red flag goes up on a model made to raise it, and none on a model without masking."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, AttackResult
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.expectation import differing_answers
from bcgan_tf.diagnosis import attack_checks, diagnostics, limit_checks
from bcgan_tf.diagnosis.diagnostics import Diagnosis, diagnose
from bcgan_tf.diagnosis.shared_attacks import SharedAttacks
from bcgan_tf.diagnosis.verdict import verdict
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import gradient_health
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.suites import evaluate

PIXELS, COUNT = 64, 40
_RNG = np.random.default_rng(1)
WEIGHTS = _RNG.normal(size=(PIXELS, 3)).astype(np.float32)
IMAGES = _RNG.uniform(0.2, 0.8, (COUNT, PIXELS)).astype(np.float32)
LABELS = ((IMAGES - 0.5) @ WEIGHTS).argmax(-1)


def _linear(images: tf.Tensor) -> tf.Tensor:
    """Three classes that meet at the gray image."""
    return (images - 0.5) @ WEIGHTS


def _shared(
    model, images=IMAGES, labels=LABELS, eps=0.02, evaluation: Evaluation | None = None
) -> SharedAttacks:
    """What single checks take; ``_diagnose`` runs all of them."""
    return SharedAttacks(EvaluationTask(model, images, labels, eps=eps), evaluation)


def _diagnose(model, images=IMAGES, labels=LABELS, eps=0.02, norm="linf", **options) -> Diagnosis:
    return diagnose(EvaluationTask(model, images, labels, eps=eps, norm=norm), **options)


def _one_pixel(wrong) -> tuple:
    """A model of one pixel with two logits, 0 and ``wrong(pixel)``; 40 images at 0.5, class 0."""

    def model(images: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.zeros_like(images), wrong(images)], axis=1)

    return model, np.full((COUNT, 1), 0.5, np.float32), np.zeros(COUNT, int)


@pytest.fixture(scope="module")
def plain() -> Diagnosis:
    return _diagnose(_linear, control=_linear, surrogate=_linear)


def test_a_linear_model_raises_no_evidence(plain):
    names = [flag.check for flag in plain.flags]
    assert names == [
        "iterative vs one-step",
        "white vs black box",
        "transfer",
        "monotone in eps",
        "large eps",
        "convergence",
        "gradient health",
        "logit scale",
        "loss choice",
        "stochastic forward",
        "unbounded attack",
        "random noise",
        "positive control",
    ]
    assert all(flag.ran for flag in plain.flags)
    # The control is this model itself, and this eps leaves some of it, but a larger one nothing.
    assert plain.deciding == ()
    assert "the attacks work, and eps is small" in plain["positive control"].text
    assert plain["unbounded attack"].value == 1.0
    assert plain["large eps"].value == 0.0
    assert plain.calls == 1 and plain.n == COUNT and not plain.stochastic
    json.dumps(plain.to_dict())


def test_what_was_not_given_is_not_run():
    shared = _shared(_linear)
    for flag, option in (
        (attack_checks.transfer(shared, None), "surrogate="),
        (attack_checks.positive_control(shared, None), "control="),
    ):
        assert not flag.ran and not flag.raised and not flag.decides
        assert f"pass {option}" in flag.text


def test_large_logits_are_masking_by_scale():
    """Every gap above 104 / 3000: the cross entropy has no gradient, though the model is linear."""
    found = _diagnose(lambda images: 3000.0 * _linear(images))
    assert found["gradient health"].raised and found["gradient health"].value > 0.9
    scale, attack = found["logit scale"], APGD(0.02)
    assert scale.raised and scale.grade == "evidence"
    # What the scale hid is what the attack finds on the model without it.
    hidden = attack(lambda images: 3000.0 * _linear(images), IMAGES, LABELS).robust_accuracy
    honest = attack(_linear, IMAGES, LABELS).robust_accuracy
    assert scale.value == pytest.approx(hidden - honest, abs=0.03) and scale.value > 0.3
    assert found["loss choice"].raised and found["loss choice"].decides
    # CW and DLR look at differences of logits, which do not saturate.
    assert not found["unbounded attack"].raised


def test_rounded_logits_leave_gradient_attacks_helpless():
    """At eps = 0.5 a random start is all that such an attack has."""
    shared = _shared(lambda images: tf.round(_linear(images)), eps=0.1)
    health = gradient_health(shared.task.model, IMAGES, LABELS)
    flag = limit_checks.gradient_flag(health)
    assert flag.decides and flag.value == 1.0 and "no gradient" in flag.text
    without_bound = limit_checks.unbounded(shared)
    assert without_bound.decides and without_bound.value == 0.0
    assert attack_checks.large_eps(shared).decides
    # The model behind the rounding has the same boundaries, and its gradient finds them.
    transfer = attack_checks.transfer(shared, _linear)
    assert transfer.ran and transfer.decides and transfer.value is not None
    assert transfer.value > 0.2


def test_infinite_gradients_are_flagged_and_do_not_stop_the_checks():
    images = IMAGES.copy()
    images[:20, 0] = 0.0

    def model(images: tf.Tensor) -> tf.Tensor:
        return _linear(images) + 1e-3 * tf.sqrt(images[:, :1]) * WEIGHTS[0]

    labels = model(tf.constant(images)).numpy().argmax(-1)
    flag = limit_checks.gradient_flag(gradient_health(model, images, labels))
    assert flag.decides and flag.value == pytest.approx(0.5)
    shared = _shared(model, images, labels)
    assert attack_checks.iterative(shared).ran and shared.gradient_survivors.any()


def test_a_narrow_trap_is_found_at_small_eps_only():
    """The loss rises to a peak whose tip alone is wrong: 40 large steps jump over it."""
    model, images, labels = _one_pixel(lambda x: 0.008 - tf.abs(x - 0.58))
    monotone = attack_checks.monotone(_shared(model, images, labels, eps=0.1))
    assert monotone.decides and monotone.value is not None and monotone.value > 0.3
    assert "0.1: 0.0 %" in monotone.text


def test_one_step_beats_many_where_the_loss_misleads():
    """Uphill to 0.55, then down, and wrong from 0.79 on: FGSM at 0.3 lands there."""
    model, images, labels = _one_pixel(
        lambda x: tf.where(x > 0.79, 1.0 + x, -0.1 - tf.abs(x - 0.55))
    )
    flag = attack_checks.iterative(_shared(model, images, labels, eps=0.3))
    assert flag.raised and flag.decides and flag.value is not None and flag.value > 0.5
    assert "FGSM 0.0 %" in flag.text


def test_random_draws_find_what_gradients_cannot():
    """Flat everywhere, wrong in a band that one draw in thirty hits."""
    model, images, labels = _one_pixel(
        lambda x: tf.where(tf.abs(x - 0.65) < 0.01, 1.0, -1.0) + 0.0 * x
    )
    noise = limit_checks.random_noise(_shared(model, images, labels, eps=0.3))
    assert noise.raised and noise.value is not None and noise.value > 0.5
    # A draw of 1,000 misses with probability 1e-13: all that were left are found.
    assert "of 0" not in noise.text


def test_a_control_that_attacks_cannot_break_is_evidence():
    shared = _shared(_linear, eps=0.2)
    rounded = attack_checks.positive_control(shared, lambda images: tf.round(_linear(images)))
    assert rounded.decides and rounded.value is not None and rounded.value > 0.3
    assert "too weak" in rounded.text
    plain = attack_checks.positive_control(shared, _linear)
    assert plain.value == 0.0 and not plain.raised and "as it should" in plain.text


def test_a_control_is_asked_at_larger_eps_before_the_attacks_are_called_weak():
    """Exactly as far as it takes: two logits, x - 0.9 and 0, so images at 0.95 hold up to 0.05."""
    images, labels = np.full((10, 1), 0.95, np.float32), np.zeros(10, int)

    def control(pixels: tf.Tensor) -> tf.Tensor:
        return tf.concat([pixels - 0.9, tf.zeros_like(pixels)], axis=1)

    found = attack_checks.positive_control(_shared(control, images, labels, eps=0.02), control)
    assert not found.raised and found.value == 1.0
    assert "100.0 % at eps 0.02, 100.0 % at eps 0.04, 0.0 % at eps 0.08" in found.text


def _result(name: str, attacked: np.ndarray, success: np.ndarray) -> AttackResult:
    right = np.ones(COUNT, bool)
    length = np.where(success, 0.02, 0.0)
    follows = name != "Square"
    return AttackResult(name, {}, IMAGES, right, attacked, success, length, length, follows)


def test_squares_part_is_read_from_the_evaluation():
    everyone, index = np.ones(COUNT, bool), np.arange(COUNT)
    gradient = _result("APGD-CE", everyone, index < 10)
    square = _result("Square", index >= 10, (index >= 10) & (index < 18))
    evaluation = Evaluation((gradient, square), LABELS, index, 0.02)
    flag = attack_checks.black_box(_shared(_linear, evaluation=evaluation))
    assert flag.value == pytest.approx(8 / 40) and flag.decides
    assert flag.text.startswith("Square of the evaluation") and "75.0 % to 55.0 %" in flag.text
    # Any attack without gradients is one, whatever its name.
    mine = dataclasses.replace(square, attack="Mine")
    evaluation = Evaluation((gradient, mine), LABELS, index, 0.02)
    shared = _shared(_linear, evaluation=evaluation)
    assert attack_checks.black_box(shared).value == flag.value
    assert not shared.gradient_survivors[:10].any()


def test_an_evaluation_of_other_images_is_refused():
    everyone = np.ones(COUNT, bool)
    evaluation = Evaluation((_result("FGSM", everyone, ~everyone),), LABELS, np.arange(COUNT), 0.02)
    with pytest.raises(UserError, match=r"of 40 images, but 20 came"):
        _diagnose(_linear, IMAGES[:20], LABELS[:20], evaluation=evaluation)


def _noisy(images: tf.Tensor) -> tf.Tensor:
    return _linear(images + tf.random.normal(tf.shape(images), stddev=0.01))


def test_a_model_that_draws_and_was_evaluated_once_is_evidence():
    assert differing_answers(_noisy, IMAGES) == 1.0
    assert differing_answers(_linear, IMAGES) == 0.0
    assert limit_checks.stochastic(1.0, evaluated_with=1).decides
    averaged = limit_checks.stochastic(1.0, evaluated_with=20)
    assert averaged.raised and not averaged.decides
    assert not limit_checks.stochastic(0.0, evaluated_with=1).raised


def test_l2_and_progress():
    seen = []
    found = _diagnose(
        _linear,
        norm="l2",
        eps=0.2,
        rows=np.arange(12),
        progress=lambda *reported: seen.append(reported),
    )
    assert not found.deciding and found.n == 12
    assert seen[0] == (0, 13, "iterative vs one-step") and seen[-1] == (13, 13, "")
    # Half of the cube: 0.5 in every pixel is 0.5 * sqrt(64) in L2.
    curve = found["monotone in eps"].text
    assert " 4: " in curve and " 8: " in curve


@pytest.mark.parametrize("eps", [0, -0.1, float("nan"), 1.5])
def test_an_unfit_eps_is_refused(eps):
    with pytest.raises(UserError, match="eps"):
        _diagnose(_linear, eps=eps)


def test_a_model_that_is_always_wrong_has_nothing_to_attack():
    flag = limit_checks.unbounded(_shared(_linear, labels=(LABELS + 1) % 3))
    assert not flag.ran and "no image is classified right" in flag.text


def test_a_network_that_cuts_pixels_off_is_attacked_through_the_cut_off():
    """Only gray pixels have a gradient of their own; through the cut-off every image is turned."""
    images = x = keras.Input((8, 8, 1))
    x = keras.layers.ReLU(max_value=1.0)(keras.layers.Rescaling(5.0, -2.0)(x))
    logits = keras.layers.Dense(2)
    network = keras.Model(images, logits(keras.layers.Flatten()(x)))
    logits.set_weights([np.full((64, 2), 1 / 8) * [-1, 1], np.float32([4, -4])])
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    # Three quarters of the pixels white or black, as the label says, the others gray.
    pixels = np.where(rng.uniform(size=(24, 8, 8, 1)) < 0.75, labels[:, None, None, None], 0.5)
    pixels = pixels.astype(np.float32)

    def hidden(inputs):
        return network(inputs, training=False)

    through, plain = (
        _diagnose(network, pixels, labels, eps=0.3),
        _shared(hidden, pixels, labels, 0.3),
    )
    assert limit_checks.unbounded(plain).raised and attack_checks.large_eps(plain).raised
    assert not through["unbounded attack"].raised and through["unbounded attack"].value == 1
    assert not through["large eps"].raised and not through["monotone in eps"].raised
    assert "through the model's preprocessing (BPDA)" in through["gradient health"].text


def test_plain_attacks_of_an_evaluation_say_nothing_through_a_preprocessing():
    images = x = keras.Input((4, 4, 1))
    x = keras.layers.ReLU(max_value=1.0)(keras.layers.Rescaling(5.0, -2.0)(x))
    network = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    pixels = np.random.default_rng(0).uniform(size=(6, 4, 4, 1)).astype(np.float32)
    labels = np.argmax(network(pixels), 1)
    task = EvaluationTask(network, pixels, labels, eps=0.1)
    evaluation = run_suite(task, [FGSM(0.1)])
    assert SharedAttacks(task, evaluation)._from_evaluation(FGSM(0.1)) is not None
    through = SharedAttacks(task, evaluation, through=True)
    assert through._from_evaluation(FGSM(0.1)) is None
    assert through.apgd().name == "APGD-CE+BPDA"


def test_large_logits_do_not_deny_a_number_that_smaller_ones_confirm(monkeypatch):
    """A linear model times 1e4: its exact accuracy at eps is known, and margins find it."""

    def large(images: tf.Tensor) -> tf.Tensor:
        return 1e4 * _linear(images)

    eps = 0.01
    logits = (IMAGES - 0.5).astype(np.float64) @ WEIGHTS
    gaps = logits[np.arange(COUNT), LABELS][:, None] - logits
    lengths = np.abs(WEIGHTS[:, LABELS].T[:, None] - WEIGHTS.T[None]).sum(axis=2)
    exact = np.where(lengths > 0, gaps / np.maximum(lengths, 1e-9), np.inf).min(axis=1) > eps
    assert 0.5 < exact.mean() < 1
    data = (IMAGES, LABELS)

    whole = evaluate(large, data, [APGD(eps), APGD(eps, loss="dlr")], eps=eps)
    diagnosis = _diagnose(large, eps=eps, evaluation=whole, rows=np.arange(20))
    found = verdict(whole, diagnosis, LABELS)
    assert {"gradient health", "logit scale"} <= {flag.check for flag in diagnosis.deciding}
    assert found.accuracy == exact.mean() and found.kind == "robust"
    assert "come of logits too large for float32" in found.text and "masking" not in found.text
    # The cross entropy alone gives another number, which is not confirmed.
    monkeypatch.setattr(diagnostics, "_flags", lambda *_: list(diagnosis.flags))  # the same
    alone = evaluate(large, data, [APGD(eps)], eps=eps)
    found = verdict(alone, _diagnose(large, eps=eps, evaluation=alone), LABELS)
    assert found.accuracy > exact.mean() and found.kind == "gradient masking"
