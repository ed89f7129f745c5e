"""Results on stdout: a table for people, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bcgan_tf.files import as_json

from .command import STDOUT


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
