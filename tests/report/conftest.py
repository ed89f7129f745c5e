"""Metrics as a run writes them, with numbers whose findings are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


def attack(name: str, eps: float | None, accuracy: float, **config: Any) -> dict[str, Any]:
    settings = config if eps is None else {"eps": eps, "norm": "linf", **config}
    return {
        "attack": name,
        "config": settings,
        "robust_accuracy": accuracy,
        "interval": [max(0.0, accuracy - 0.03), min(1.0, accuracy + 0.03)],
        "n": 1000,
        "success_rate": 1 - accuracy,
        "mean_l2": 1.5,
    }


def model(clean: float, fgsm: list[float], pgd: list[float], l2: float) -> dict[str, Any]:
    radii = [0.1, 0.3]
    return {
        "clean_accuracy": clean,
        "clean_interval95": [clean - 0.004, clean + 0.004],
        "n": 10000,
        "attacks": [
            *(attack("FGSM", eps, a) for eps, a in zip(radii, fgsm, strict=True)),
            *(attack("PGD-40", e, a, steps=40) for e, a in zip(radii, pgd, strict=True)),
            {**attack("CW-L2", None, 0.0, steps=200), "mean_l2": l2, "n": 100},
        ],
        "worst_case": [
            {"eps": eps, "robust_accuracy": a, "interval": [a, a + 0.01], "n": 1000}
            for eps, a in zip(radii, pgd, strict=True)
        ],
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "dataset": "mnist",
        "models": {
            "original": model(0.99, [0.72, 0.05], [0.60, 0.0], 1.4),
            "hardened": model(0.975, [0.80, 0.06], [0.70, 0.0], 1.75),
        },
        "generated_set": {
            "n": 2000,
            "oracle_accuracy": 0.83,
            "confidence": 0.55,
            "entropy": 1.3,
            "relative_diversity": 0.8,
            "classes": 10,
        },
        "exported": "saved_models/mnist-bcgan/1",
    }


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


@pytest.fixture
def make() -> SimpleNamespace:
    """Builders of what metrics.json holds of an evaluation."""
    return SimpleNamespace(evaluated=evaluated, masked=masked, entry=entry, flag=flag)
