"""An evaluation in one line: the task, and the attacks on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bcgan_tf.attacks import Attack
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask

_OF_RUN = ("shard", "skip_certified", "state", "progress")


def evaluate(
    model: Any, data: tuple[Any, Any], attacks: str | Sequence[Attack] = "standard", **options: Any
) -> Evaluation:
    """``run_suite`` on the task of ``model`` and ``data``; the options are of either of them."""
    of_run = {name: options.pop(name) for name in _OF_RUN if name in options}
    return run_suite(EvaluationTask(model, *data, **options), attacks, **of_run)
