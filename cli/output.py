"""Results on stdout: a table for people, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from bcgan_tf.files import as_json

from .command import STDOUT

if TYPE_CHECKING:
    from bcgan_tf.runs.directory import RunDirectory


def print_json(content: Any) -> None:
    """One JSON document; what is not a number is null."""
    _print(json.dumps(as_json(content), indent=2, allow_nan=False))


def print_paths(paths: Mapping[str, Path | str]) -> None:
    """``name: path``, a line each."""
    width = max(map(len, paths))
    for name, path in paths.items():
        _print(f"{name:<{width}}  {path}")


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Dicts of the same keys, a row each."""
    table = Table(title=title)
    for name in rows[0]:
        number = isinstance(rows[0][name], int | float)
        table.add_column(name.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def console() -> Console:
    """As wide as the terminal; into a file or a pipe, wide enough for any table."""
    stdout = click.get_current_context().meta[STDOUT]
    return Console(file=stdout, width=None if Console(file=stdout).is_terminal else 120)


def finish(run: RunDirectory, metrics: Mapping[str, Any], as_json: bool) -> None:
    """Writes the report of a run of attacks, and prints what it found."""
    from bcgan_tf.workflows import run as pipeline

    report = pipeline.report(run)
    if as_json:
        print_json({**metrics, "run": str(run.path)})
        return
    print_evaluations(metrics)
    print_paths({"report": report})


def print_evaluations(metrics: Mapping[str, Any]) -> None:
    """For each model and threat model: what each attack broke, the worst case, and the verdict."""
    from bcgan_tf.report import evaluation_findings as findings

    for name, model in metrics["models"].items():
        for evaluation in model["evaluations"]:
            title = f"{name}, {metrics['dataset']}: {findings.setting(evaluation)}"
            notes = [evaluation.get("reading")]
            if shard := evaluation.get("shard"):
                notes.append(f"shard {shard}")
            _print_attacks("\n".join([title, *filter(None, notes)]), evaluation)
            if judged := evaluation.get("verdict"):
                _print(f"Verdict: {judged['text']}")
            elif shard:
                _print("No verdict on a shard: bcgan-tf attack merge joins them and gives one.")
            else:
                _print("No verdict: not diagnosed.")
            if proved := findings.certified(evaluation):
                _print(proved)
            if causes := evaluation.get("causes"):
                _print(f"Causes: {causes['text']}")
            if rho := evaluation.get("minimum_perturbation"):
                best, shown = rho["rho_best"], {"linf": "Linf", "l2": "L2"}[rho["norm"]]
                _print(
                    f"Smallest perturbation, {shown}: mean {_shown(best['mean'])}, median "
                    f"{_shown(best['median'])}, nothing found for {_share(best['censored_share'])}"
                )


def _print_attacks(title: str, evaluation: Mapping[str, Any]) -> None:
    table = Table(title=title)
    for column in ("", "attacked", "broken", "left", "95 % interval", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    clean = (_share(evaluation["clean_accuracy"]), _interval(evaluation["clean_interval95"]))
    table.add_row("no attack", "", "", *clean, "")
    for attack in evaluation["attacks"]:
        seconds = attack["seconds"]
        table.add_row(
            attack["attack"],
            f"{attack['attacked']:,}",
            f"{attack['broken']:,}",
            _share(attack["left"]),
            _interval(attack["left_interval95"]),
            "-" if seconds is None else f"{seconds:.1f}",
        )
    worst = (_share(evaluation["robust_accuracy"]), _interval(evaluation["robust_interval95"]))
    table.add_row("worst case", "", "", *worst, "", style="bold")
    console().print(table)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(ends: Sequence[float]) -> str:
    return "{:.1f} to {:.1f}".format(*(100 * end for end in ends))


def _print(text: str) -> None:
    click.echo(text, file=click.get_current_context().meta[STDOUT])


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """The headline table, and in words what the defence did and did not achieve."""
    from bcgan_tf.report import findings
    from bcgan_tf.report.table import headline_rows

    models = list(metrics["models"])
    table = Table(title=f"{metrics['dataset']}: share of test images classified right")
    table.add_column("")
    for name in models:
        table.add_column(name, justify="right")
    for row in headline_rows(metrics):
        cells = [row.cells[m].text(row.kind) if m in row.cells else "" for m in models]
        table.add_row(row.label, *cells, style="bold" if row.worst else None)
    console().print(table)
    for sentence in findings.verdict(metrics):
        _print(sentence)
    for doubt in findings.doubts(metrics):
        _print(f"Doubtful: {doubt}")
