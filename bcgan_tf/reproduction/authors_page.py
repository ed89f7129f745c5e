"""The page of the published network, made of its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcgan_tf.reproduction.markdown import machine, share, table, with_interval

Document = Mapping[str, Any]


def authors_page(document: Document, picture: str) -> str:
    """Markdown: their way beside the paper's row, then what strong attacks find, and why.

    Args:
        document: what :func:`bcgan_tf.reproduction.authors.authors` found.
        picture: name of the file of the loss against iteration.
    """
    lines = [
        "# The published MNIST network",
        "",
        f"    {document['command']}",
        "",
        "A public repository without an author's name holds code whose networks, data sets, "
        "numbers of steps and names of rows are the paper's, and the weights of one MNIST "
        "network, which its attack script loads as BCGAN. That it is the paper's own is a "
        "conclusion from the content. The file has no licence and is not part of this project "
        "(SHA-256 of the file that was read: "
        f"`{document['weights_sha256']}`).",
        "",
        *_their_way(document),
        *_strong(document),
        *_reasons(document, picture),
        "",
        "Machines: " + "; ".join(dict.fromkeys(machine(e) for e in document["environments"])) + ".",
    ]
    return "\n".join(lines) + "\n"


def _their_way(document: Document) -> list[str]:
    found, protocol = document["authors_way"], document["protocol"]
    small, large = protocol["fgsm_eps"]
    names = {
        "clean": "clean",
        "fgsm-1": f"FGSM, eps {small:g}",
        "fgsm-2": f"FGSM, eps {large:g}",
        "pgd": f"PGD-{protocol['pgd_steps']}, eps 0.3, step 0.01, no random start",
        "cw": "Carlini-Wagner L2",
    }
    rows = [
        [title, f"{printed:.1f}", with_interval(found[key]), f"{found[key]['n']:,}"]
        for (key, title), printed in zip(names.items(), document["paper"], strict=True)
    ]
    rho = found["rho"]
    rows.append(
        [
            "rho along one gradient, training images",
            f"{document['paper_rho']:.2f}",
            f"{2 * rho['mean']:.2f}",
            f"{rho['n']:,}",
        ]
    )
    return [
        "## Attacked the authors' way",
        "",
        "Accuracy in percent, eps and rho of [-1, 1] pixels, as the code has them.",
        "",
        *table(["", "the paper", "here", "n"], rows),
        "",
    ]


def _strong(document: Document) -> list[str]:
    attacks = [one["attack"] for one in document["standard"][0]["attacks"]]
    rows = [
        [
            f"{one['eps']:g}",
            share(one["clean_accuracy"]),
            *(share(attack["left"]) for attack in one["attacks"]),
            f"**{with_interval(one)}**",
            f"{one['n']:,}",
        ]
        for one in document["standard"]
    ]
    least = document["least"]["rho_best"]
    eps = document["curves"]["eps"]
    shown = next(one for one in document["standard"] if one["eps"] == eps)
    return [
        "## Attacked by the suite `standard`",
        "",
        "Linf eps of [0, 1] pixels, half of the authors' numbers. What each attack leaves of what "
        "those before it left, in percent.",
        "",
        *table(["eps", "clean", *attacks, "worst case", "n"], rows),
        "",
        *(f"- eps {one['eps']:g}: {one['verdict']['text']}." for one in document["standard"]),
        "",
        f"The smallest change found has a mean of {least['mean']:.3f} (Linf, [0, 1] pixels, "
        f"{document['least']['n']:,} images): {2 * least['mean']:.2f} in the authors' unit, where "
        f"the paper has {document['paper_rho']:.2f}.",
        "",
        f"The flags at eps {shown['eps']:g}, on images drawn from these "
        "([how many](../evaluation.md)):",
        "",
        *(f"- {flag['check']}: {flag['text']}." for flag in shown["flags"]),
        *([f"- Causes: {shown['causes']['text']}"] if shown["causes"] else []),
        "",
    ]


def _reasons(document: Document, picture: str) -> list[str]:
    step, health = document["one_step"], document["one_step"]["health"]
    found = document["authors_way"]
    radii = list(next(iter(step["along"].values())))
    fgsm = [share(found[key]["accuracy"]) for key in ("fgsm-1", "fgsm-2")]
    rows = [[f"the cross entropy (FGSM; {found['fgsm-1']['n']:,} images)", *fgsm]]
    rows += [
        [name, *(share(value) for value in by_eps.values())]
        for name, by_eps in step["along"].items()
    ]
    curves = document["curves"]
    start = curves["PGD-50 margin"][0]
    entropy, climbed = (curves[f"PGD-50{loss} margin"][-1] for loss in ("", " (margin loss)"))
    return [
        "## Why",
        "",
        f"Logits lie between {step['smallest_logit']:,.0f} and {step['largest_logit']:,.0f}; the "
        f"gap between the first and the second has a median of {step['median_gap']:,.0f}. So the "
        f"float32 gradient of the cross entropy is exactly 0 for {share(health['zero'])} % of the "
        f"images that are classified right (in float64 for {share(health['zero_float64'])} %), "
        f"that of the margin for {share(health['margin_zero'])} %: an attack along the first "
        f"hardly moves. One step of the same length, {step['n']:,} images:",
        "",
        *table(
            ["accuracy after a step along", *(f"eps {2 * float(e):g} of [-1, 1]" for e in radii)],
            rows,
        ),
        "",
        "Carlini-Wagner does not look at the cross entropy, and fails for another reason. Its "
        "usual codes put -10,000 in place of the true logit, to find the largest of the others. "
        "All logits here are lower, so that number is the largest, and the loss is 0 from the "
        "start.",
        "",
        f"![Mean cross entropy and margin against iteration]({picture})",
        "",
        f"Gradient ascent at eps {document['curves']['eps']:g} of [0, 1] pixels, "
        f"{document['curves']['n']:,} images that are classified right, from a random start with "
        f"a mean margin of {start:,.0f}: on the cross entropy it ends at {entropy:,.0f}, on the "
        f"margin at {climbed:,.0f}.",
    ]
