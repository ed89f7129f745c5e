"""Results on stdout: a table for people, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bcgan_tf.files import as_json

from .command import STDOUT

if TYPE_CHECKING:
    from bcgan_tf.report.table import Table as ResultTable
    from bcgan_tf.runs.directory import RunDirectory


def print_json(content: Any) -> None:
    """One JSON document; what is not a number is null."""
    _print(json.dumps(as_json(content), indent=2, allow_nan=False))


def print_line(text: str) -> None:
    """A sentence."""
    _print(text)


def print_paths(paths: Mapping[str, Path | str]) -> None:
    """``name: path``, a line each."""
    width = max(map(len, paths))
    for name, path in paths.items():
        _print(f"{name:<{width}}  {path}")


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Dicts of the same keys, a row each."""
    from bcgan_tf.report.table import rows_table

    print_table(rows_table(rows), title)


def print_table(table: ResultTable, title: str = "") -> None:
    """A table of :mod:`bcgan_tf.report.table`."""
    shown = Table(title=Text(title) if title else None)
    for number, name in enumerate(table.head):
        shown.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        cells = (Text(str(cell)) for cell in row.cells)
        shown.add_row(*cells, style="bold" if row.strong else None)
    console().print(shown)


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
    print_metrics(metrics)
    print_gains(run, metrics)
    print_paths({"report": report})


def print_gains(run: RunDirectory, metrics: Mapping[str, Any]) -> None:
    """The robust accuracy of each model against the first, on the same images."""
    from bcgan_tf.report.comparison import columns_of_metrics, gains

    for line in gains(columns_of_metrics(metrics, run)):
        _print(line)


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """What was measured: clean accuracies, or what each attack broke and the verdict."""
    from bcgan_tf.report import findings
    from bcgan_tf.report.table import attack_table, clean_table

    for sentence in findings.suspicions(metrics["models"]):
        _print(sentence)
    if (clean := clean_table(metrics["models"])).rows:
        print_table(clean, f"{metrics['dataset']}: share of test images classified right")
    for name, model in metrics["models"].items():
        for evaluation in model.get("evaluations", []):
            title = f"{name}, {metrics['dataset']}: {findings.setting(evaluation)}"
            notes = [evaluation.get("reading")]
            if shard := evaluation.get("shard"):
                notes.append(f"shard {shard}")
            print_table(attack_table(evaluation), "\n".join([title, *filter(None, notes)]))
            if judged := evaluation.get("verdict"):
                _print(f"Verdict: {judged['text']}")
            elif shard:
                _print("No verdict on a shard: bcgan-tf attack merge joins them and gives one.")
            elif "verdict_command" not in metrics:
                _print("No verdict: not diagnosed.")
            if proved := findings.certified(evaluation):
                _print(proved)
            if causes := evaluation.get("causes"):
                _print(f"Causes: {causes['text']}")
            if rho := evaluation.get("minimum_perturbation"):
                _print(findings.smallest_perturbation(rho))
    for line in findings.before_and_after(metrics):
        _print(line)


def _print(text: str) -> None:
    click.echo(text, file=click.get_current_context().meta[STDOUT])
