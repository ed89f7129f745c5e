"""What the report says in words follows from the numbers, also where they are bad."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bcgan_tf.report.findings import doubts, generated_rows, verdict
from bcgan_tf.report.table import attack_label, eps_text, headline_rows


def test_the_verdict_says_what_the_defence_did_and_did_not(metrics: dict[str, Any]) -> None:
    assert verdict(metrics) == [
        "Clean accuracy went from 99.0 % to 97.5 % (-1.5 points).",
        "Robust accuracy (worst case) went from 60.0 % to 70.0 % at eps 0.1, "
        "0.0 % to 0.0 % at eps 0.3.",
        "In short: the defence raised it by more than chance at eps 0.1; "
        "it made no difference beyond chance at eps 0.3.",
        "CW-L2, which has no bound, succeeds on 100.0 % of the hardened classifier's right "
        "answers, at a mean L2 distance of 1.75 (original: 100.0 %, 1.40).",
    ]


@pytest.mark.parametrize(
    ("before", "after", "n", "words"),
    [
        (0.60, 0.70, 1000, "raised it by more than chance"),
        # 10 points on 100 images: 1.96 * sqrt(0.6 * 0.4 / 100 + 0.7 * 0.3 / 100) = 13.1 points
        (0.60, 0.70, 100, "At none of these eps"),
        (0.70, 0.60, 1000, "lowered it at eps 0.1"),
        (0.70, 0.60, 1000, "so it gave no robustness"),
        (0.0, 0.0, 1000, "At none of these eps"),
        (1.0, 1.0, 1000, "At none of these eps"),
    ],
)
def test_chance_is_told_from_effect(before: float, after: float, n: int, words: str) -> None:
    def only(share: float) -> dict[str, Any]:
        return {
            "clean_accuracy": 0.9,
            "worst_case": [{"eps": 0.1, "robust_accuracy": share, "n": n}],
        }

    sentences = verdict({"models": {"original": only(before), "hardened": only(after)}})
    assert words in sentences[2]


def test_one_model_alone_is_described(metrics: dict[str, Any]) -> None:
    del metrics["models"]["hardened"]
    assert verdict(metrics) == [
        "original: clean accuracy 99.0 %, 60.0 % at eps 0.1, 0.0 % at eps 0.3."
    ]
    assert verdict({}) == []


def test_sound_attacks_raise_no_doubt(metrics: dict[str, Any]) -> None:
    assert doubts(metrics) == []


def test_failing_attacks_are_named(metrics: dict[str, Any]) -> None:
    masked = copy.deepcopy(metrics)
    fgsm1, fgsm3, pgd1, pgd3, cw = masked["models"]["hardened"]["attacks"]
    fgsm1["robust_accuracy"], fgsm3["robust_accuracy"] = 0.80, 0.90
    pgd1["robust_accuracy"], pgd3["robust_accuracy"] = 0.85, 0.70
    cw["success_rate"] = 0.4
    assert doubts(masked) == [
        "hardened: CW-L2 without a bound succeeds on only 40.0 %; a sound search reaches 100 %.",
        "hardened: robust accuracy under FGSM rises with eps.",
        "hardened: PGD-40 is weaker than one FGSM step at eps 0.1 (85.0 % against 80.0 %).",
    ]


def test_an_attack_is_named_with_what_counts() -> None:
    pgd = {"attack": "PGD-40", "config": {"eps": 8 / 255, "steps": 40, "restarts": 5}}
    assert attack_label(pgd) == "PGD-40, eps 8/255, 5 restarts"
    cw = {"attack": "CW-L2", "config": {"steps": 1000, "confidence": 0}}
    assert attack_label(cw) == "CW-L2, 1000 steps"
    assert [eps_text(e) for e in (0.3, 0.05, 0.025, 0.1 + 0.2, 2 / 255, 1 / 3)] == [
        "0.3", "0.05", "0.025", "0.3", "2/255", "85/255",
    ]  # fmt: skip


def test_the_table_has_a_row_a_measurement(metrics: dict[str, Any]) -> None:
    rows = headline_rows(metrics)
    assert [(row.label, row.kind, row.worst) for row in rows] == [
        ("clean", "accuracy", False),
        ("FGSM, eps 0.1", "accuracy", False),
        ("FGSM, eps 0.3", "accuracy", False),
        ("PGD-40, eps 0.1", "accuracy", False),
        ("PGD-40, eps 0.3", "accuracy", False),
        ("worst case at eps 0.1", "accuracy", True),
        ("worst case at eps 0.3", "accuracy", True),
        ("CW-L2, 200 steps: success", "success", False),
        ("CW-L2, 200 steps: mean L2 of the successes", "distance", False),
    ]
    cells = [row.cells["hardened"].text(row.kind) for row in rows]
    assert cells[0] == "97.5 % (97.1 to 97.9), n = 10,000"
    assert cells[3] == "70.0 % (67.0 to 73.0), n = 1,000"
    assert cells[-2:] == ["100.0 %, n = 100", "1.750"]


def test_an_attack_that_found_nothing_has_no_distance(metrics: dict[str, Any]) -> None:
    cw = metrics["models"]["hardened"]["attacks"][-1]
    cw.update(success_rate=0.0, mean_l2=None)
    last = headline_rows(metrics)[-1]
    assert last.cells["hardened"].text(last.kind) == "none found"
    assert len(verdict(metrics)) == 3 and len(doubts(metrics)) == 1


def test_the_generated_set_is_explained() -> None:
    rows = generated_rows({"n": 2000, "oracle_accuracy": 0.834, "entropy": 1.3, "classes": 10})
    assert [row[:2] for row in rows] == [
        ("samples", "2,000"),
        ("oracle accuracy on c", "83.4 %"),
        ("mean entropy", "1.300"),
    ]
    assert "at most 2.30" in rows[2][2]
