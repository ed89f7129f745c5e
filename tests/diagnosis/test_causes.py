"""Each cause of an inflated accuracy, switched on and off on models whose cause is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bcgan_tf.diagnosis.causes import Causes, measure_causes
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.linear_task import Linear

PIXELS, COUNT = 64, 40
_RNG = np.random.default_rng(1)
WEIGHTS = _RNG.normal(size=(PIXELS, 3)).astype(np.float32)
IMAGES = _RNG.uniform(0.2, 0.8, (COUNT, PIXELS)).astype(np.float32)
# Four labels are wrong: the clean accuracy is 90 %.
LABELS = ((IMAGES - 0.5) @ WEIGHTS).argmax(-1)
LABELS[:4] = (LABELS[:4] + 1) % 3
_linear = Linear(WEIGHTS, -0.5 * WEIGHTS.sum(0))


def _measure(model, surrogate=None, fixed_const: float = 1e-15) -> Causes:
    task = EvaluationTask(model, IMAGES, LABELS, eps=0.2)
    return measure_causes(task, surrogate, cw_n=12, fixed_const=fixed_const)


def _row(causes: Causes, name: str) -> dict:
    return next(row for row in causes.rows if row["cause"] == name)


@pytest.fixture(scope="module")
def plain() -> Causes:
    return _measure(_linear)


@pytest.fixture(scope="module")
def masked() -> Causes:
    return _measure(lambda images: 3000.0 * _linear(images), surrogate=_linear)


def test_logit_scale_is_the_cause_of_large_logits_only(plain, masked):
    assert _row(plain, "logit scale")["accuracy_on"] == 0
    assert "logit scale" not in plain.found
    row = _row(masked, "logit scale")
    assert row["reproduces"] and row["accuracy_off"] == 0 and row["accuracy_on"] > 0.5
    assert "logit scale" in masked.found and "logit scale (" in masked.text


def test_the_label_trap_corrects_mistakes(plain):
    row = _row(plain, "label trap")
    # Of the first twelve images four are misclassified; attacked towards their label, none is.
    assert row["accuracy_on"] == 1.0 > plain.clean_accuracy == pytest.approx(0.9)
    assert row["accuracy_off"] == 0 and row["reproduces"] and row["n"] == 12


def test_one_small_constant_finds_nothing_where_the_search_finds_all(plain):
    """1e-15 times the gradient is below Adam's epsilon of 1e-8: nothing moves."""
    row = _row(plain, "fixed-c CW")
    assert row["accuracy_on"] == pytest.approx(8 / 12) and row["accuracy_off"] == 0
    assert "fixed-c CW" in plain.found and "fixed-c CW (66.7 %" in plain.text


def test_probabilities_clip_where_logits_still_have_a_gradient(plain):
    """At a gap above 16.1 the clipped loss is constant; the logits' loss is not, up to 104."""
    assert not _row(plain, "loss on probabilities")["reproduces"]
    gap = np.sort((IMAGES - 0.5) @ WEIGHTS, axis=1)
    scale = 20.0 / float((gap[:, -1] - gap[:, -2]).min())
    factor = min(scale, 40.0)
    task = EvaluationTask(lambda x: factor * _linear(x), IMAGES, LABELS, eps=0.05)
    causes = measure_causes(task, cw_n=2)
    row = _row(causes, "loss on probabilities")
    assert row["reproduces"] and row["inflation"] > 0.2


def test_transfer_is_run_with_a_surrogate_only(plain, masked):
    row = _row(plain, "transfer")
    assert row["accuracy_on"] is None and not row["reproduces"]
    assert plain.text.endswith("not run: transfer")
    # White-box attacks fail on the masked model, while its surrogate's examples carry over.
    row = _row(masked, "transfer")
    assert row["accuracy_on"] == 0 and row["inflation"] < -0.5 and not row["reproduces"]


def test_an_unrelated_surrogate_inflates_and_a_large_constant_does_not():
    other = _RNG.normal(size=WEIGHTS.shape).astype(np.float32)
    found = _measure(_linear, lambda images: (images - 0.5) @ other, fixed_const=10.0)
    assert "transfer" in found.found
    assert _row(found, "fixed-c CW")["accuracy_on"] == 0 and "fixed-c CW" not in found.found


def test_the_table_is_plain_data(plain):
    found = json.loads(json.dumps(plain.to_dict()))
    assert [row["cause"] for row in found["rows"]] == [
        "logit scale",
        "loss on probabilities",
        "fixed-c CW",
        "label trap",
        "transfer",
    ]
    with pytest.raises(UserError, match="eps"):
        measure_causes(EvaluationTask(_linear, IMAGES, LABELS, eps=0))
