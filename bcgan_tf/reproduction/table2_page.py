"""The Markdown page of Table 2, made of its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcgan_tf.reproduction.markdown import (
    NOT_RUN,
    duration,
    headline,
    measured_rows,
    provenance,
    share,
    table,
    title,
)
from bcgan_tf.reproduction.protocol import ROWS

Document = Mapping[str, Any]
_READINGS = ("rho_fgsm", "rho_multi", "rho_best")
# A length in [0, 1] pixels is twice as long in [-1, 1] ones.
_TWICE = 2.0


def table2_page(document: Document) -> str:
    """One table to grasp, and below it shares, medians and where the rows came from."""
    lines = [
        *headline(document, "Table 2"),
        *_main_table(document),
        "",
        *_reading(document),
        *_details(document),
        *provenance(document),
    ]
    return "\n".join(lines) + "\n"


def _main_table(document: Document) -> list[str]:
    rows = []
    for row in ROWS:
        found = document["rows"].get(row, {}).get("rho", {"not_run": ""})
        printed = document["paper"].get(row)
        cells = [title(document, row), "-" if printed is None else _printed(document, row)]
        if "not_run" in found:
            cells += [NOT_RUN] * len(_READINGS)
        else:
            cells += [f"**{_both(found, name)}**" for name in _READINGS]
        cells.append(f"{found['n']:,}" if "n" in found else "-")
        rows.append(cells)
    return table(["", "paper", *(f"`{name}`" for name in _READINGS), "n"], rows)


def _printed(document: Document, row: str) -> str:
    """The paper's rho, and where no classifier can have it."""
    rho, bounds = document["paper"][row], document["bounds"]
    beyond = [f"{bound:.2f} in {unit}" for unit, bound in bounds.items() if rho > bound]
    if not beyond:
        return f"{rho:.2f}"
    where = " (*impossible*: at most " if len(beyond) == len(bounds) else " (at most "
    return f"{rho:.2f}{where}{', '.join(beyond)})"


def _both(found: Mapping[str, Any], name: str) -> str:
    """A mean in both pixel units; where something was not found, what the mean is larger than."""
    reading = found[name]
    mean = reading["mean"]
    if mean is None:
        least = reading.get("mean_found")
        if least is None:
            return "none found"
        return f"more than {least:.3f} / {_TWICE * least:.3f}"
    return f"{mean:.3f} / {_TWICE * mean:.3f}"


def _reading(document: Document) -> list[str]:
    bounds = " and ".join(f"{bound:.2f} in {unit}" for unit, bound in document["bounds"].items())
    return [
        "Mean smallest perturbation, Linf, in [0, 1] / [-1, 1] pixels; the paper does not say "
        f"which its own are of. Seed {document['seed']}.",
        "",
        "- `rho_fgsm`: the first step of 0.01 along the sign of the gradient that changes the "
        "answer, over the images that are classified right; one that never changes counts as the "
        "whole pixel range. This is the reading that fits the paper's table, and it grows when "
        "gradients die.",
        "- `rho_multi`: the least over many lines; `rho_best`: the least over these, FAB, CW and "
        "APGD: the figure to believe. Over all images, wrong ones as 0.",
        f"- Every image is within half the pixel range of the constant grey one, which has one "
        f"label. So the mean of no deterministic classifier is above {bounds}; a larger one says "
        "that the search failed.",
        *(
            f"- {title(document, row)}: {'; '.join(reasons)}."
            for row, reasons in document["impossible"].items()
            if reasons
        ),
    ]


def _details(document: Document) -> list[str]:
    rows, notes = [], []
    for row, content in measured_rows(document):
        found = content["rho"]
        if "not_run" in found:
            notes.append(f"- **{title(document, row)}** was not run: {found['not_run']}.")
            continue
        if found.get("attacks") is False:
            notes.append(
                f"- **{title(document, row)}**: {found['n']} images, the same number of each class "
                "as far as that goes, through a search with fixed starts; without FAB, CW and "
                "APGD, which take hundreds of searches a step, so `rho_best` is `rho_multi`."
            )
        fgsm, best = found["rho_fgsm"], found["rho_best"]
        rows.append(
            [
                title(document, row),
                share(found["clean_accuracy"]),
                share(fgsm["capped_share"]),
                share(fgsm["zero_gradient_share"]),
                *(_median(found[name]) for name in _READINGS),
                share(best["censored_share"]),
                ", ".join(f"{name} {count}" for name, count in list(best["found_by"].items())[:3]),
                duration(found["seconds"]),
            ]
        )
    header = [
        "", "clean", "never changed along the gradient", "zero gradient", "median `rho_fgsm`",
        "median `rho_multi`", "median `rho_best`", "nothing found", "most often found by", "time",
    ]  # fmt: skip
    return [
        "",
        "## Shares and medians",
        "",
        "Shares in percent, lengths in [0, 1] pixels. The first three are of the paper's reading, "
        "over the images that are classified right.",
        "",
        *table(header, rows),
        "",
        *notes,
    ]


def _median(reading: Mapping[str, Any]) -> str:
    return "-" if reading["median"] is None else f"{reading['median']:.3f}"
