"""The verdict follows from the worst case and the flags, whatever the attacks were."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bcgan_tf.attacks import AttackResult
from bcgan_tf.diagnosis.diagnostics import Diagnosis
from bcgan_tf.diagnosis.flags import Flag
from bcgan_tf.diagnosis.verdict import verdict
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import GradientHealth
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.statistics import wilson_interval

LABELS = np.arange(100) % 10


def _result(name: str, broken: int, clean: int = 95, l2: float = 1.0) -> AttackResult:
    """Of 100 images the first ``clean`` are right, and of these the first are broken."""
    correct = np.arange(100) < clean
    success = np.arange(100) < broken
    length = np.where(success, l2, 0.0)
    images = np.zeros((100, 1), np.float32)
    return AttackResult(name, {}, images, correct, correct, success, 0.3 * length, length)


def _evaluation(*results: AttackResult, eot_samples: int = 1) -> Evaluation:
    return Evaluation(results, LABELS, np.arange(100), 0.3, "linf", "standard", eot_samples)


def _diagnosis(*flags: Flag, dead: float = 0.0, stochastic: bool = False, **health) -> Diagnosis:
    bad = np.arange(100) < 100 * dead
    gradients = GradientHealth(
        correct=np.ones(100, bool),
        missing=health.get("missing", False),
        backward=health.get("backward", False),
        zero=bad,
        non_finite=np.zeros(100, bool),
        margin_zero=bad,
    )
    return Diagnosis(flags, gradients, 100, 20 if stochastic else 1, stochastic)


EVIDENCE = Flag("logit scale", "evidence", True, True, 0.4, 0.005, "")
NOTICE = Flag("white vs black box", "notice", True, True, 0.02, 0.002, "")
LARGE = dataclasses.replace(NOTICE, value=0.06)
QUIET = dataclasses.replace(EVIDENCE, raised=False, value=0.0)
HEALTH = Flag("gradient health", "evidence", True, True, 1.0, 0.01, "", in_points=False)


def test_no_flag_is_robust_at_the_worst_case():
    evaluation = _evaluation(_result("APGD-CE", 4), _result("Square", 6))
    found = verdict(evaluation, _diagnosis(QUIET), LABELS)
    assert found.robust and found.kind == "robust"
    assert found.accuracy == pytest.approx(0.89)  # 95 right, 6 of them broken
    assert found.interval == wilson_interval(89, 100)
    assert found.flags == ()
    assert found.text == (
        "robust (no flag): 89.0 % (81.4 to 93.7), worst case over APGD-CE, Square, n = 100, "
        "Linf eps 0.3"
    )
    json.dumps(found.to_dict())


def test_a_suspicious_clean_accuracy_is_said_first():
    chance = _evaluation(_result("APGD-CE", 2, clean=12))
    told = verdict(chance, _diagnosis(QUIET), LABELS).text
    assert told.startswith("Suspicious clean accuracy: 12.0 % (7.0 to 19.8) of 100 test images")
    assert ". not robust: 10.0 %" in told
    evaluation = _evaluation(_result("APGD-CE", 4, clean=80))
    for validation, said in ((0.9, False), (0.99, True)):  # the interval ends at 86.7 %
        told = verdict(evaluation, _diagnosis(QUIET), LABELS, validation).text
        assert told.startswith("Suspicious") == said and "robust (no flag): 76.0 %" in told


@pytest.mark.parametrize(("undefended", "kind"), [(0.82, "not robust"), (0.81, "robust")])
def test_more_than_chance_above_the_undefended_model_is_asked_for(undefended, kind):
    """89 of 100 are left, of which the interval begins at 81.4 %."""
    control = Flag("positive control", "evidence", True, False, undefended, 0.05, "")
    found = verdict(_evaluation(_result("Square", 6)), _diagnosis(control), LABELS)
    assert found.kind == kind and found.robust == (kind == "robust")
    assert ("the undefended model keeps (82.0 %)" in found.text) == (kind == "not robust")
    not_run = dataclasses.replace(control, ran=False, value=None)
    assert verdict(_evaluation(_result("Square", 6)), _diagnosis(not_run), LABELS).robust


@pytest.mark.parametrize(("broken", "kind"), [(47, "robust"), (48, "weakly robust")])
def test_less_than_half_of_the_clean_accuracy_is_weak(broken, kind):
    """Of 95 right answers 48 are more than half, 47 less; both are far above a constant answer."""
    found = verdict(_evaluation(_result("Square", broken)), _diagnosis(QUIET), LABELS)
    assert found.kind == kind and found.robust == (kind == "robust")
    assert found.text.startswith(f"{kind} (no flag): {95 - broken}.0 %")


@pytest.mark.parametrize(
    ("flags", "robust"),
    [((QUIET,), True), ((NOTICE,), True), ((LARGE,), False), ((EVIDENCE,), False)],
    ids=["none", "small notice", "large notice", "evidence"],
)
def test_evidence_decides_and_a_notice_beyond_five_points(flags, robust):
    found = verdict(_evaluation(_result("APGD-CE", 4)), _diagnosis(*flags), LABELS)
    assert found.robust is robust
    if not robust:
        assert found.kind == "gradient masking"
        assert found.text.startswith(f"gradient masking: {flags[0].check}; at most 91.0 %")
        assert found.flags == flags
    if flags == (NOTICE,):
        assert "noticed: white vs black box" in found.text and found.flags == flags


def test_a_constant_answer_is_no_robustness_but_its_flags_are_named():
    evaluation = _evaluation(_result("FGSM", 0), _result("APGD-T", 85))  # 10 left: one class' share
    found = verdict(evaluation, _diagnosis(EVIDENCE, NOTICE), LABELS)
    assert not found.robust and found.kind == "not robust"
    assert found.accuracy == pytest.approx(0.1)
    assert "gradient masking: logit scale" in found.text
    clean = verdict(_evaluation(_result("APGD-T", 90)), _diagnosis(QUIET), LABELS)
    assert clean.kind == "not robust" and "masking" not in clean.text


@pytest.mark.parametrize(("left", "kind"), [(17, "not robust"), (18, "weakly robust")])
def test_more_than_chance_above_a_constant_answer_is_asked_for(left, kind):
    """Wilson's interval of 17 of 100 begins at 10.9 %, of 18 at 11.7 %; one class has 11 %."""
    labels = np.where(np.arange(100) == 1, 0, LABELS)  # 11 zeros
    found = verdict(_evaluation(_result("Square", 95 - left)), _diagnosis(QUIET), labels)
    assert found.kind == kind and not found.robust
    assert ("can be told no more than a constant answer gets (11.0 %)" in found.text) == (
        kind == "not robust"
    )


def test_without_gradients_only_what_needs_none_counts():
    evaluation = _evaluation(_result("APGD-CE", 0), _result("Square", 10))
    found = verdict(evaluation, _diagnosis(HEALTH, dead=1.0, missing=True), LABELS)
    assert not found.robust and found.kind == "black box only"
    assert found.accuracy == pytest.approx(0.85)
    assert "only black-box and BPDA attacks count" in found.text
    assert "at most 85.0 %" in found.text and "BPDA through" not in found.text
    stand_in = _diagnosis(HEALTH, dead=1.0, missing=True, backward=True)
    assert "BPDA through its own stand-in" in verdict(evaluation, stand_in, LABELS).text


def test_gradients_that_only_hid_weakness_are_masking():
    """Square broke most of what a model without gradients seemed to withstand."""
    evaluation = _evaluation(_result("APGD-CE", 0), _result("Square", 60))
    found = verdict(evaluation, _diagnosis(HEALTH, dead=1.0, missing=True), LABELS)
    assert found.kind == "gradient masking" and not found.robust


def test_without_gradients_what_transfers_counts_too():
    """Square stalled at 85 %, but another model's examples broke 70 points."""
    evaluation = _evaluation(_result("APGD-CE", 0), _result("Square", 10))
    transfer = Flag("transfer", "notice", True, True, 0.7, 0.0, "")
    found = verdict(evaluation, _diagnosis(HEALTH, transfer, dead=1.0, missing=True), LABELS)
    assert found.kind == "gradient masking" and not found.robust
    assert "examples found otherwise leave about 25.0 %" in found.text
    little = dataclasses.replace(transfer, value=0.1)
    found = verdict(evaluation, _diagnosis(HEALTH, little, dead=1.0, missing=True), LABELS)
    assert found.kind == "black box only"


def test_a_model_that_draws_needs_expectation_over_transformation():
    drawing = Flag("stochastic forward", "notice", True, True, 1.0, 0.0, "", in_points=False)
    once = _evaluation(_result("APGD-CE", 4))
    found = verdict(once, _diagnosis(drawing, stochastic=True), LABELS)
    assert found.kind == "gradient masking" and "samples=20" in found.text
    averaged = _evaluation(_result("APGD-CE", 4), eot_samples=20)
    assert verdict(averaged, _diagnosis(drawing, stochastic=True), LABELS).robust


def test_the_gap_to_the_papers_attacks_is_told():
    evaluation = _evaluation(_result("FGSM", 2), _result("PGD-40", 5), _result("APGD-T", 45))
    found = verdict(evaluation, _diagnosis(EVIDENCE), LABELS)
    assert "FGSM 93.0 %, PGD-40 90.0 %, 40.0 points above the worst case" in found.text


def test_labels_of_another_set_are_refused():
    with pytest.raises(UserError, match="100 images were evaluated"):
        verdict(_evaluation(_result("FGSM", 2)), _diagnosis(), LABELS[:50])
