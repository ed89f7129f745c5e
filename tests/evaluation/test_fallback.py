"""What of a search in bfloat16 says that one in float32 must follow."""

from __future__ import annotations

import numpy as np
import pytest

from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.attacks.suites import suite
from bcgan_tf.evaluation.fallback import why_go_on
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.evaluations import EPS, LABELS, PIXELS, linear

N = 1000


def _evaluation(
    broken: dict[str, int], precision: str = "bfloat16", name: str = "standard"
) -> Evaluation:
    """A suite, where some of its attacks broke so many images."""
    results, start = [], 0
    for attack in suite(name, EPS, num_classes=4, precision=precision):
        success = np.zeros(N, bool)
        success[start : start + broken.get(attack.name, 0)] = True
        start += success.sum()
        results.append(
            AttackResult(
                attack=attack.name, config={}, adversarials=np.zeros((N, 1), np.float32),
                clean_correct=np.ones(N, bool), attacked=np.ones(N, bool), success=success,
                linf=np.zeros(N), l2=np.zeros(N), uses_gradients=attack.uses_gradients,
            )
        )  # fmt: skip
    labels = np.zeros(N, np.int64)
    return Evaluation(tuple(results), labels, np.arange(N), EPS, "linf", name, precision=precision)


@pytest.mark.parametrize(
    ("broken", "precision", "reason"),
    [
        ({"APGD-CE": 500, "FAB-T": 20, "Square": 5, "APGD-T in float32": 2}, "bfloat16", None),
        (
            {"APGD-T": 300, "APGD-T in float32": 3},
            "bfloat16",
            "APGD-T in float32 broke 3 that the search in bfloat16 had left",
        ),
        # All of Square was tried: there is nothing to go on with.
        ({"Square": 600}, "bfloat16", None),
        ({"Square": 600}, "float32", None),
    ],
)
def test_what_came_late_is_counted(broken, precision, reason):
    task = EvaluationTask(linear, PIXELS, LABELS, eps=EPS)
    assert why_go_on(task, _evaluation(broken, precision)) == reason


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_of_fast_a_short_search_and_the_sample_count(precision):
    """Seven images of 1,000, and one of the sample's 200, may be chance; what was near may fall."""
    task = EvaluationTask(linear, PIXELS, LABELS, eps=EPS)

    def reason(broken: dict[str, int]) -> str | None:
        return why_go_on(task, _evaluation(broken, precision, "fast"))

    assert reason({"CR": 300, "Square (short)": 7, "Square (near)": 50}) is None
    because = "Square (short) broke 8 that attacks along the gradient had left"
    assert reason({"Square (short)": 8}) == because
    if precision == "bfloat16":
        last = "APGD-T in float32 (sample)"
        assert reason({last: 1}) is None
        assert reason({last: 2}) == f"{last} broke 2 that the search in bfloat16 had left"
