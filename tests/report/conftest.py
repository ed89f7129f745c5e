"""Metrics as a run writes them, with numbers whose findings are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


def flag(check: str, grade: str = "notice", **changes: Any) -> dict[str, Any]:
    """A check that was run and is clean, unless ``changes`` say otherwise."""
    clean = {
        "check": check,
        "grade": grade,
        "ran": True,
        "raised": False,
        "value": 0.001,
        "threshold": 0.005,
        "text": f"what {check} saw",
        "in_points": True,
        "decides": False,
    }
    return clean | changes


def evaluated(kind: str = "robust", robust: float = 0.88, **changes: Any) -> dict[str, Any]:
    """One entry of ``evaluations``: 500 images, 490 right, two attacks on the survivors."""
    low, high = robust - 0.031, robust + 0.026
    attacks = [
        {
            "attack": "APGD-CE",
            "config": {"eps": 0.3, "norm": "linf", "steps": 100, "seed": 7, "batch_size": 250},
            "n": 500,
            "attacked": 490,
            "broken": 40,
            "interval95": [0.87, 0.92],
            "left": 0.90,
            "left_interval95": [0.871, 0.923],
            "seconds": 12.34,
            "searched_again": 7,
            "passes": {"forward": 490 * 1101, "backward": 490 * 101},
        },
        {
            "attack": "Square",
            "config": {"eps": 0.3, "queries": 5000, "seed": 7},
            "n": 500,
            "attacked": 450,
            "broken": 450 - round(500 * robust),
            "interval95": [0.9, 0.95],
            "left": robust,
            "left_interval95": [low, high],
            "seconds": None,
        },
    ]
    found = {
        "suite": "standard",
        "eps": 0.3,
        "norm": "linf",
        "n": 500,
        "samples": 1,
        "note": "500 images: smaller differences may be chance",
        "clean_accuracy": 0.98,
        "clean_interval95": [0.9637, 0.9891],
        "robust_accuracy": robust,
        "robust_interval95": [low, high],
        "attacks": attacks,
        "verdict": {
            "robust": kind == "robust",
            "kind": kind,
            "accuracy": robust,
            "interval95": [low, high],
            "flags": [],
            "text": f"{kind}, said in one line",
        },
        "diagnosis": {
            "n": 200,
            "flags": [
                flag("loss choice"),
                flag("transfer", ran=False, value=None, threshold=None, text="not run: no model"),
                flag("convergence", raised=True, value=0.0123),
                flag("unbounded attack", "evidence", value=1.0, threshold=1.0),
                flag("large eps", "evidence", value=0.05, threshold=0.14),
            ],
        },
    }
    return found | changes


def masked(robust: float = 0.70) -> dict[str, Any]:
    """An evaluation whose evidence denies robustness."""
    scale = flag(
        "logit scale", "evidence", raised=True, value=0.605, decides=True, text="9.5 % of z / 100"
    )
    return evaluated("gradient masking", robust, diagnosis={"n": 200, "flags": [scale]})


def entry(evaluation: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """A model's part of metrics.json."""
    return {
        "clean_accuracy": evaluation["clean_accuracy"],
        "clean_interval95": evaluation["clean_interval95"],
        "n": evaluation["n"],
        "evaluations": [evaluation, *others],
    }


def radii(*shares: float, l2: float | None = None) -> dict[str, Any]:
    """Accuracy under PGD on 100 images at eps 0.1, 0.2, ..., each +- 0.1."""
    points = [
        {"eps": number / 10, "accuracy": share, "interval95": [share - 0.1, share + 0.1]}
        for number, share in enumerate(shares, 1)
    ]
    found: dict[str, Any] = {"attack": "PGD-40", "norm": "linf", "n": 100, "points": points}
    return found | {"mean_distance": {"l2": l2, "n": 90}}


@pytest.fixture
def make() -> SimpleNamespace:
    """Builders of what metrics.json holds of an evaluation."""
    return SimpleNamespace(evaluated=evaluated, masked=masked, entry=entry, flag=flag, radii=radii)


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Those of a run that hardened."""
    weak = evaluated("not robust", 0.0) | {"radii": radii(0.6, 0.2, l2=1.4)}
    strong = evaluated(robust=0.70) | {"radii": radii(0.9, 0.8, l2=2.25)}
    original, hardened = entry(weak), entry(strong)
    return {
        "dataset": "mnist",
        "models": {
            "original": original,
            "hardened": hardened,
        },
        "generated_set": {"n": 2000, "oracle_accuracy": 0.83, "entropy": 1.3, "classes": 10},
        "exported": "saved_models/mnist-bcgan/1",
    }
