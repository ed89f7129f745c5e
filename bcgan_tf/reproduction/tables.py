"""The paper's Tables 1 and 2, row by row: trained, measured, and published as far as they are."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from bcgan_tf.distribute.workers import Workers
from bcgan_tf.errors import UserError
from bcgan_tf.files import as_json, file_digest, read_json
from bcgan_tf.reproduction import defended, measures, paper
from bcgan_tf.reproduction.authors_tables_page import (
    authors_table1_page,
    authors_table2_page,
    figures,
)
from bcgan_tf.reproduction.markdown import share, with_interval
from bcgan_tf.reproduction.measures import TableRow
from bcgan_tf.reproduction.protocol import BothProtocols, check_rows
from bcgan_tf.reproduction.rows import ORIGINAL, trained
from bcgan_tf.reproduction.table1_page import table1_page
from bcgan_tf.reproduction.table2_page import table2_page
from bcgan_tf.reproduction.workspace import Workspace, joined_rows

Document = dict[str, Any]

_PAGES: dict[str, Callable[[Document], str]] = {
    "table1": table1_page,
    "table2": table2_page,
    "table1-authors": authors_table1_page,
    "table2-authors": authors_table2_page,
}
# Rows join published ones where these are the same. The original network is known by its settings:
# trained anew it has other bytes, and each row says which it came from.
_ASKED = ("table", "dataset", "preset", "seed", "protocol")
_IDENTITY = (*_ASKED, "original")
_FAILED = "rows that failed: "
_COLUMNS = ("clean", "fgsm-1", "fgsm-2", "pgd", "cw")


def reproduce_table(
    table: str,
    workspace: Workspace,
    protocol: BothProtocols,
    rows: Sequence[str] = (),
    *,
    results: Path,
    command: str,
    workers: Workers | None = None,
) -> Document:
    """Trains what is missing, measures it, and writes the table after every row.

    What the cache has is neither trained nor attacked again. Rows join those that an earlier call
    published with the same protocol, preset, seed and settings of the original network. A row that
    fails is left out, and the others go on.

    Args:
        table: ``"table1"`` or ``"table2"``.
        workspace: the data, preset, seed and cache.
        protocol: what to measure.
        rows: their names; none: all.
        results: where ``<table>-<dataset>.json`` and ``.md`` are written; a preset other than
            quick is part of the name.
        command: a command line that repeats it, for the page.
        workers: processes that train and measure the rows, each a row at a time; the original
            network is trained before. They must reach the cache and the results.

    Returns:
        The content of the JSON file.

    Raises:
        UserError: no such row, a table of other settings or a file that cannot be written, both
            said before any work, or a row that failed.
    """
    rows = check_rows(rows, protocol.rows)
    document: Document = {
        "table": table + protocol.suffix,
        "dataset": workspace.data.name,
        "preset": workspace.preset,
        "seed": workspace.seed,
        "protocol": as_json(protocol.to_dict()),
    }
    stem = results / file_stem(document)
    workspace.published(stem.with_suffix(".md"), document, _ASKED)
    original = trained(workspace, ORIGINAL)
    if workers is not None:
        job = TableJob(table, workspace.settings, protocol, rows, results.resolve(), command)
        failures = workers.run(table_worker, job, range(len(rows)), lambda: None)
        _refuse(why for _, why in sorted(failures.items()) if why)
        return read_json(stem.with_suffix(".json"))  # as each worker published its rows
    table = document["table"]
    document |= {
        "original": measures.training_settings(original),
        "command": command,
        **_paper(table, workspace.data.name),
        "rows": {},
    }
    failed, whole = [], document
    for number, row in enumerate(rows, start=1):
        print(f"{table}, row {number} of {len(rows)}: {row}", file=sys.stderr, flush=True)
        try:
            file = original if row == ORIGINAL else trained(workspace, row)
            subject = TableRow(
                workspace, protocol, row, file, None if row == ORIGINAL else original
            )
            measured = _MEASURES[table](subject)
        except UserError as error:
            print(f"{row} failed: {error}", file=sys.stderr, flush=True)
            failed.append(f"{row} ({error})")
            continue
        document["rows"][row] = as_json(
            {
                **measured,
                **measures.provenance(subject),
                "original_sha256": file_digest(original),
                "command": command,
            }
        )
        whole = _publish(workspace, document, row, stem, protocol.rows)
    _refuse(failed)
    return whole


def _refuse(failed: Iterable[str]) -> None:
    if text := "; ".join(failed):
        raise UserError(_FAILED + text)


@dataclasses.dataclass(frozen=True)
class TableJob:
    """What a worker needs to reproduce one row of a table; it can be pickled.

    Attributes:
        table: see :func:`reproduce_table`, as the others.
        workspace: its :attr:`Workspace.settings`.
        protocol: what to measure.
        rows: of which each is an item.
        results: where the table is.
        command: for the page.
    """

    table: str
    workspace: dict[str, Any]
    protocol: BothProtocols
    rows: tuple[str, ...]
    results: Path
    command: str


def table_worker(job: TableJob) -> Callable[[int], str]:
    """What reproduces a row, by its place, and says why it failed, or ""; called in a worker."""
    workspace = Workspace.of(**job.workspace)
    keras.utils.set_random_seed(workspace.seed)

    def row(number: int) -> str:
        told = {"results": job.results, "command": job.command}
        try:
            reproduce_table(job.table, workspace, job.protocol, [job.rows[number]], **told)
        except UserError as error:
            return str(error).removeprefix(_FAILED)
        return ""

    return row


def overview(document: Document) -> list[dict[str, Any]]:
    """A few figures of each measured row, for a terminal."""
    return [
        {"row": row, **_OVERVIEWS[document["table"]](found)}
        for row, found in document["rows"].items()
    ]


def _overview1(found: Document) -> dict[str, Any]:
    measured = found["standard"]
    judged = measured["verdict"]
    return {
        "clean": share(found["clean"]["accuracy"]),
        **{
            f"PGD, eps of {unit}": share(one["pgd"]["accuracy"])
            for unit, one in found["attacks"].items()
        },
        "mean L2 of CW": found["cw"]["mean_l2"],
        "standard": with_interval(measured),
        "verdict": judged["kind"] if judged else "upper bound",
    }


def _overview2(found: Document) -> dict[str, Any]:
    rho = found["rho"]
    names = ("rho_fgsm", "rho_multi", "rho_best")
    return {name: rho[name]["mean"] if name in rho else None for name in names}


def _authors_overview1(found: Document) -> dict[str, Any]:
    return {name: share(figure["accuracy"]) for name, figure in figures(found).items()}


def _authors_overview2(found: Document) -> dict[str, Any]:
    return {"rho, [0, 1] pixels": found["rho"]["mean"]}


_OVERVIEWS = {
    "table1": _overview1,
    "table2": _overview2,
    "table1-authors": _authors_overview1,
    "table2-authors": _authors_overview2,
}


def page(document: Document) -> str:
    """The Markdown page of a table's JSON."""
    return _PAGES[document["table"]](document)


def file_stem(document: Document) -> str:
    """What a table's files are called."""
    preset = "" if document["preset"] == "quick" else f"-{document['preset']}"
    return f"{document['table']}-{document['dataset']}{preset}"


def _publish(
    workspace: Workspace, document: Document, newest: str, stem: Path, order: Sequence[str]
) -> Document:
    def joined(before: Document) -> Document:
        rows = joined_rows(document["rows"], before.get("rows", {}), newest)
        return {**document, "rows": {row: rows[row] for row in order if row in rows}}

    return workspace.publish(stem.with_suffix(".md"), document, _IDENTITY, joined, page)


def _paper(table: str, dataset: str) -> Document:
    """The paper's figures of each row, which of them cannot be, and the bound of the mean rho."""
    printed: dict[str, Any] = {}
    impossible = {}
    for row in paper.TABLE_1.get(dataset, {}):
        if table.startswith("table1"):
            printed[row] = dict(zip(_COLUMNS, paper.TABLE_1[dataset][row], strict=True))
        else:
            printed[row] = paper.TABLE_2[dataset][row]
        impossible[row] = [
            reason
            for reason in paper.impossible(dataset, row)
            if reason.startswith("rho") == table.startswith("table2")
        ]
    bounds = {unit: paper.largest_mean_rho(unit) for unit in paper.UNITS}
    return {"paper": printed, "impossible": impossible, "bounds": bounds}


def _table1(subject: TableRow[Any]) -> Document:
    if defended.is_defended(subject):
        return {
            **defended.gray_box(subject),
            "standard": defended.white_box(subject),
            "search_cost": defended.search_cost(subject),
        }
    return {**_authors_table1(subject), "standard": measures.standard(subject)}


def _table2(subject: TableRow[Any]) -> Document:
    if defended.is_defended(subject):
        return {"rho": defended.smallest_defended(subject)}
    return {"rho": measures.smallest(subject)}


def _authors_table1(subject: TableRow[Any]) -> Document:
    if defended.is_defended(subject):
        return defended.gray_box(subject)
    return {
        "clean": measures.clean(subject),
        "attacks": measures.bounded(subject),
        "cw": measures.unbounded(subject),
    }


def _authors_table2(subject: TableRow[Any]) -> Document:
    if defended.is_defended(subject):
        return {"rho": defended.smallest_behind(subject)}
    return {"rho": measures.smallest_along_one_gradient(subject)}


_MEASURES: dict[str, Callable[[TableRow[Any]], Document]] = {
    "table1": _table1,
    "table2": _table2,
    "table1-authors": _authors_table1,
    "table2-authors": _authors_table2,
}
