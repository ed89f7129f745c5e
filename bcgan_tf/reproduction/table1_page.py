"""The Markdown page of Table 1, made of its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcgan_tf.report.table import eps_text
from bcgan_tf.reproduction import paper
from bcgan_tf.reproduction.markdown import (
    NOT_RUN,
    duration,
    headline,
    images,
    measured_rows,
    provenance,
    share,
    table,
    title,
    with_interval,
)
from bcgan_tf.reproduction.protocol import ROWS

Document = Mapping[str, Any]


def table1_page(document: Document) -> str:
    """One table to grasp, and below it what each figure is, its interval and its n."""
    lines = [
        *headline(document, "Table 1"),
        *_main_table(document),
        "",
        *_reading(document),
        *_bounded_details(document),
        *_standard_details(document),
        *_defended_details(document),
        *provenance(document),
    ]
    return "\n".join(lines) + "\n"


def _main_table(document: Document) -> list[str]:
    protocol = document["protocol"]
    small, large = protocol["fgsm_eps"]
    header = [
        "",
        "clean",
        f"FGSM {small:g}",
        f"FGSM {large:g}",
        f"PGD-{protocol['pgd_steps']}, {large:g}",
        "CW-l2 (mean L2)",
        f"`standard`, eps {eps_text(protocol['eps'])}",
        "verdict",
    ]
    rows = []
    for row in ROWS:
        found = document["rows"].get(row)
        printed = document["paper"].get(row)
        cells = [_printed(document, row, column) for column in ("clean", "fgsm-1", "fgsm-2", "pgd")]
        wagner = _printed(document, row, "cw")
        if found is None:
            arrow = [f"{cell} → {NOT_RUN}" if printed else NOT_RUN for cell in [*cells, wagner]]
            rows.append([title(document, row), *arrow, NOT_RUN, NOT_RUN])
            continue
        ours = [share(found["clean"]["accuracy"])]
        for column in ("fgsm-1", "fgsm-2", "pgd"):
            ours.append(
                " / ".join(share(unit[column]["accuracy"]) for unit in found["attacks"].values())
            )
        ours.append(_carlini_wagner(found["cw"]))
        both = [
            f"{cell} → **{value}**" if printed else f"**{value}**"
            for cell, value in zip([*cells, wagner], ours, strict=True)
        ]
        rows.append(
            [title(document, row), *both, f"**{with_interval(found['standard'])}**", _kind(found)]
        )
    return table(header, rows)


def _printed(document: Document, row: str, column: str) -> str:
    """The paper's figure; one that cannot be says so."""
    printed = document["paper"].get(row)
    if printed is None:
        return ""
    text = f"{printed[column]:.1f}"
    if column == "cw" and document["impossible"][row]:
        text += f" (*impossible*: its clean accuracy is {printed['clean']:.1f})"
    return text


def _carlini_wagner(found: Mapping[str, Any]) -> str:
    distance = found["mean_l2"]
    return share(found["accuracy"]) + (f" ({distance:.2f})" if distance is not None else "")


def _kind(found: Mapping[str, Any]) -> str:
    judged = found["standard"]["verdict"]
    return judged["kind"] if judged else "upper bound, see below"


def _bounded(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(iter(found["attacks"].values()))["pgd"]


def _reading(document: Document) -> list[str]:
    protocol = document["protocol"]
    _, large = protocol["fgsm_eps"]
    units = " / of ".join(paper.UNITS)
    lines = [
        "Accuracy in percent, the paper's → **ours**. The paper does not say which pixels its eps "
        f"is of, so FGSM and PGD are run in both readings: eps of {units} pixels (half of it). "
        f"White-box, true labels, seed {document['seed']}.",
        "",
        f"- Clean: the full test set. FGSM and PGD: {images(document, _bounded)}. PGD: "
        f"{protocol['pgd_steps']} steps "
        f"of 2.5 eps / steps from one random start, at eps {large:g}; the paper gives its steps, "
        "not its eps.",
        f"- CW-l2: {images(document, lambda found: found['cw'])}, {protocol['cw_search_steps']} x "
        f"{protocol['cw_steps']:,} steps of {protocol['cw_learning_rate']:g}. It has no bound: it "
        "leaves about 0 % of any model, so read the mean L2 it needed; an accuracy well above 0 "
        "is a failure of the attack.",
        f"- `standard`: AutoAttack's four attacks, Linf {eps_text(protocol['eps'])} in [0, 1] "
        f"pixels, {images(document, lambda found: found['standard'])}, the worst case for each "
        "image, with its "
        "95 % interval; the verdict says whether that is robustness. Defense-GAN has a protocol "
        "of its own, below.",
    ]
    reasons = [
        f"- *Impossible*, {title(document, row)}: {reason}; no attack makes a wrong answer right. "
        "(On other images than those of the clean accuracy it could be chance.)"
        for row, found in document["impossible"].items()
        for reason in found
    ]
    return lines + reasons


def _bounded_details(document: Document) -> list[str]:
    rows = []
    for row, found in measured_rows(document):
        for unit, columns in found["attacks"].items():
            figures = [columns[name] for name in ("fgsm-1", "fgsm-2", "pgd")]
            rows.append(
                [
                    title(document, row),
                    unit,
                    *(f"{eps_text(one['eps'])}: {with_interval(one)}" for one in figures),
                    f"{figures[0]['n']:,}",
                ]
            )
    header = ["", "eps of", "FGSM", "FGSM", f"PGD-{document['protocol']['pgd_steps']}", "n"]
    return [
        "",
        "## The paper's attacks, with intervals",
        "",
        "Eps in [0, 1] pixels: accuracy in percent (95 %, Wilson).",
        "",
        *table(header, rows),
        "",
        *table(
            ["", "clean", "n", "CW-l2", "mean L2", "n", "seconds"],
            [
                [
                    title(document, row),
                    with_interval(found["clean"]),
                    f"{found['clean']['n']:,}",
                    with_interval(found["cw"]),
                    "-" if found["cw"]["mean_l2"] is None else f"{found['cw']['mean_l2']:.3f}",
                    f"{found['cw']['n']:,}",
                    f"{found['cw']['seconds']:.0f}",
                ]
                for row, found in measured_rows(document)
            ],
        ),
    ]


def _standard_details(document: Document) -> list[str]:
    found = [(r, f) for r, f in measured_rows(document) if f["standard"]["method"] == "standard"]
    if not found:
        return []
    attacks = [attack["attack"] for attack in found[0][1]["standard"]["attacks"]]
    rows = []
    for row, content in found:
        measured = content["standard"]
        rows.append(
            [
                title(document, row),
                share(measured["clean_accuracy"]),
                *(share(attack["left"]) for attack in measured["attacks"]),
                with_interval(measured),
                f"{measured['n']:,}",
                duration(measured["seconds"]),
            ]
        )
    lines = [
        "",
        "## The suite `standard`",
        "",
        "What each attack leaves of what those before it left; time with the diagnosis.",
        "",
        *table(["", "clean", *attacks, "worst case", "n", "time"], rows),
        "",
    ]
    for row, content in found:
        measured = content["standard"]
        lines.append(f"- **{title(document, row)}**: {measured['verdict']['text']}.")
        lines += [f"  - Flag: {flag['check']}: {flag['text']}." for flag in measured["flags"]]
        if measured["causes"]:
            lines.append(f"  - Causes: {measured['causes']['text']}")
    return lines


def _defended_details(document: Document) -> list[str]:
    found = document["rows"].get("defense-gan")
    if found is None:
        return []
    box, cost = found["standard"], found["search_cost"]
    behind = [
        [unit, *(share(columns[name]["behind"]) for name in ("fgsm-1", "fgsm-2", "pgd"))]
        for unit, columns in found["attacks"].items()
    ]
    return [
        "",
        "## Defense-GAN",
        "",
        f"- The paper's way, {found['clean']['n']:,} test images, the same number of each class: "
        "the classifier alone is attacked, and classifies what the search makes of the result, "
        f"L = {cost['steps']:,} steps from R = {cost['restarts']} fixed starts. CW-l2: "
        f"{found['cw']['n']:,} of these images.",
        f"- In the column `standard`: {box['method']}, Linf {eps_text(box['eps'])}, "
        f"{box['n']:,} images, which must survive all answers: "
        f"{with_interval(box)} %; one answer: {share(box['accuracy_of_one_answer'])} %. Clean "
        f"images: one answer {share(box['clean_accuracy'])} %, all answers "
        f"{share(box['clean_worst'])} %. {duration(box['seconds'])}. A short attack on few images: "
        "an upper bound.",
        f"- Cost: one step of the search takes {1000 * cost['step_seconds']:.2g} ms an image "
        f"({1000 * cost['step_cpu_seconds']:.2g} ms of processor time), all {cost['restarts']} "
        f"starts together. The paper's L = {cost['paper_steps']:,}: "
        f"{duration(cost['paper_image_seconds'])} an image, "
        f"{duration(3600 * cost['paper_test_hours'])} for one pass over "
        f"{cost['test_images']:,} images.",
        "",
        "What the attacks leave of the classifier without the search, in percent:",
        "",
        *table(["eps of", "FGSM", "FGSM", f"PGD-{document['protocol']['pgd_steps']}"], behind),
    ]
