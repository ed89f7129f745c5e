"""Metrics as a run writes them, with numbers whose findings are known."""

from __future__ import annotations

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
        "clean_interval": [clean - 0.004, clean + 0.004],
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
