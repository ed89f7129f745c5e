"""Several evaluations side by side, and whether they may be compared at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bcgan_tf.files import as_json
from bcgan_tf.report import evaluation_findings as findings
from bcgan_tf.report.columns import Column, runs_of
from bcgan_tf.statistics import compare_paired


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: ``cells`` has a text and a tone for each column."""

    label: str
    cells: list[tuple[str, str]]
    strong: bool = False


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
    versions = {str(column.run.env().get("bcgan_tf", "unknown")) for column in columns}
    if len(versions) > 1:
        told = _grouped(columns, lambda c: str(c.run.env().get("bcgan_tf", "unknown")))
        found.append(f"Measured with different versions of bcgan_tf: {told}.")
    return found


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


def rows(columns: Sequence[Column]) -> list[Row]:
    """The table: verdict and worst case first, then what they rest on."""

    def row(label: str, cell: Callable[[Mapping[str, Any]], str], strong: bool = False) -> Row:
        return Row(label, [(cell(c.evaluation), "") for c in columns], strong)

    verdicts = [findings.headline(column.evaluation) for column in columns]
    found = [
        Row("verdict", verdicts, True),
        row("robust accuracy, worst case", findings.robust_accuracy, True),
        row(
            "clean accuracy",
            lambda e: findings.accuracy(e.get("clean_accuracy"), findings.interval_of(e, "clean_")),
        ),
    ]
    if any(column.evaluation.get("certified") for column in columns):
        found.append(row("certified, whatever the attack", _certified))
    names = dict.fromkeys(name for column in columns for name in _attack_names(column))
    found += [row(f"left after {name}", lambda e, name=name: _left(e, name)) for name in names]
    found.append(row("red flags, evidence", lambda e: _raised(e, "evidence")))
    found.append(row("red flags, notices", lambda e: _raised(e, "notice")))
    found.append(row("checks not run", _not_run))
    if any(column.evaluation.get("minimum_perturbation") for column in columns):
        found.append(row("smallest perturbation, median", _median))
    found += [
        row("threat model", findings.threat),
        row("suite", lambda e: e.get("suite") or "chosen attacks"),
        row("images", lambda e: f"{e['n']:,}" if e.get("n") is not None else "-"),
        row("seeds", _seeds),
    ]
    return found


def _certified(evaluation: Mapping[str, Any]) -> str:
    proved = evaluation.get("certified")
    return findings.accuracy(proved["accuracy"], findings.interval_of(proved)) if proved else "none"


def _left(evaluation: Mapping[str, Any], name: str) -> str:
    for attack in evaluation.get("attacks") or []:
        if attack.get("attack") == name:
            return findings.accuracy(attack.get("left"), findings.interval_of(attack, "left_"))
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
    return f"{'Linf' if found.get('norm', 'linf') == 'linf' else 'L2'} {median:.4f}"


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
    a, b = first.arrays.get("worst_case"), other.arrays.get("worst_case")
    if a is not None and b is not None and first.data and first.data == other.data:
        paired = compare_paired(a, b)
        told = f"on the same images: {paired.gained:,} gained, {paired.lost:,} lost"
        return f"{'more' if paired.significant else 'no more'} than chance can explain ({told})"
    ends = [findings.interval_of(c.evaluation, "robust_") for c in (first, other)]
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
                "run": str(column.run.path),
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
