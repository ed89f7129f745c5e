"""comparison.html: several runs on one self-contained page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bcgan_tf.errors import UserError
from bcgan_tf.files import replace_file
from bcgan_tf.report import (
    comparison,
    evaluation_figures,
    evaluation_findings,
    evaluation_page,
    markup,
    per_example,
)
from bcgan_tf.report.columns import Column, runs_of
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
    """Writes the page of what :func:`bcgan_tf.report.columns.columns_of` found.

    Args:
        columns: at least one.
        out: a folder, or a file in .html; None: ``comparison.html`` in the working directory.

    Raises:
        UserError: ``out`` is a file of another kind.
    """
    path = page_path(out)
    metrics = columns[0].run.metrics()
    dataset = metrics.get("dataset") or columns[0].run.config.get("dataset", "")
    title = f"Comparison: {dataset}"
    threats = dict.fromkeys(evaluation_findings.threat(c.evaluation) for c in columns)
    under = f"{len(columns)} evaluations · {' and '.join(threats)}"
    parts = [
        f"<header><h1>{markup.text(title)}</h1>",
        markup.paragraph(under, "under"),
        "</header>",
        *side_by_side(columns),
        markup.section("Robust accuracy over eps", *_curves(columns)),
        markup.section("The runs", *_runs(runs_of(columns))),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    document = markup.document(f"bcgan-tf {title}", filter(None, parts))
    return replace_file(path, document)


def side_by_side(columns: Sequence[Column]) -> Iterable[str]:
    """What forbids a comparison, the table, and each column against the first."""
    if found := comparison.differences(columns):
        lead = "Not measured alike: the columns below cannot be compared number by number."
        yield markup.box([lead, *found], "doubt")
    rows = comparison.rows(columns)
    yield markup.table(
        ["", *(column.title for column in columns)],
        [
            [markup.text(row.label), *(_cell(text, tone) for text, tone in row.cells)]
            for row in rows
        ],
        strong=[number for number, row in enumerate(rows) if row.strong],
    )
    yield markup.box(comparison.gains(columns))
    yield markup.paragraph(
        "Accuracies are shares of all test images, with their 95 % intervals. Left after: under "
        "that attack and all above it. At most: no verdict vouches for the number.",
        "note",
    )
    yield from (markup.paragraph(remark, "note") for remark in comparison.remarks(columns))


def _cell(text: str, tone: str) -> str:
    return markup.state(text, f"{tone} wrap") if tone else evaluation_page.number(text)


def _curves(columns: Sequence[Column]) -> Iterable[str]:
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
            bound
            for c in chosen
            if (bound := per_example.largest_class(c.run, c.model, c.evaluation)) is not None
        ]
        points = {c.title: evaluation_page.measured(c.evaluation) for c in chosen}
        with tempfile.TemporaryDirectory() as folder:
            file = evaluation_figures.robust_accuracy_curves(
                {column.title: column.evaluation["curve"] for column in chosen},
                Path(folder) / "curves.png",
                norm=norm,
                largest_class=max(bounds, default=None),
                measured={title: point for title, point in points.items() if point},
            )
            yield markup.picture(
                file,
                "Share of the images for which no adversarial example was found within eps; "
                "diamonds: the worst case of the attacks, with its 95 % interval",
            )


def _runs(runs: Sequence[RunDirectory]) -> Iterable[str]:
    rows = []
    for run in runs:
        env = run.env()
        names = ("bcgan_tf", "tensorflow", "keras")
        versions = ", ".join(f"{name} {env[name]}" for name in names if name in env)
        seed = run.config.get("seed")
        cells = (run.path, run.command_line or "-", versions, "-" if seed is None else seed)
        rows.append([markup.text(cell) for cell in cells])
    yield markup.table(("run", "command line", "versions", "seed"), rows)
