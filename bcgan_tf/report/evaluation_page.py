"""What the page says of each model under each threat model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bcgan_tf.report import evaluation_figures as figures
from bcgan_tf.report import findings, per_example
from bcgan_tf.report.pages import Picture, picture
from bcgan_tf.report.table import (
    NORMS,
    Table,
    attack_table,
    class_table,
    interval_of,
    pairs_table,
    radii_table,
)


def evaluations(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs of model name and evaluation, in the order of metrics.json."""
    for name, model in metrics.get("models", {}).items():
        for evaluation in model.get("evaluations", []):
            yield name, evaluation


def section(
    name: str, evaluation: Mapping[str, Any], drawn: Path, folder: Path | None
) -> SimpleNamespace:
    """What ``report.html`` names of one evaluation.

    Args:
        name: of the model.
        evaluation: its entry of ``evaluations`` in metrics.json.
        drawn: the folder of pictures, in which curves and histograms are drawn.
        folder: of the run, with the per-example files; None: there is none.
    """
    headline, severity = findings.headline(evaluation)
    perturbation = evaluation.get("minimum_perturbation") or {}
    causes = evaluation.get("causes") or {}

    def file(kind: str) -> Path:
        return drawn / figures.figure_name(kind, name, evaluation)

    classes = class_table(evaluation)
    largest = per_example.largest_class(folder, name, evaluation)
    return SimpleNamespace(
        name=name,
        threat=findings.threat(evaluation),
        setting=findings.setting(evaluation),
        headline=headline,
        severity=severity,
        robust_accuracy=findings.robust_accuracy(evaluation),
        meaning=findings.meaning(evaluation),
        one_line=(evaluation.get("verdict") or {}).get("text"),
        reading=evaluation.get("reading"),
        attacks=attack_table(evaluation),
        classes=classes,
        classes_note=findings.classes_note(evaluation, len(classes.rows)),
        note=evaluation.get("note"),
        attack_settings=_attack_settings(evaluation),
        flags=findings.flags_table(evaluation),
        flags_n=(evaluation.get("diagnosis") or {}).get("n"),
        curve=_curve(name, evaluation, file("curve"), largest),
        curve_n=perturbation.get("n"),
        curve_is_bounded=largest is not None and evaluation.get("norm", "linf") == "linf",
        losses=_losses(evaluation, file("loss")),
        losses_n=(evaluation.get("loss_curves") or {}).get("n"),
        distances=findings.distances_table(perturbation),
        distances_norm=NORMS.get(perturbation.get("norm", ""), ""),
        distances_limit=perturbation.get("limit"),
        histogram=_histogram(evaluation, file("distances")),
        causes=findings.causes_table(causes),
        causes_text=causes.get("text"),
        examples=picture(file("examples")),
        files=list(per_example.array_files(folder, name, evaluation)),
    )


def _attack_settings(evaluation: Mapping[str, Any]) -> Table:
    return pairs_table(
        (
            attack.get("attack", ""),
            ", ".join(
                f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
                for key, value in attack.get("config", {}).items()
            ),
        )
        for attack in evaluation.get("attacks") or []
    )


def _curve(
    name: str, evaluation: Mapping[str, Any], file: Path, largest: float | None
) -> Picture | None:
    if not evaluation.get("curve"):
        return None
    point = measured(evaluation)
    return picture(
        figures.robust_accuracy_curves(
            {name: evaluation["curve"]},
            file,
            norm=evaluation.get("norm", "linf"),
            largest_class=largest,
            measured={name: point} if point else None,
        )
    )


def measured(evaluation: Mapping[str, Any]) -> tuple[float, float, tuple[float, float]] | None:
    """eps, worst case and its interval; None where one of them is missing."""
    interval = interval_of(evaluation, "robust_")
    eps, share = evaluation.get("eps"), evaluation.get("robust_accuracy")
    return None if eps is None or share is None or interval is None else (eps, share, interval)


def _losses(evaluation: Mapping[str, Any], file: Path) -> Picture | None:
    curves = evaluation.get("loss_curves")
    if not curves or not figures.loss_series(curves):
        return None
    return picture(figures.loss_against_iteration(curves, file))


def _histogram(evaluation: Mapping[str, Any], file: Path) -> Picture | None:
    bins = evaluation.get("distances")
    if not bins:
        return None
    norm = evaluation.get("norm", "linf")
    return picture(figures.distance_histogram(bins, file, norm=norm, eps=evaluation.get("eps")))


def radii_section(metrics: Mapping[str, Any], drawn: Path) -> SimpleNamespace | None:
    """The accuracy of all models over the radii of an attack; None where none was measured.

    Only models that were measured in the first one's norm share its axis.
    """
    found = {
        name: entry["radii"]
        for name, model in metrics.get("models", {}).items()
        for entry in model.get("evaluations", ())
        if (entry.get("radii") or {}).get("points")
    }
    if not found:
        return None
    norm = next(iter(found.values()))["norm"]
    found = {name: radii for name, radii in found.items() if radii["norm"] == norm}
    told = dict.fromkeys(f"{radii['attack']}, {radii['n']:,} images" for radii in found.values())
    return SimpleNamespace(
        curves=picture(figures.radii_curves(found, drawn / "radii.png")),
        caption=f"Accuracy under one attack ({'; '.join(told)}) over its {NORMS[norm]} radius, "
        "with 95 % intervals. Each point is an upper bound of the robust accuracy at that eps.",
        table=radii_table(found),
    )
