"""Pieces of the tables' pages: numbers as text, tables, and where a row came from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bcgan_tf.reproduction.protocol import ACCUMULATED

NOT_RUN = "not run"
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
_TITLES = {
    "original": "Original",
    "fgsm-at-1": "FGSM training, small eps",
    "fgsm-at-2": "FGSM training, large eps",
    "pgd-at": "PGD training",
    "distillation": "Distillation",
    "defense-gan": "Defense-GAN",
    "bcgan": "BCGAN",
    "trades": "TRADES",
}


def title(document: Mapping[str, Any], row: str) -> str:
    """What a row is called; one that the paper's table of these data lacks says so."""
    plain = ACCUMULATED.get(row, row)
    absent = document["paper"] and plain not in document["paper"]
    return (
        _TITLES.get(plain, plain)
        + (", gradients accumulated" if row in ACCUMULATED else "")
        + (" (not in the paper)" if absent else "")
    )


def share(value: float | None) -> str:
    """A share in [0, 1] in percent, one decimal, without the sign."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(figure: Mapping[str, Any]) -> str:
    """``89.2 (87.1 to 91.0)``."""
    low, high = figure["interval95"]
    return f"{share(figure['accuracy'])} ({share(low)} to {share(high)})"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2.5 h``, ``31 days``."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(header)} |",
        f"| {' | '.join('---' for _ in header)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def headline(document: Mapping[str, Any], what: str) -> list[str]:
    """The page's first lines: what it is, and the command that makes it."""
    dataset = DATASETS.get(document["dataset"], document["dataset"])
    absent = [] if document["paper"] else ["These data are not in the paper.", ""]
    return [
        f"# {what} on {dataset}, preset {document['preset']}",
        "",
        f"    {document['command']}",
        "",
        *absent,
    ]


def measured_rows(document: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and content of the rows that were run, in the table's order."""
    return list(document["rows"].items())


def images(
    document: Mapping[str, Any], figure: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> str:
    """How many images a figure is of, as its rows say; Defense-GAN's, of fewer, says its own."""
    counts = {figure(found)["n"] for row, found in measured_rows(document) if row != "defense-gan"}
    return (
        " or ".join(f"{count:,}" for count in sorted(counts)) + " test images"
        if counts
        else NOT_RUN
    )


def provenance(document: Mapping[str, Any]) -> list[str]:
    """How each row was trained, for how long, and on what."""
    lines = [
        "",
        "## Training",
        "",
        "Times are wall time of the row's own training (all tries, where it was resumed), with "
        "whatever else the machine was doing; all rows start from the original network.",
        "",
    ]
    machines: dict[str, list[str]] = {}
    for row, found in measured_rows(document):
        training = found["training"]
        settings = ", ".join(
            f"{name} {_setting(value)}"
            for name, value in training["settings"].items()
            if value is not None
        )
        lines.append(f"- **{title(document, row)}**, {duration(training['seconds'])}: {settings}.")
        for purpose, environments in (
            ("trained", [training["environment"]]),
            ("measured", found["environments"]),
        ):
            for environment in environments:
                machines.setdefault(machine(environment), []).append(f"{row} {purpose}")
    lines += ["", "## Machines", ""]
    lines += [
        f"- {machine}: {', '.join(dict.fromkeys(what))}." for machine, what in machines.items()
    ]
    return [*lines, *_several_originals(document)]


def _several_originals(document: Mapping[str, Any]) -> list[str]:
    """Which rows share an original network, where not all of them do."""
    originals: dict[str, list[str]] = {}
    for row, found in measured_rows(document):
        originals.setdefault(found["original_sha256"], []).append(row)
    if len(originals) < 2:
        return []
    groups = "; ".join(", ".join(rows) for rows in originals.values())
    return [
        f"- The original network was trained {len(originals)} times, with the same settings and "
        "seed, which several threads do not repeat bit by bit. Rows that share one: "
        f"{groups}."
    ]


def options_text(options: Mapping[str, str]) -> str:
    """``-o NAME=VALUE`` for each, as a command line has them."""
    return "".join(f" -o {shlex.quote(f'{name}={value}')}" for name, value in options.items())


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "/".join(map(_setting, value))
    return str(value)


def machine(environment: Mapping[str, Any]) -> str:
    """Versions and processors, of a run's ``env.json``."""
    versions = ", ".join(
        f"{label} {environment[key]}"
        for key, label in (
            ("python", "Python"),
            ("tensorflow", "TensorFlow"),
            ("keras", "Keras"),
            ("bcgan_tf", "bcgan_tf"),
        )
        if key in environment
    )
    devices = [name for name in environment.get("devices", []) if name != "CPU"]
    cores = f"{environment.get('cpu_count')} CPU cores"
    return ", ".join([versions, cores, *devices])
