"""The page and the picture of the refinement's curve, made of its JSON alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.report.style import MARKERS, SERIES, legend, new_figure, save, style_axes
from bcgan_tf.reproduction.markdown import DATASETS, machine, share, table
from bcgan_tf.reproduction.protocol import WAYS

Document = Mapping[str, Any]

# Below exp(-103.3) a float32 probability is 0, and with it the gradient of the cross entropy.
ZERO_AT = 103.3
# Nothing is extrapolated to more than so many times the last steps.
_FARTHEST = 1000
_SHOWN = {
    "clean": "clean",
    "pgd": "PGD, the authors' way",
    "fast": "suite fast",
    "zero_gradient": "zero gradients",
}


def refinement_page(document: Document, picture: str) -> str:
    """Markdown: the curve, its numbers, and when the gradient would be gone."""
    settings, steps = document["settings"], document["steps"]
    dataset = DATASETS.get(document["dataset"], document["dataset"])
    lines = [
        f"# A long refinement on {dataset}, as in the published code",
        "",
        f"    {document['command']}",
        "",
        f"![Accuracies and zero gradients against steps]({picture})",
        "",
        "The network of a published code, probably the authors' ([audit](../audit.md)), refined "
        f"as there: {steps['generated']:,} batches of 50 generated images, then one pass over the "
        f"real ones ({steps['real']:,} batches). The GAN was trained for {settings['gan_epochs']} "
        f"epochs (200 there){', in ' + settings['dtype'] if settings['dtype'] else ''}, the "
        "classifier always in float32. The control takes as many steps on real images alone. "
        "Accuracies and shares in percent: clean of all test images; PGD at eps 0.3 of [-1, 1] "
        f"pixels, 40 steps of 0.01 from the image ({settings['pgd_n']:,} test images); the "
        f"suite `fast` at the same eps ({settings['suite_n']:,}); zero gradients: images of PGD's "
        "that are classified right whose float32 gradient of the cross entropy is exactly 0. "
        f"Seed {document['seed']}.",
    ]
    for way, found in document["ways"].items():
        points = found["points"]
        lines += ["", f"## {WAYS[way][0].upper()}{WAYS[way][1:]}", ""]
        lines += table(
            ["steps", *_SHOWN.values(), "median gap of logits", "largest logit (absolute)"],
            [
                [
                    f"{one['steps']:,}",
                    *(share(one[key]) for key in _SHOWN),
                    "-" if one["median_gap"] is None else f"{one['median_gap']:.1f}",
                    f"{one['largest_logit']:,.0f}",
                ]
                for one in points
            ],
        )
        if (expected := extrapolated(points)) is not None:
            lines += [
                "",
                f"*Extrapolated, not measured*: the gap grew as the power {expected[0]:.2f} of the "
                f"steps over the last tenfold; so it would pass {ZERO_AT:g}, where half of the "
                f"gradients are exactly 0, after {expected[1]:.1e} steps.",
            ]
    machines = dict.fromkeys(machine(one["environment"]) for one in document["ways"].values())
    return "\n".join([*lines, "", f"Machines: {'; '.join(machines)}."]) + "\n"


def extrapolated(found: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The power with which the gap grows, and the steps at which half of the gradients are zero.

    None where they are already, where the gap does not grow or would have to for more than a
    thousand times as many steps, or where fewer than three points lie within a tenfold of the last.
    """
    known = [one for one in found if one["median_gap"] is not None]
    last = known[-1] if known else None
    if last is None or last["median_gap"] >= ZERO_AT:
        return None
    near = [one for one in known if 10 * one["steps"] >= last["steps"] > 0 < one["steps"]]
    if len(near) < 3:
        return None
    x, y = (np.log([one[key] for one in near]) for key in ("steps", "median_gap"))
    power = float(np.polyfit(x, y, 1)[0])
    farther = math.log(ZERO_AT) - float(y[-1])
    if farther > power * math.log(_FARTHEST):
        return None
    return power, math.exp(float(x[-1]) + farther / power)


def draw_refinement(document: Document, path: Path) -> Path:
    """A panel for each way: accuracies and the share of zero gradients against steps."""
    figure = new_figure(4.6 * len(document["ways"]), 3.2)
    for position, (way, found) in enumerate(document["ways"].items(), start=1):
        axes = figure.add_subplot(1, len(document["ways"]), position)
        points = found["points"]
        steps = [max(one["steps"], 1) for one in points]
        for number, (key, label) in enumerate(_SHOWN.items()):
            axes.plot(
                steps, [100 * one[key] for one in points], f"-{MARKERS[number]}", markersize=4,
                color=SERIES[number], label=label, linewidth=1.6,
            )  # fmt: skip
        style_axes(axes, title=WAYS[way], x="steps of refinement (1: none)", y="percent")
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)
        if position == 1:
            legend(axes, loc="center left")
    return save(figure, path)
