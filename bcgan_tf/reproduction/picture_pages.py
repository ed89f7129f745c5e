"""The pages of Figures 2 and 4: the numbers in tables, and in words what they say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcgan_tf.data.gaussians import BAYES_ERROR, MEAN
from bcgan_tf.report.table import percent
from bcgan_tf.reproduction import markdown
from bcgan_tf.reproduction.toy import ToySettings
from bcgan_tf.workflows.boundary import BoundarySettings

# Distances within this share of each other are called equal.
_CLOSE = 0.1


def expected_of_data() -> dict[str, float]:
    """What the data of the toy themselves have, by calculation: a GAN at beta 0 should have it too.

    Returns:
        ``mean_distance`` to the Bayes boundary; ``kl_to_uniform`` of the Bayes classifier, in
        nats; ``bayes_accuracy``, the share of labels that are the Bayes class.
    """
    # Seen across the boundary a class is N(m, 1), m = sqrt(2) MEAN, and the classifier's
    # probabilities differ by the logit 2 m s: KL(U || P) = log cosh(m s).
    mean = math.sqrt(2) * MEAN
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    log_cosh = np.logaddexp(mean * (nodes + mean), -mean * (nodes + mean)) - math.log(2)
    return {
        "mean_distance": math.sqrt(2 / math.pi) * math.exp(-(mean**2) / 2)
        + mean * math.erf(mean / math.sqrt(2)),
        "kl_to_uniform": float(weights @ log_cosh / weights.sum()),
        "bayes_accuracy": 1 - BAYES_ERROR,
    }


def figure2_page(
    metrics: Mapping[str, Any], settings: ToySettings, picture: str, command: str, made_with: str
) -> str:
    """Figure 2's page, in Markdown.

    Args:
        metrics: what :func:`bcgan_tf.reproduction.toy.toy` returns.
        settings: with which.
        picture: its file's name.
        command: that repeats it.
        made_with: seed, versions, machine: a sentence.
    """
    panels, classifier = metrics["toy"], metrics["toy_classifier"]
    expected = expected_of_data()
    lines = markdown.table(
        (
            "",
            "mean distance to the boundary",
            "KL of C from uniform, nats",
            "c is true",
            "C says c",
        ),
        [
            (
                "the data, by calculation",
                f"{expected['mean_distance']:.3f}",
                f"{expected['kl_to_uniform']:.3f}",
                percent(expected["bayes_accuracy"]),
                "-",
            ),
            *(
                (
                    f"beta {panel['beta']:g}",
                    f"{panel['mean_distance']:.3f}",
                    f"{panel['kl_to_uniform']:.3f}",
                    percent(panel["bayes_accuracy"]),
                    percent(panel["classifier_accuracy"]),
                )
                for panel in panels
            ),
        ],
    )
    table = "\n".join(lines)
    findings = "\n".join(f"- {sentence}" for sentence in figure2_findings(panels, expected))
    return f"""# Figure 2: what beta does, where the best boundary is known

    {command}

Two Gaussians in the plane, means (-1.5, -1.5) and (1.5, 1.5), unit covariance, 2,000 points a
class: the best boundary is x1 + x2 = 0. C is a small network trained on them; each panel is one
BCGAN against it, {settings.steps:,} steps of batch {settings.batch_size}, of which
{settings.samples:,} generated points are measured. {made_with}

![Figure 2]({picture})

{table}

*c is true*: the class that a point was asked for is the one of its side of the best boundary.
C errs on {percent(classifier["test_error"])} of the test points, the best classifier on
{percent(classifier["bayes_test_error"])} of them ({percent(classifier["bayes_error"])} of the
distribution).

{findings}
"""


def figure2_findings(
    panels: Sequence[Mapping[str, float]], expected: Mapping[str, float]
) -> list[str]:
    """Each expectation with what was found, a sentence each.

    Args:
        panels: :func:`bcgan_tf.reproduction.toy.measure` of every beta, which is among them.
        expected: see :func:`expected_of_data`.
    """
    panels = sorted(panels, key=lambda panel: panel["beta"])
    betas = ", ".join(f"{panel['beta']:g}" for panel in panels)
    found = []
    if panels[0]["beta"] == 0:
        ratio = panels[0]["mean_distance"] / expected["mean_distance"]
        found.append(
            f"Expected at beta 0: points as far from the boundary as the data. "
            f"{'Holds' if abs(ratio - 1) <= _CLOSE else 'Does not hold'}: {ratio:.2f} times as far."
        )
    if len(panels) == 1:
        return found
    for key, name in (("mean_distance", "the distance"), ("kl_to_uniform", "the KL term")):
        values = [panel[key] for panel in panels]
        falls = all(b < a for a, b in itertools.pairwise(values))
        found.append(
            f"Expected: {name} falls with every step of beta ({betas}). "
            f"{'Holds' if falls else 'Does not hold'}: "
            f"{', '.join(f'{value:.2f}' for value in values)}."
        )
    truth = [panel["bayes_accuracy"] for panel in panels]
    falls = all(b <= a for a, b in itertools.pairwise(truth)) and truth[-1] < truth[0]
    found.append(
        "Expected, as the price: labels turn false, down to 50 % on the boundary itself. "
        f"{'Holds' if falls else 'Does not hold'}: "
        f"{', '.join(map(percent, truth))} are true."
    )
    return found


def figure4_page(
    metrics: Mapping[str, Any],
    settings: BoundarySettings,
    pictures: Sequence[str],
    left_out: Sequence[str],
    command: str,
    made_with: str,
) -> str:
    """Figure 4's page, in Markdown.

    Args:
        metrics: what :func:`bcgan_tf.workflows.boundary.boundary` returns.
        settings: with which.
        pictures: their files' names.
        left_out: rows that were asked for and have no boundary to draw.
        command: that repeats it.
        made_with: preset, seed, versions, machine: a sentence.
    """
    found = metrics["boundary"]
    dataset = markdown.DATASETS.get(metrics["dataset"], metrics["dataset"])
    how = "chosen by its number" if settings.index is not None else "the first that all get right"
    lines = markdown.table(
        ("plane", "model", "boundary along u, L2", "share of the plane that keeps the label"),
        [
            (
                plane["plane"],
                plane["model"] + (" (margin gradient)" if plane["used_margin_gradient"] else ""),
                _distance(plane["boundary_distance"], settings.extent),
                percent(plane["label_share"]),
            )
            for plane in found["planes"]
        ],
    )
    table = "\n".join(lines)
    sentences = "\n".join(f"- {text}" for text in figure4_findings(found, settings.extent))
    missing = (
        f"\nLeft out: {', '.join(left_out)}, which searches anew at every call and has no fixed "
        "boundary to draw.\n"
        if left_out
        else ""
    )
    images = "\n\n".join(f"![{picture}]({picture})" for picture in pictures)
    return f"""# Figure 4 on {dataset}: decision boundaries around one test image

    {command}

Test image {found["index"]} ({how}), class {found["class_name"]}. u is the gradient averaged over
{settings.samples:,} noisy copies (sigma {settings.sigma:.4g}), v what the local gradient adds (the
paper's eq. 11); or u points to a PGD-{settings.pgd_steps} example at Linf {settings.eps:.4g} and v
is a random direction orthogonal to it. Lengths are L2 norms of images in [0, 1], before clipping;
planes reach {settings.extent:g} each way, {settings.resolution} points a side. {made_with}
{missing}
{images}

{table}

## What one sees

{sentences}

One image and two directions out of hundreds: a picture, not a measure of robustness. That is in the
tables.
"""


def figure4_findings(found: Mapping[str, Any], extent: float) -> list[str]:
    """What the distances say about every model against the original, a sentence each.

    Args:
        found: the part ``"boundary"`` of the metrics.
        extent: of the planes.
    """
    original = found["original"]
    distances = {(p["plane"], p["model"]): p["boundary_distance"] for p in found["planes"]}
    models = list(dict.fromkeys(p["model"] for p in found["planes"]))
    margin = dict.fromkeys(
        p["model"]
        for p in found["planes"]
        if p["used_margin_gradient"] and (p["model"] == original or p["plane"] == "own directions")
    )
    sentences = []
    for what, shared, own in (
        ("averaged gradient", f"directions of {original}", "own directions"),
        ("PGD direction", f"PGD on {original}", "own PGD"),
    ):
        before = distances[shared, original]
        sentences.append(
            f"{original}: along its {what} the boundary lies "
            + (f"at {before:.2f}." if before is not None else f"beyond {extent:g}.")
        )
        for model in models:
            if model != original:
                there, here = distances[shared, model], distances[own, model]
                sentences.append(
                    f"{model}: along {original}'s {what} {_compared(there, before, extent)}, "
                    f"along its own {_compared(here, before, extent)}."
                    + (
                        " Its PGD had no gradient to follow: that says nothing."
                        if own == "own PGD" and model in margin
                        else _conclusion(there, here, before)
                    )
                )
    for model in models:
        by_pgd = distances["own PGD", model] if len(models) > 1 else None
        if by_pgd is not None and distances["own directions", model] is None:
            sentences.append(
                f"{model}: its own gradient at the image does not lead to the boundary, which PGD "
                f"finds at {by_pgd:.2f}: that plane says nothing of how far it is."
            )
    if margin:
        sentences.append(
            f"{', '.join(margin)}: the cross entropy has no gradient at this image, so the "
            "margin's stands in: what a plain gradient attack cannot find, the plane still shows."
        )
    return sentences


def _compared(distance: float | None, before: float | None, extent: float) -> str:
    if distance is None:
        return f"beyond {extent:g}"
    times = f" ({distance / before:.2f} times the original's)" if before else ""
    return f"at {distance:.2f}{times}"


def _conclusion(there: float | None, here: float | None, before: float | None) -> str:
    """What the shared plane promises against what the model's own one keeps."""
    if before is None:
        return ""
    shared, own = (math.inf if value is None else value / before for value in (there, here))
    farther = 1 + _CLOSE
    if own < 1 - _CLOSE:
        return " In its own direction it came nearer."
    if own <= farther:
        return (
            " It moved away only where the original's gradient points, not in its own direction."
            if shared > farther
            else " It is no farther in either direction."
        )
    if own < (1 - _CLOSE) * shared:
        return " Its own direction is the shorter way: the shared plane alone overstates the gain."
    return " It moved away in its own direction."


def _distance(value: float | None, extent: float) -> str:
    return f"beyond {extent:g}" if value is None else f"{value:.2f}"
