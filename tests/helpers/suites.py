"""An evaluation in one line, and a planned end of one: it takes longer than all the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bcgan_tf.attacks import Attack
from bcgan_tf.diagnosis.diagnostics import Diagnosis
from bcgan_tf.diagnosis.flags import Flag
from bcgan_tf.evaluation.gradient_health import GradientHealth
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.workflows import attack as assessment

_OF_RUN = ("shard", "skip_certified", "state", "progress")


def evaluate(
    model: Any, data: tuple[Any, Any], attacks: str | Sequence[Attack] = "standard", **options: Any
) -> Evaluation:
    """``run_suite`` on the task of ``model`` and ``data``; the options are of either of them."""
    of_run = {name: options.pop(name) for name in _OF_RUN if name in options}
    return run_suite(EvaluationTask(model, *data, **options), attacks, **of_run)


def planned_diagnosis(*_: Any, raised: bool = False, **_options: Any) -> Diagnosis:
    none = np.zeros(3, bool)
    health = GradientHealth(~none, False, False, none, none, none)
    flag = Flag("logit scale", "evidence", True, raised, 0.4, 0.005, "as planted")
    return Diagnosis((flag,), health, 3, 1, False)


def plan_diagnosis(
    monkeypatch: pytest.MonkeyPatch, diagnose: Callable[..., Diagnosis] = planned_diagnosis
) -> None:
    """In place of the diagnosis, the loss curves and the accuracy over radii."""
    radii = {"attack": "PGD-40", "norm": "linf", "n": 1, "points": [{"eps": 0.0, "accuracy": 1.0}]}
    monkeypatch.setattr(assessment, "diagnose", diagnose)
    monkeypatch.setattr(assessment, "loss_curves", lambda *_, **_options: {"iterations": [0, 1]})
    monkeypatch.setattr(assessment, "measure_radii", lambda *_, **_options: radii)
