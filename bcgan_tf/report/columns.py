"""The columns of a comparison: one for each model, and threat model, of each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.errors import UserError
from bcgan_tf.report import evaluation_findings as findings
from bcgan_tf.report import evaluation_page, per_example
from bcgan_tf.runs.directory import RunDirectory


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One model under one threat model.

    Attributes:
        title: tells it from the other columns.
        run: where it was evaluated.
        model: its name there.
        evaluation: its entry of ``evaluations`` in metrics.json.
        arrays: ``worst_case`` and ``settings`` of its per-example file; empty without one.
    """

    title: str
    run: RunDirectory
    model: str
    evaluation: Mapping[str, Any]
    arrays: Mapping[str, Any]

    @property
    def data(self) -> str | None:
        """A digest of the images and labels; None where it is not known."""
        return self.arrays.get("settings", {}).get("identity", {}).get("data")


def columns_of(runs: Sequence[RunDirectory]) -> list[Column]:
    """One column for each model, and threat model, of each run.

    Raises:
        UserError: a run is given twice or holds no evaluation, or the runs are of different data
            sets, whose accuracies have nothing to do with each other.
    """
    _refuse_unfit(runs)
    found = [
        (run, model, evaluation)
        for run in runs
        for model, evaluation in evaluation_page.evaluations(run.metrics())
    ]
    titles = _titles(found)
    return [
        Column(title, run, model, evaluation, per_example.arrays(run, model, evaluation))
        for title, (run, model, evaluation) in zip(titles, found, strict=True)
    ]


def _refuse_unfit(runs: Sequence[RunDirectory]) -> None:
    seen: set[Path] = set()
    datasets: dict[str, list[str]] = {}
    for run in runs:
        if run.path.resolve() in seen:
            raise UserError(f"{run.path} was given twice; give each run once")
        seen.add(run.path.resolve())
        metrics = run.metrics()
        if not any(True for _ in evaluation_page.evaluations(metrics)):
            raise UserError(
                f"{run.path} holds no evaluation to compare; make one with "
                "`bcgan-tf attack --suite standard`"
            )
        name = str(metrics.get("dataset") or run.config.get("dataset", "unknown"))
        datasets.setdefault(name, []).append(str(run.path))
    if len(datasets) > 1:
        told = "; ".join(f"{name} in {', '.join(paths)}" for name, paths in datasets.items())
        raise UserError(f"the runs are of different data sets ({told}); compare runs of one")


_Found = tuple[RunDirectory, str, Mapping[str, Any]]


def _titles(found: Sequence[_Found]) -> list[str]:
    """The shortest names that tell all columns apart."""
    ways: tuple[Callable[[_Found], str], ...] = (
        lambda x: x[1],
        lambda x: f"{x[1]}, {findings.threat(x[2])}",
        lambda x: f"{x[0].path.name}: {x[1]}",
        lambda x: f"{x[0].path.name}: {x[1]}, {findings.threat(x[2])}",
        lambda x: f"{x[0].path}: {x[1]}, {findings.setting(x[2])}",
    )
    for way in ways:
        titles = [way(item) for item in found]
        if len(set(titles)) == len(titles):
            return titles
    return [f"{ways[-1](item)} ({number})" for number, item in enumerate(found, 1)]


def runs_of(columns: Iterable[Column]) -> list[RunDirectory]:
    """The runs of the columns, each once."""
    return list({column.run.path: column.run for column in columns}.values())
