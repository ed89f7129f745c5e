"""comparison.html: several runs on one self-contained page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bcgan_tf.errors import UserError
from bcgan_tf.report import evaluation_figures, evaluation_page, findings, per_example
from bcgan_tf.report.comparison import Column, Comparison, runs_of, versions
from bcgan_tf.report.pages import Picture, picture, write_page
from bcgan_tf.report.table import Table, TableRow
from bcgan_tf.runs.directory import RunDirectory

_SUFFIXES = (".html", ".htm")
NAME = "comparison.html"


def page_path(out: str | Path | None) -> Path:
    """Where the page goes: ``out`` where it ends in .html, else the folder ``out``; None: here.

    Raises:
        UserError: ``out`` is a file that is no page.
    """
    if out is None:
        return Path(NAME)
    path = Path(out)
    if path.suffix.lower() in _SUFFIXES and not path.is_dir():
        return path
    if path.is_file():
        raise UserError(f"{path} is a file of another kind; choose a folder, or a name in .html")
    return path / NAME


def write_comparison(columns: Sequence[Column], out: str | Path | None = None) -> Path:
    """Writes the page of what :func:`bcgan_tf.report.comparison.columns_of` found.

    Args:
        columns: at least one.
        out: a folder, or a file in .html; None: ``comparison.html`` in the working directory.

    Raises:
        UserError: ``out`` is a file of another kind.
    """
    path = page_path(out)
    runs = runs_of(columns)
    dataset = runs[0].metrics().get("dataset") or runs[0].config.get("dataset", "")
    threats = dict.fromkeys(findings.threat(c.evaluation) for c in columns)
    return write_page(
        path,
        "comparison.html",
        title=f"Comparison: {dataset}",
        subtitle=f"{len(columns)} evaluations · {' and '.join(threats)}",
        comparison=Comparison.of(columns),
        curves=list(_curves(columns)),
        runs=_runs(runs),
    )


def _curves(columns: Sequence[Column]) -> Iterator[Picture | None]:
    """One picture for each norm that has a curve."""
    for norm in dict.fromkeys(c.evaluation.get("norm", "linf") for c in columns):
        chosen = [
            column
            for column in columns
            if column.evaluation.get("curve") and column.evaluation.get("norm", "linf") == norm
        ]
        if not chosen:
            continue
        bounds = [
            per_example.largest_class(c.run.path if c.run else None, c.model, c.evaluation)
            for c in chosen
        ]
        points = {c.title: evaluation_page.measured(c.evaluation) for c in chosen}
        with tempfile.TemporaryDirectory() as folder:
            file = evaluation_figures.robust_accuracy_curves(
                {column.title: column.evaluation["curve"] for column in chosen},
                Path(folder) / "curves.png",
                norm=norm,
                largest_class=max((bound for bound in bounds if bound is not None), default=None),
                measured={title: point for title, point in points.items() if point},
            )
            yield picture(file)


def _runs(runs: Sequence[RunDirectory]) -> Table:
    rows = []
    for run in runs:
        seed = run.config.get("seed")
        told = (run.path, run.command_line or "-", ", ".join(versions(run)))
        rows.append(TableRow.of(*told, "-" if seed is None else seed))
    return Table(("run", "command line", "versions", "seed"), tuple(rows))
