"""Several evaluations side by side, and whether they may be compared at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError
from bcgan_tf.files import as_json
from bcgan_tf.report import evaluation_page, findings, per_example
from bcgan_tf.report.table import NORMS, Cell, Table, TableRow, accuracy, count, interval_of
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.statistics import compare_paired


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One model under one threat model.

    Attributes:
        title: tells it from the other columns.
        model: its name.
        evaluation: its entry of ``evaluations`` in metrics.json.
        worst_case: bool ``[N]``, what survived every attack; None where it is not known.
        data: a digest of the images and labels; None where it is not known.
        run: where it was evaluated; None: not in a run.
    """

    title: str
    model: str
    evaluation: Mapping[str, Any]
    worst_case: np.ndarray | None = None
    data: str | None = None
    run: RunDirectory | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is shown of several columns.

    Attributes:
        suspicions: why clean accuracies cannot be relied on, to be said first.
        differences: in which ways they were not measured alike, one sentence each; none: they are
            comparable.
        table: a column each.
        gains: each column against the first, where both were measured alike.
        remarks: what else a reader should know, without which they can still be compared.
    """

    suspicions: list[str]
    differences: list[str]
    table: Table
    gains: list[str]
    remarks: list[str]

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Comparison:
        """The comparison of at least one column."""
        return cls(
            findings.suspicions({column.title: column.evaluation for column in columns}),
            differences(columns),
            table(columns),
            gains(columns),
            remarks(columns),
        )

    def __str__(self) -> str:
        """The table, and below it the sentences, for a terminal."""
        first = [*self.suspicions, str(self.table)]
        told = [f"Not alike: {sentence}" for sentence in self.differences]
        told += [*self.gains, *(f"Note: {remark}" for remark in self.remarks)]
        return "\n".join([*first, *told])


_Found = tuple[RunDirectory | None, str, Mapping[str, Any]]


def columns_of(runs: Sequence[RunDirectory]) -> list[Column]:
    """One column for each model, and threat model, of each run.

    Raises:
        UserError: a run is given twice or holds no evaluation, or the runs are of different data
            sets, whose accuracies have nothing to do with each other.
    """
    _refuse_unfit(runs)
    return _columns(
        [
            (run, model, evaluation)
            for run in runs
            for model, evaluation in evaluation_page.evaluations(run.metrics())
        ]
    )


def columns_of_metrics(metrics: Mapping[str, Any], run: RunDirectory | None) -> list[Column]:
    """One column for each model, and threat model, of the content of metrics.json.

    Args:
        metrics: see :mod:`bcgan_tf.report.page`.
        run: with the per-example files; None: there are none.
    """
    return _columns([(run, *found) for found in evaluation_page.evaluations(metrics)])


def _columns(found: Sequence[_Found]) -> list[Column]:
    columns = []
    for title, (run, model, evaluation) in zip(_titles(found), found, strict=True):
        arrays = per_example.arrays(run.path if run else None, model, evaluation)
        data = arrays.get("settings", {}).get("identity", {}).get("data")
        columns.append(Column(title, model, evaluation, arrays.get("worst_case"), data, run))
    return columns


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


def _titles(found: Sequence[_Found]) -> list[str]:
    """The shortest names that tell all columns apart."""

    def of(name: Callable[[RunDirectory], object], model: str, run: RunDirectory | None) -> str:
        return f"{name(run)}: {model}" if run else model

    ways: tuple[Callable[[_Found], str], ...] = (
        lambda x: x[1],
        lambda x: f"{x[1]}, {findings.threat(x[2])}",
        lambda x: of(lambda run: run.path.name, x[1], x[0]),
        lambda x: f"{of(lambda run: run.path.name, x[1], x[0])}, {findings.threat(x[2])}",
        lambda x: f"{of(lambda run: run.path, x[1], x[0])}, {findings.setting(x[2])}",
    )
    for way in ways:
        titles = [way(item) for item in found]
        if len(set(titles)) == len(titles):
            return titles
    return [f"{ways[-1](item)} ({number})" for number, item in enumerate(found, 1)]


def runs_of(columns: Iterable[Column]) -> list[RunDirectory]:
    """The runs of the columns, each once."""
    runs = (column.run for column in columns)
    return list({run.path: run for run in runs if run}.values())


def versions(run: RunDirectory) -> list[str]:
    """What a run was made with, such as ``tensorflow 2.20.0``."""
    env = run.env()
    return [f"{name} {env[name]}" for name in ("bcgan_tf", "tensorflow", "keras") if name in env]


def differences(columns: Sequence[Column]) -> list[str]:
    """In which ways the columns were not measured alike, one sentence each; none: comparable."""
    aspects: tuple[tuple[str, str, Callable[[Column], Any]], ...] = (
        ("threat models", "a larger eps or another norm is another question",
         lambda c: findings.threat(c.evaluation)),
        ("numbers of images", "the intervals differ, and the images are not the same",
         lambda c: f"{c.evaluation.get('n', 0):,}"),
        ("suites", "fewer or weaker attacks leave a higher accuracy",
         lambda c: c.evaluation.get("suite") or "chosen attacks"),
        ("calls of the model that were averaged", "single calls mislead attacks on a random model",
         lambda c: c.evaluation.get("samples") or 1),
        ("precisions of the search", "one in bfloat16 may overlook what float32 finds",
         lambda c: c.evaluation.get("precision") or "float32"),
        ("shards", "a shard holds other images", lambda c: c.evaluation.get("shard") or "all"),
    )  # fmt: skip
    found = [
        f"Different {what}: {_grouped(columns, value)}; {why}."
        for what, why, value in aspects
        if len({value(column) for column in columns}) > 1
    ]
    counts = {column.evaluation.get("n") for column in columns}
    known = {column.data for column in columns if column.data}
    if len(counts) == 1 and len(known) > 1:
        found.append("The images are not the same ones; only large differences mean anything.")
    suites = {column.evaluation.get("suite") for column in columns}
    threats = {findings.threat(column.evaluation) for column in columns}
    if len(suites) == len(threats) == 1 and len({_attacks(c) for c in columns}) > 1:
        found.append(
            f"The attacks or their settings differ within the suite: "
            f"{_grouped(columns, lambda c: ', '.join(map(str, _attack_names(c))))}."
        )
    return found


def remarks(columns: Sequence[Column]) -> list[str]:
    """What else a reader should know, without which the columns can still be compared."""
    found = []
    missing = [column.title for column in columns if column.data is None]
    if missing and len(runs_of(columns)) > 1:
        found.append(
            "Whether the images are the same is not known: no readable evaluation-*.npz of "
            f"{', '.join(missing)}."
        )
    if len({_version(column) for column in columns}) > 1:
        told = _grouped(columns, _version)
        found.append(f"Measured with different versions of bcgan_tf: {told}.")
    return found


def _version(column: Column) -> str:
    return str(column.run.env().get("bcgan_tf", "unknown")) if column.run else ""


def _grouped(columns: Sequence[Column], value: Callable[[Column], Any]) -> str:
    groups: dict[str, list[str]] = {}
    for column in columns:
        groups.setdefault(str(value(column)), []).append(column.title)
    return "; ".join(f"{name} ({', '.join(titles)})" for name, titles in groups.items())


def _attack_names(column: Column) -> list[str]:
    return [attack.get("attack", "") for attack in (column.evaluation.get("attacks") or [])]


def _attacks(column: Column) -> str:
    """Names and settings, as far as they change a result."""
    told = [
        (
            attack.get("attack"),
            {k: v for k, v in attack.get("config", {}).items() if k not in ("batch_size", "seed")},
        )
        for attack in (column.evaluation.get("attacks") or [])
    ]
    return json.dumps(as_json(told), sort_keys=True)


def table(columns: Sequence[Column]) -> Table:
    """Verdict and worst case first, then what they rest on."""
    evaluations = [column.evaluation for column in columns]

    def row(
        label: str, cell: Callable[[Mapping[str, Any]], Cell | str], strong: bool = False
    ) -> TableRow:
        return TableRow.of(label, *map(cell, evaluations), strong=strong)

    rows = [
        row("verdict", _verdict, strong=True),
        row("robust accuracy, worst case", findings.robust_accuracy, strong=True),
        row("clean accuracy", lambda e: accuracy(e, "clean_")),
    ]
    if any(e.get("certified") for e in evaluations):
        rows.append(row("certified, whatever the attack", _certified))
    names = dict.fromkeys(name for column in columns for name in _attack_names(column))
    rows += [row(f"left after {name}", lambda e, name=name: _left(e, name)) for name in names]
    rows.append(row("red flags, evidence", lambda e: _raised(e, "evidence")))
    rows.append(row("red flags, notices", lambda e: _raised(e, "notice")))
    rows.append(row("checks not run", _not_run))
    if any(e.get("minimum_perturbation") for e in evaluations):
        rows.append(row("smallest perturbation, median", _median))
    rows += [
        row("threat model", findings.threat),
        row("suite", lambda e: e.get("suite") or "chosen attacks"),
        row("images", lambda e: count(e.get("n"))),
        row("seeds", _seeds),
    ]
    return Table(("", *(column.title for column in columns)), tuple(rows))


def _verdict(evaluation: Mapping[str, Any]) -> Cell:
    words, severity = findings.headline(evaluation)
    return Cell(words, severity=severity)


def _certified(evaluation: Mapping[str, Any]) -> Cell | str:
    proved = evaluation.get("certified")
    return accuracy(proved) if proved else "none"


def _left(evaluation: Mapping[str, Any], name: str) -> Cell | str:
    for attack in evaluation.get("attacks") or []:
        if attack.get("attack") == name:
            return accuracy(attack, "left_", "left")
    return "not run"


def _raised(evaluation: Mapping[str, Any], grade: str) -> str:
    flags = findings.flags_of(evaluation)
    if not flags:
        return "not checked"
    raised = [f["check"] for f in flags if f.get("raised") and f.get("grade") == grade]
    return ", ".join(raised) or "none"


def _not_run(evaluation: Mapping[str, Any]) -> str:
    flags = findings.flags_of(evaluation)
    if not flags:
        return "all"
    return ", ".join(f["check"] for f in flags if not f.get("ran", True)) or "none"


def _median(evaluation: Mapping[str, Any]) -> str:
    found = evaluation.get("minimum_perturbation") or {}
    median = found.get("rho_best", {}).get("median")
    if median is None:
        return "unknown" if found else "not measured"
    return f"{NORMS[found.get('norm', 'linf')]} {median:.4f}"


def _seeds(evaluation: Mapping[str, Any]) -> str:
    seeds = {a.get("config", {}).get("seed") for a in (evaluation.get("attacks") or [])} - {None}
    return ", ".join(map(str, sorted(seeds))) or "-"


def gains(columns: Sequence[Column]) -> list[str]:
    """Each column against the first, where both were measured alike; none where they were not."""
    if len(columns) < 2 or differences(columns):
        return []
    first, *others = columns
    return [_gain(first, other) for other in others]


def _gain(first: Column, other: Column) -> str:
    doubtful = [
        column.title
        for column in (first, other)
        if findings.kind_of(column.evaluation) not in findings.VOUCHED
    ]
    before = first.evaluation.get("robust_accuracy")
    after = other.evaluation.get("robust_accuracy")
    if doubtful or before is None or after is None:
        return (
            f"{other.title} against {first.title}: no comparison of the robust accuracies, since "
            f"no verdict vouches for that of {' and '.join(doubtful) or 'one of them'}."
        )
    points = 100 * (after - before)
    return (
        f"{other.title} against {first.title}: robust accuracy {100 * after:.1f} % instead of "
        f"{100 * before:.1f} % ({points:+.1f} points), {_significance(first, other)}."
    )


def _significance(first: Column, other: Column) -> str:
    """McNemar's exact test on the same images; without them, whether the intervals overlap."""
    a, b = first.worst_case, other.worst_case
    if a is not None and b is not None and first.data and first.data == other.data:
        paired = compare_paired(a, b)
        told = f"on the same images: {paired.gained:,} gained, {paired.lost:,} lost"
        return f"{'more' if paired.significant else 'no more'} than chance can explain ({told})"
    ends = [interval_of(c.evaluation, "robust_") for c in (first, other)]
    if None in ends:
        return "without intervals, so that it may be chance"
    (low, high), (other_low, other_high) = (end for end in ends if end is not None)
    apart = other_low > high or low > other_high
    return f"their 95 % intervals {'do not overlap' if apart else 'overlap: it may be chance'}"


def summary(columns: Sequence[Column]) -> dict[str, Any]:
    """The comparison as JSON."""
    return {
        "columns": [
            {
                "title": column.title,
                "run": str(column.run.path) if column.run else None,
                "model": column.model,
                "verdict": findings.kind_of(column.evaluation) or None,
                **{
                    key: column.evaluation.get(key)
                    for key in (
                        "norm", "eps", "suite", "n", "samples", "clean_accuracy",
                        "clean_interval95", "robust_accuracy", "robust_interval95",
                    )
                },
                "flags": [f["check"] for f in findings.flags_of(column.evaluation) if f["raised"]],
            }
            for column in columns
        ],
        "differences": differences(columns),
        "remarks": remarks(columns),
        "gains": gains(columns),
    }  # fmt: skip
