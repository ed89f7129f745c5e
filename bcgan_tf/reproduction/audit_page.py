"""The audit as a page: for each figure of the paper the way of evaluating that comes nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcgan_tf.reproduction.markdown import headline, share, table, title
from bcgan_tf.reproduction.paper import UNITS

Document = Mapping[str, Any]

_COLUMNS = ("clean", "fgsm-1", "fgsm-2", "pgd", "cw")
# A way that comes this near gives the figure, as far as one network can tell.
_NEAR = 0.05
_NEAR_RHO = 0.1


def audit_page(document: Document) -> str:
    """Markdown, from the JSON alone."""
    protocol = document["protocol"]
    small, large = protocol["fgsm_eps"]
    lines = [
        *headline(document, "Which evaluation gives the paper's figures"),
        f"Accuracies in percent, {document['samples']:,} test images ({document['cw_samples']} for "
        f"Carlini-Wagner), seed {document['seed']}. FGSM at eps {small:g} and {large:g} and "
        f"PGD-{protocol['pgd_steps']} at {large:g}, in the line's pixel unit. **Bold**: "
        f"the way nearest to the paper's figure, where it is within {100 * _NEAR:.0f} points (rho: "
        f"{100 * _NEAR_RHO:.0f} %). That a way gives a figure shows that it suffices, not that the "
        "paper's authors went it. rho is the first step of 0.01 along the sign of the gradient "
        "that changes the answer, the mean over the images that are classified right; one that "
        "never changes counts as the whole pixel range.",
        "",
        *table(
            ["row", "figure", "paper", "white-box, as here", "nearest", "by"],
            [line for row in document["rows"] for line in _nearest(document, row)],
        ),
    ]
    for row in document["rows"]:
        lines += [
            "",
            f"## {title({'paper': document['paper']}, row)}",
            "",
            *_details(document, row),
        ]
    machines = {
        f"TensorFlow {e.get('tensorflow')}, Keras {e.get('keras')}, {e.get('cpu_count')} CPU cores"
        for found in document["rows"].values()
        for e in found["environments"]
    }
    return "\n".join([*lines, "", f"Measured with {'; '.join(sorted(machines))}."]) + "\n"


def ways(found: Mapping[str, Any], column: str) -> dict[str, float]:
    """Every way that a column was evaluated in, with its unit, to the accuracy."""
    if column == "cw":
        return dict(found["cw"])
    return {
        f"{choice}, {unit}": value
        for unit, columns in found["bounded"].items()
        for choice, value in columns[column].items()
    }


def nearest(found: Mapping[str, Any], column: str, printed: float) -> tuple[str, float]:
    """The way whose accuracy is nearest to ``printed`` (in [0, 1]), and that accuracy."""
    choices = ways(found, column)
    way = min(choices, key=lambda choice: abs(choices[choice] - printed))
    return way, choices[way]


def _nearest(document: Document, row: str) -> list[list[str]]:
    found, lines = document["rows"][row], []
    figures = zip(_COLUMNS, document["paper"][row], strict=False)
    for column, printed in figures:
        if column == "clean":
            continue
        way, value = nearest(found, column, printed / 100)
        honest = [found["cw"]] if column == "cw" else [c[column] for c in found["bounded"].values()]
        near = abs(value - printed / 100) <= _NEAR
        lines.append(
            [
                title({"paper": document["paper"]}, row),
                column,
                f"{printed:.1f}",
                " / ".join(share(next(iter(choices.values()))) for choices in honest),
                f"**{share(value)}**" if near else share(value),
                way if near else f"none ({way})",
            ]
        )
    return [*lines, *_nearest_rho(document, row)]


def _nearest_rho(document: Document, row: str) -> list[list[str]]:
    printed = document["paper_rho"][row]
    if printed is None:
        return []
    choices = {
        f"{choice}, {unit}": value / UNITS[unit]
        for unit in UNITS
        for choice, value in document["rows"][row]["rho"].items()
    }
    way = min(choices, key=lambda choice: abs(choices[choice] - printed))
    near = abs(choices[way] - printed) <= _NEAR_RHO * printed
    value = f"{choices[way]:.2f}"
    honest = next(iter(document["rows"][row]["rho"].values()))
    return [
        [
            title({"paper": document["paper"]}, row),
            "rho",
            f"{printed:.2f}",
            " / ".join(f"{honest / scale:.2f}" for scale in UNITS.values()),
            f"**{value}**" if near else value,
            way if near else f"none ({way})",
        ]
    ]


def _details(document: Document, row: str) -> list[str]:
    found = document["rows"][row]
    lines = [
        f"Clean {share(found['clean'])}; T = {found['temperature']:.3g} brings the median gap of "
        "the logits to 10.",
        "",
    ]
    units = list(found["bounded"])
    choices = list(next(iter(found["bounded"].values()))["pgd"])
    header = ["FGSM, FGSM, PGD", *(f"eps of {unit} pixels" for unit in units)]
    lines += table(
        header,
        [
            [
                choice,
                *(
                    " / ".join(
                        share(found["bounded"][unit][column][choice])
                        for column in ("fgsm-1", "fgsm-2", "pgd")
                    )
                    for unit in units
                ),
            ]
            for choice in choices
        ],
    )
    lines += ["", *table(["Carlini-Wagner", ""], [[k, share(v)] for k, v in found["cw"].items()])]
    rho = [
        [choice, " / ".join(f"{value / scale:.3f}" for scale in UNITS.values())]
        for choice, value in found["rho"].items()
    ]
    return [*lines, "", *table(["rho", " / ".join(f"{unit} pixels" for unit in UNITS)], rho)]
