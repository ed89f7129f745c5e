"""``bcgan-tf datasets``: what can be read here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from rich.table import Table

from . import options, output
from .command import Command


@click.command(cls=Command)
@options.data_dir_option()
@options.common_options()
def command(data_dir: Path | None, as_json: bool) -> None:
    """List the data sets, and which are there."""
    from bcgan_tf import data

    found = data.datasets(data_dir=data_dir)
    if as_json:
        output.print_json([dataclasses.asdict(info) for info in found])
        return
    table = Table()
    for title in ("name", "what", "here", "where"):
        table.add_column(title, overflow="fold")
    for info in found:
        table.add_row(info.name, info.summary, "yes" if info.prepared else "no", info.location)
    output.console().print(table)
