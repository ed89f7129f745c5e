"""``bcgan-tf report``: a run's page anew, or several runs side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bcgan_tf.errors import UserError

from . import options, output
from .command import Command, FilePath

if TYPE_CHECKING:
    from bcgan_tf.report.comparison import Comparison


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=FilePath())
@click.option(
    "--out",
    type=FilePath(),
    help="Page of the comparison: a name in .html, or a folder.  [default: comparison.html]",
)
@options.common_options()
def command(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write a run's report.html anew, or compare the evaluations of several runs.

    With one RUN its own page is written again from its files. With several, or with --out, one
    page and a table show all models side by side; what was not measured alike is said. Runs of
    different data sets are refused.
    """
    from bcgan_tf.report import comparison, comparison_page, write_report
    from bcgan_tf.runs.directory import RunDirectory

    opened = [RunDirectory.open(run) for run in runs]
    if len(opened) == 1 and out is None:
        with _of_known_shape(runs):
            page = write_report(opened[0])
        if as_json:
            output.print_json({"report": str(page), "run": str(opened[0].path)})
        else:
            output.print_paths({"report": page})
        return
    with _of_known_shape(runs):
        columns = comparison.columns_of(opened)
        page = comparison_page.write_comparison(columns, out)
        if as_json:
            output.print_json({**comparison.summary(columns), "report": str(page)})
            return
        _print_comparison(comparison.Comparison.of(columns))
    output.print_paths({"comparison": page})


@contextlib.contextmanager
def _of_known_shape(runs: tuple[Path, ...]) -> Iterator[None]:
    """Results that are JSON, but not of the shape that this package writes, are one line."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        folders = ", ".join(map(str, runs))
        raise UserError(
            f"the results in {folders} are not of the shape that this version writes "
            f"({type(error).__name__}: {error}); write them again with the command that made them, "
            "or see --debug"
        ) from error


def _print_comparison(found: Comparison) -> None:
    output.print_table(found.table)
    console = output.console()
    for kind, sentences in (
        ("Not alike: ", found.differences),
        ("", found.gains),
        ("Note: ", found.remarks),
    ):
        for sentence in sentences:
            console.print(f"{kind}{sentence}", markup=False, highlight=False, soft_wrap=True)
