"""The shards of an evaluation, each a run of its own, as one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.files import check_name
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig, ThreatModel
from bcgan_tf.workflows.attack import evaluation_file

# What may differ between the shards of one evaluation, and between where they were made.
_OTHERS = ("surrogate", "control")
_FREE = ("shard", "models", *_OTHERS, "deterministic")


def common_config(paths: Sequence[str | Path]) -> dict[str, Any]:
    """The settings of the whole, of which the runs are shards.

    Raises:
        UserError: a folder is no run of ``bcgan-tf attack`` with a suite, a setting is out of
            range, two runs differ in one, or a model has a name that no file may have.
    """
    runs = [RunDirectory.open(path) for path in paths]
    for run in runs:
        if run.command != "attack" or "suite" not in run.config or "eps" not in run.config:
            raise UserError(f"{run.path} holds no attack with a suite; give runs of its shards")
        _check_models(run)
        _check_settings(run)
    first = runs[0]
    for run in runs[1:]:
        for key in {**first.config, **run.config}:
            if key not in _FREE and first.config.get(key) != run.config.get(key):
                raise UserError(
                    f"{first.path} and {run.path} differ in {key} ({first.config.get(key)} and "
                    f"{run.config.get(key)}); merge the shards of one evaluation"
                )
    return first.config | {"shard": None}


def _check_settings(run: RunDirectory) -> None:
    try:
        EvaluationConfig.from_dict(run.config)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run.path}: the shards' settings cannot be read ({error}); attack them again"
        ) from error


def _check_models(run: RunDirectory) -> None:
    models, digests = run.config.get("models"), run.config.get("models_sha256")
    entries = [models, digests]
    texts = all(
        isinstance(x, dict) and all(isinstance(v, str) for v in x.values()) for x in entries
    )
    others = [run.config.get(key) for key in ("dataset", *_OTHERS)]
    texts = texts and all(x is None or isinstance(x, str) for x in others)
    if not texts or not models or set(models) != set(digests or ()):
        raise UserError(f"{run.path} does not say what it attacked; attack that shard again")
    for name in models:  # files are called by it
        check_name(name, f"a model of {run.path}")


def merged(shards: Sequence[str | Path], threats: Sequence[ThreatModel]) -> dict[str, Evaluation]:
    """Joins the evaluations of each model.

    Args:
        shards: their runs' folders, all of them, in any order.
        threats: the models under their threat models.

    Returns:
        By :attr:`ThreatModel.label`.

    Raises:
        UserError: a shard is missing, unfinished, given twice, or of another evaluation.
    """
    sources = [RunDirectory.open(path) for path in shards]
    found = {}
    for label in [threat.label for threat in threats]:
        for source in sources:
            if not source.stage_done(f"evaluate-{label}"):
                raise UserError(
                    f"{source.path} is not finished ({label}); go on with: "
                    f"{source.resuming_command}"
                )
        found[label] = archive.merge(
            [archive.load(evaluation_file(source, label)) for source in sources]
        )
    return found
