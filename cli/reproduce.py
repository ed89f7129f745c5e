"""``bcgan-tf reproduce``: the paper's tables and figures, trained, measured and published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf.reproduction.protocol import PRESETS, PROTOCOLS, Protocol
from bcgan_tf.settings.kinds import WorkerSpec

from . import options, output, session
from .command import Command, FilePath

TABLES, FIGURES = ("table1", "table2"), ("figure2", "figure4")
AUDIT, ABLATION, AUTHORS, REFINEMENT = "audit", "ablation", "authors", "refinement"
TARGETS = (*TABLES, *FIGURES, AUDIT, ABLATION, AUTHORS, REFINEMENT)
# What a target does not read.
_UNREAD = {
    "figure2": (
        "dataset",
        "data_dir",
        "preset",
        "rows",
        "devices",
        "protocol",
        "weights",
        "workers",
    ),
    **dict.fromkeys(("figure4", AUDIT, ABLATION), ("protocol", "weights", "workers")),
    **dict.fromkeys(TABLES, ("weights",)),
    AUTHORS: ("dataset", "preset", "rows", "devices", "protocol", "workers"),
    REFINEMENT: ("preset", "protocol", "weights", "workers"),
}


@click.command(cls=Command)
@click.argument("target", type=click.Choice(TARGETS))
@click.option("--dataset", metavar="NAME", help="mnist, fashion_mnist, cifar10, or digits.")
@options.data_dir_option()
@click.option("--preset", type=click.Choice(PRESETS), default="quick", help="Named settings.")
@click.option(
    "--protocol",
    type=click.Choice(tuple(PROTOCOLS)),
    default=Protocol.name,
    help="Attacks of a table: strong ones, or those of the authors' code.",
)
@click.option("--rows", metavar="NAME,...", help="Rows to run, such as `original,pgd-at`: [all]")
@click.option(
    "--weights",
    type=FilePath(),
    help="The published network, for `authors`: the pickle, or an .npz of its tensors.",
)
@click.option(
    "-o",
    "--option",
    "protocol_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A size of a table's evaluations, such as `-o standard_n=500`; several may be given.",
)
@click.option(
    "--cache",
    type=FilePath(file_okay=False),
    default=Path("runs/reproduce"),
    help="Folder of the runs: what is in it is not done again.",
)
@click.option(
    "--results",
    type=FilePath(file_okay=False),
    default=Path("docs/results"),
    help="Folder of the pages; a table of other settings in it is refused, not replaced.",
)
@options.devices_option()
@options.workers_option("Train and measure the rows of a table in other processes, a row in each.")
@options.seed_option()
@options.common_options()
def command(
    target: str,
    dataset: str | None,
    data_dir: Path | None,
    preset: str,
    protocol: str,
    rows: str | None,
    weights: Path | None,
    protocol_options: tuple[str, ...],
    cache: Path,
    results: Path,
    devices: int | None,
    workers: WorkerSpec | None,
    seed: int,
    as_json: bool,
) -> None:
    """Reproduce a table or figure of the paper: train what is missing, measure, publish.

    Everything is kept in the cache under its settings: after a kill the same command goes on, and
    a repeat costs nothing. A table is written anew after every row. figure2 needs no data set.
    authors evaluates the network that was published with the code of the paper's figures, and
    refinement measures one that is refined as there, step by step.
    audit tries which way of evaluating gives the paper's figures; ablation whether boundary samples
    help robust training, and its --rows are bcgan-at, bcgan-trades and bcgan-ibp; those of
    refinement are generated and real, its two curves.
    """
    changes = options.named_values(protocol_options)
    if changes and target in FIGURES:
        raise click.UsageError(f"{target} has no --option; leave it out")
    sources = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
    if flags := options.given(click.get_current_context(), _UNREAD[target], sources):
        raise click.UsageError(f"{target} has no {flags}; leave it out")
    line = _command_line(target, dataset, preset, seed, changes, protocol)
    if target == "figure2":
        session.make_repeatable(seed, False)
        from bcgan_tf.reproduction import pictures

        _print_page(target, pictures.figure2(results, cache, seed, command=line), as_json)
        return
    if target == AUTHORS:
        dataset = "mnist"  # of which the published network is
        if weights is None:
            raise click.UsageError("authors needs --weights, the file of the published network")
    if dataset is None:
        raise click.UsageError(f"{target} needs --dataset, such as --dataset mnist")
    named = tuple(name.strip() for name in rows.split(",")) if rows else ()
    # Refused before the data are read.
    sizes = _checked_sizes(target, dataset, preset, named, changes, protocol)
    data = session.load_data(dataset, data_dir, seed)
    session.make_repeatable(seed, False)
    from bcgan_tf.reproduction.workspace import Workspace

    workspace = Workspace(data, preset, seed, cache, devices, data_dir)
    if target == "figure4":
        from bcgan_tf.reproduction import pictures

        drawn = (named,) if named else ()
        _print_page(target, pictures.figure4(workspace, results, *drawn, command=line), as_json)
        return
    if target == AUTHORS:
        from bcgan_tf.reproduction.authors import authors

        assert weights is not None
        page = authors(workspace, weights, sizes, results=results, command=line)
        _print_page(target, page, as_json)
        return
    if target == REFINEMENT:
        from bcgan_tf.reproduction.refinement import refinement

        page = refinement(workspace, sizes, named, results=results, command=line)
        _print_page(target, page, as_json)
        return
    if target == AUDIT:
        from bcgan_tf.reproduction.audit import audit

        page = audit(workspace, sizes, named, results=results, command=line)
        _print_page(target, page, as_json)
        return
    if target == ABLATION:
        from bcgan_tf.reproduction.ablation import ablation

        page = ablation(workspace, sizes, named, results=results, command=line)
        _print_page(target, page, as_json)
        return
    from bcgan_tf.distribute.workers import workers as started
    from bcgan_tf.reproduction import tables

    document = tables.reproduce_table(
        target,
        workspace,
        sizes,
        named,
        results=results,
        command=line,
        workers=workers and started(workers),
    )
    if as_json:
        output.print_json(document)
        return
    stem = results / tables.file_stem(document)
    output.print_rows(f"{target} on {dataset}, preset {preset}", tables.overview(document))
    output.print_paths({"page": stem.with_suffix(".md"), "data": stem.with_suffix(".json")})


def _checked_sizes(
    target: str,
    dataset: str,
    preset: str,
    named: Sequence[str],
    changes: Mapping[str, Any],
    protocol_name: str,
) -> Any:
    """The sizes of a target's evaluations, its rows being known to exist."""
    from bcgan_tf.reproduction.protocol import WAYS, check_rows, protocol, refinement_settings
    from bcgan_tf.settings.fields import gathered

    if target == ABLATION:
        from bcgan_tf.reproduction.ablation_settings import ablation_settings, check_defenses

        return gathered(lambda: check_defenses(named), lambda: ablation_settings(changes))[1]
    if target == REFINEMENT:
        ways = tuple(WAYS)
        return gathered(lambda: check_rows(named, ways), lambda: refinement_settings(changes))[1]
    name = "authors" if target == AUTHORS else protocol_name
    return gathered(
        lambda: check_rows(named, PROTOCOLS[name].rows),
        lambda: protocol(dataset, preset, changes, name=name, target=target),
    )[1]


def _command_line(
    target: str,
    dataset: str | None,
    preset: str,
    seed: int,
    changes: Mapping[str, Any],
    protocol: str,
) -> str:
    """What repeats it anywhere: without this machine's folders."""
    from bcgan_tf.reproduction.markdown import options_text

    chosen = " --weights FILE" if target == AUTHORS else ""
    for name, value in (("dataset", dataset), ("preset", preset)):
        if value and name not in _UNREAD[target]:
            chosen += f" --{name} {value}"
    if protocol != Protocol.name:
        chosen += f" --protocol {protocol}"
    return f"bcgan-tf reproduce {target}{chosen} --seed {seed}{options_text(changes)}"


def _print_page(target: str, page: Path, as_json: bool) -> None:
    if as_json:
        output.print_json({"target": target, "page": page})
    else:
        output.print_paths({"page": page})
