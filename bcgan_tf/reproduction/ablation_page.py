"""The ablation as a page: every arm of every seed, and whether the boundary made the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcgan_tf.reproduction.ablation_settings import ARMS, CONTROLS, DEFENSES
from bcgan_tf.reproduction.markdown import duration, headline, machine, share, table
from bcgan_tf.statistics import mean_interval

Document = Mapping[str, Any]
# Of a defence and an arm: the figures of each seed.
Runs = Mapping[str, Mapping[str, Any]]

_FIGURES = {"clean": "clean", "standard": "`standard`", "certified": "certified"}
_ADDED = tuple(arm for arm in ARMS if arm not in CONTROLS)


def paired_difference(
    defenses: Sequence[Mapping[str, Runs]], arm: str, control: str, figure: str
) -> tuple[float, float, int] | None:
    """Mean of ``arm - control`` over the seeds that have both, half its 95 % interval, how many.

    Seed by seed, because two arms of one seed start from the same network and see the same
    batches; the interval is Student's t, which for three seeds is 2.5 standard deviations.
    Of several defences a seed's difference is the mean of theirs: they share its network and its
    GAN, so that it counts once. None with fewer than two seeds.
    """
    pairs = [(runs.get(arm, {}), runs.get(control, {})) for runs in defenses]
    seeds = sorted(set.intersection(*(set(ours) & set(theirs) for ours, theirs in pairs)))
    if len(seeds) < 2:
        return None

    def of_seed(seed: str) -> float:
        return float(
            np.mean([a[seed][figure]["accuracy"] - b[seed][figure]["accuracy"] for a, b in pairs])
        )

    return (*mean_interval([of_seed(seed) for seed in seeds]), len(seeds))


def answer(difference: tuple[float, float, int] | None) -> str:
    """``yes``, ``no: worse``, ``not shown`` (the interval includes 0), or ``too few seeds``."""
    if difference is None:
        return "too few seeds"
    mean, half, _ = difference
    if mean - half > 0:
        return "yes"
    return "no: worse" if mean + half < 0 else "not shown"


def ablation_page(document: Document) -> str:
    """Markdown, from the JSON alone."""
    settings = document["settings"]
    lines = [
        *headline({**document, "paper": True}, "Does the boundary help?"),
        f"Robust training of a strided network (width {settings['width']:g}, threshold "
        f"{settings['threshold']:g}) at Linf {document['eps']:.3g} in [0, 1] pixels, with extra "
        "rows in every batch: `plain` ones of a GAN at beta 0, `boundary` ones of the same GAN at "
        "the default beta, `top2` with the two-class boundary loss, `refreshed` ones of a GAN that "
        "is trained on against the network of the moment, an epoch after every third; `duplicates` "
        "are the batch's own images again, attacked from other starts, and `none` has twice the "
        "epochs instead. Every arm attacks as many rows; the GAN's own training comes on top. "
        "Adversarial training and TRADES are in mixed_bfloat16.",
        "",
        "Accuracy in percent. `standard`: AutoAttack's four attacks, worst case, "
        f"{settings['n']:,} test images, of which those that interval bounds prove need no attack; "
        "clean and certified (interval bounds): all test images.",
    ]
    for defense in DEFENSES:
        if defense in document["runs"]:
            lines += ["", f"## {defense}", "", *_section(document["runs"][defense])]
    if len(document["runs"]) > 1:
        lines += _together(list(document["runs"].values()))
    return "\n".join([*lines, "", *_made_with(document)]) + "\n"


def _section(runs: Mapping[str, Runs]) -> list[str]:
    figures = [name for name in _FIGURES if name != "certified" or _is_certified(runs)]
    header = ["extra rows", "seeds", *(_FIGURES[name] for name in figures), "training"]
    lines = table(header, [_line(arm, runs[arm], figures) for arm in ARMS if arm in runs])
    compared = _compared([runs], figures)
    return [*lines, "", *compared] if compared else lines


def _together(defenses: Sequence[Mapping[str, Runs]]) -> list[str]:
    compared = _compared(defenses, ["clean", "standard"])
    if not compared:
        return []
    told = "Of each seed the mean of the defences' differences, so that a seed counts once."
    return ["", "## All defences together", "", told, "", *compared]


def _compared(defenses: Sequence[Mapping[str, Runs]], figures: Sequence[str]) -> list[str]:
    """A table of the differences between generated rows and controls that all of them have."""
    rows = [
        [
            f"{arm} - {control}",
            *(_difference(paired_difference(defenses, arm, control, name)) for name in figures),
            answer(paired_difference(defenses, arm, control, "standard")),
        ]
        for arm in _ADDED
        for control in CONTROLS
        if all(arm in runs and control in runs for runs in defenses)
    ]
    header = ["difference, points (95 %)", *(_FIGURES[name] for name in figures), "more robust?"]
    return table(header, rows) if rows else []


def _line(arm: str, runs: Runs, figures: Sequence[str]) -> list[str]:
    seconds = float(np.mean([found["training"]["seconds"] for found in runs.values()]))
    cells = []
    for name in figures:
        values = [runs[seed][name]["accuracy"] for seed in sorted(runs)]
        each = ", ".join(map(share, values))
        cells.append(f"**{share(float(np.mean(values)))}** ({each})")
    return [arm, str(len(runs)), *cells, duration(seconds)]


def _difference(found: tuple[float, float, int] | None) -> str:
    if found is None:
        return "-"
    mean, half, _ = found
    return f"{100 * mean:+.1f} ({100 * (mean - half):+.1f} to {100 * (mean + half):+.1f})"


def _is_certified(runs: Mapping[str, Runs]) -> bool:
    return any(f["certified"]["accuracy"] > 0 for arm in runs.values() for f in arm.values())


def _made_with(document: Document) -> list[str]:
    found = {
        machine(environment)
        for arms in document["runs"].values()
        for runs in arms.values()
        for one in runs.values()
        for environment in [one["training"]["environment"], *one["environments"]]
    }
    return [f"Trained and measured with {'; '.join(sorted(found))}."] if found else []
