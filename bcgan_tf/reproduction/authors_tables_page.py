"""The pages of Tables 1 and 2 under the protocol of the authors' code, made of their JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcgan_tf.reproduction.markdown import (
    NOT_RUN,
    headline,
    images,
    measured_rows,
    provenance,
    share,
    table,
    title,
    with_interval,
)
from bcgan_tf.reproduction.paper import UNITS
from bcgan_tf.reproduction.protocol import ACCUMULATED, AuthorsProtocol

Document = Mapping[str, Any]

_COLUMNS = ("clean", "fgsm-1", "fgsm-2", "pgd", "cw")
# So near to the paper's figure, in percent and as a share of rho, a figure counts as reproduced.
_NEAR, _NEAR_RHO = 6.0, 0.2
_UNIT = "[-1, 1]"


def authors_table1_page(document: Document) -> str:
    """The paper's figures beside ours, and how many of each column are near."""
    protocol = document["protocol"]
    small, large = protocol["fgsm_eps"]
    header = [
        "",
        "clean",
        f"FGSM {small:g}",
        f"FGSM {large:g}",
        f"PGD-{protocol['pgd_steps']}, 0.3",
        "CW-l2",
    ]
    rows, near = [], dict.fromkeys(_COLUMNS, 0)
    compared = [row for row, _ in measured_rows(document) if row in document["paper"]]
    for row in AuthorsProtocol.rows:
        printed = document["paper"].get(ACCUMULATED.get(row, row))
        found = document["rows"].get(row)
        cells = []
        for column in _COLUMNS:
            figure = found and figures(found)[column]
            ours = with_interval(figure) if figure else NOT_RUN
            if figure and printed and _is_near(figure["accuracy"], printed[column]):
                near[column] += row in compared
                ours = f"**{ours}**"
            cells.append(f"{printed[column]:.1f} → {ours}" if printed else ours)
        rows.append([title(document, row), *cells])
    counted = [f"{near[column]} of {len(compared)}" for column in _COLUMNS]
    lines = [
        *headline(document, "Table 1 by the authors' protocol"),
        *table(header, [*rows, [f"within {_NEAR:g} points", *counted]]),
        "",
        "Accuracy in percent, the paper's → ours, with 95 % intervals (Wilson); **bold**: within "
        f"{_NEAR:g} points. eps in {_UNIT} pixels: 0.3 is 0.15 in [0, 1]. White-box, true labels, "
        f"seed {document['seed']}. These are attacks of a published code, probably the authors' "
        "([audit](../audit.md)), and no measure of robustness: that is "
        f"[Table 1 by strong attacks](table1-{document['dataset']}.md).",
        "",
        f"- Clean: {images(document, lambda found: found['clean'])}. FGSM and PGD: "
        f"{images(document, lambda found: figures(found)['pgd'])}.",
        f"- FGSM: one step. PGD: {protocol['pgd_steps']} steps of 0.01 from the image itself, so "
        "that it is one deterministic path. (In the code the centre of the ball moves by the "
        "first step; not here.)",
        f"- CW-l2: {images(document, lambda found: found['cw'])}; {protocol['cw_search_steps']} "
        f"constants from 0.1 on, {protocol['cw_steps']:,} steps of 5e-4 in tanh space each, and a "
        "gap of 20 between logits asked for. So few of so short steps cannot move a pixel that is "
        "black or white: an accuracy above 0 is a failure of the attack. Of these images more may "
        "be classified right than of all in the column clean. (The code stops a batch where the "
        "sum of its losses stalls, and goes on from the changes of the constant before; here each "
        "image stops and starts by itself.)",
        "- Defense-GAN: the classifier alone is attacked, and classifies what the search makes of "
        f"the result{_of_defended(document)}. (The code: one start, 12,000 steps.)",
        "- Gradients accumulated: the update adds the weights' gradients at every point on the "
        "attack's path, the image included, as in the code, and PGD training has the radius "
        "that the code's PGD reaches. The last line of the table leaves these rows out.",
        *provenance(document),
    ]
    return "\n".join(lines) + "\n"


def _of_defended(document: Document) -> str:
    found = document["rows"].get("defense-gan")
    if found is None:
        return ""
    shown = figures(found)
    return f"; {shown['pgd']['n']:,} images, CW-l2 {shown['cw']['n']:,} of them"


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Column to figure, of a row."""
    (columns,) = found["attacks"].values()
    return {"clean": found["clean"], **columns, "cw": found["cw"]}


def authors_table2_page(document: Document) -> str:
    """The paper's rho beside ours."""
    rows, near = [], 0
    compared = [row for row, _ in measured_rows(document) if row in document["paper"]]
    for row in AuthorsProtocol.rows:
        printed = document["paper"].get(ACCUMULATED.get(row, row))
        found = document["rows"].get(row, {}).get("rho")
        cells = [title(document, row), "-" if printed is None else f"{printed:.2f}"]
        if found is None:
            rows.append([*cells, NOT_RUN, "", "", "", ""])
            continue
        ours = found["mean"] / UNITS[_UNIT]
        is_near = printed is not None and abs(ours - printed) <= _NEAR_RHO * printed
        near += is_near and row in compared
        rows.append(
            [
                *cells,
                f"**{ours:.2f}**" if is_near else f"{ours:.2f}",
                share(found["capped_share"]),
                share(found["zero_gradient_share"]),
                share(found["clean_accuracy"]),
                f"{found['n']:,}",
            ]
        )
    bound = document["bounds"][_UNIT]
    lines = [
        *headline(document, "Table 2 by the authors' protocol"),
        *table(
            ["", "paper", "ours", "never changed", "zero gradient", "clean accuracy", "n"], rows
        ),
        "",
        f"Mean rho in {_UNIT} pixels, as a published code measures it, probably the authors' "
        f"([audit](../audit.md)); **bold**: within {100 * _NEAR_RHO:.0f} % of the paper's ({near} "
        f"of {len(compared)}). On training images: the first of 0.1, 0.2 ... 2 along the "
        "sign of one gradient at which the image is wrong; one that is wrong from the start counts "
        "0.1, one that never is counts 2. Shares in percent, of the images that are classified "
        f"right. No classifier has a mean above {bound:.2f}; a larger one says that gradients are "
        f"gone. The smallest changes are in [Table 2](table2-{document['dataset']}.md). "
        f"Seed {document['seed']}.",
        "",
        "Defense-GAN: of the classifier, at what the search makes of the images.",
        *provenance(document),
    ]
    return "\n".join(lines) + "\n"


def _is_near(accuracy: float, printed: float) -> bool:
    return abs(100 * accuracy - printed) <= _NEAR
