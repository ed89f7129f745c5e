"""The sections of report.html about evaluations: verdicts first, then what they rest on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bcgan_tf.report import evaluation_figures as figures
from bcgan_tf.report import evaluation_findings as findings
from bcgan_tf.report import markup, per_example
from bcgan_tf.report.distances import bins_of_curve
from bcgan_tf.report.table import percent
from bcgan_tf.runs.directory import RunDirectory

_READINGS = (
    ("rho_fgsm", "Along the gradient's sign (FGSM)", "Misled by masked gradients: compare it with "
     "the best. Over the images that are classified right; misses count as the limit."),
    ("rho_multi", "Along many lines", "Over all images; misclassified ones count as 0."),
    ("rho_best", "Best of all searches", "The headline: over all images, misclassified ones as 0."),
)  # fmt: skip


def evaluations(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs of model name and evaluation, in the order of metrics.json."""
    for name, model in metrics.get("models", {}).items():
        for evaluation in model.get("evaluations", []):
            yield name, evaluation


def cards(metrics: Mapping[str, Any]) -> Iterable[str]:
    """The verdict of each model under each threat model."""
    for name, evaluation in evaluations(metrics):
        words, tone = findings.headline(evaluation)
        yield markup.card(
            f"{name}: {findings.setting(evaluation)}",
            words,
            f"Robust accuracy: {findings.robust_accuracy(evaluation)}",
            findings.meaning(evaluation),
            tone,
        )
    if any(True for _ in evaluations(metrics)):
        yield markup.paragraph(
            "Robust accuracy is the share of all test images that are classified right and stay "
            "right under every attack. In brackets: the 95 % interval for this many images "
            "(Wilson). eps and distances are in [0, 1] pixel units.",
            "note",
        )


def sections(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    """One section for each model under each threat model."""
    for name, evaluation in evaluations(metrics):
        yield markup.section(
            f"{name}: {findings.threat(evaluation)}",
            _one_line(evaluation),
            markup.paragraph(f"{evaluation['reading']}.") if evaluation.get("reading") else "",
            markup.subsection("Attacks", *_attacks(evaluation)),
            markup.subsection("Red flags of gradient masking", *_flags(evaluation)),
            markup.subsection("Robust accuracy over eps", _curve(run, name, evaluation)),
            markup.subsection("Loss against iteration", _losses(run, name, evaluation)),
            markup.subsection("Smallest perturbation", *_distances(run, name, evaluation)),
            markup.subsection("What inflates the accuracy", *_causes(evaluation)),
            markup.subsection("Examples", _examples(run, name, evaluation)),
            markup.subsection("Per-example results", *per_example.described(run, name, evaluation)),
        )


def _one_line(evaluation: Mapping[str, Any]) -> str:
    line = (evaluation.get("verdict") or {}).get("text")
    return markup.paragraph(f"In one line: {line}.") if line else ""


def _attacks(evaluation: Mapping[str, Any]) -> Iterable[str]:
    attacks = evaluation.get("attacks") or []
    clean = findings.accuracy(
        evaluation.get("clean_accuracy"), findings.interval_of(evaluation, "clean_")
    )
    rows = [["no attack", "", "", number(clean), number(clean), ""]]
    for row in findings.attack_rows(evaluation):
        cells = (row["attack"], row["tried"], row["broke"])
        numbers = (number(row["alone"]), number(row["left"]))
        rows.append([*map(markup.text, cells), *numbers, markup.text(row["seconds"])])
    worst = findings.accuracy(
        evaluation.get("robust_accuracy"), findings.interval_of(evaluation, "robust_")
    )
    rows.append(["worst case", "", "", "", number(worst), ""])
    yield markup.table(
        ("", "tried on", "broke", "accuracy under it alone", "accuracy left so far", "time"),
        rows,
        strong=[len(rows) - 1],
    )
    if evaluation.get("note"):
        yield markup.paragraph(f"{evaluation['note']}.", "note")
    settings = ((a.get("attack", ""), _settings(a.get("config", {}))) for a in attacks)
    yield markup.folded("Settings and seed of each attack", markup.pairs(settings))


def number(words: str) -> str:
    """An accuracy with its interval in small type."""
    head, bracket, rest = words.partition(" (")
    return f'{markup.prose(head)}<span class="minor">{markup.text(bracket + rest)}</span>'


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in config.items()
    )


def _flags(evaluation: Mapping[str, Any]) -> Iterable[str]:
    flags = findings.flags_of(evaluation)
    rows = []
    for flag in sorted(flags, key=findings.flag_rank):
        check = str(flag.get("check", ""))
        rows.append(
            [
                markup.explained(check, findings.CHECKS.get(check, "")),
                markup.state(*findings.flag_state(flag)),
                markup.numeral(findings.flag_number(flag)),
                markup.numeral(findings.flag_threshold(flag)),
                markup.text(flag.get("grade", "")),
                markup.prose(flag.get("text", "")),
            ]
        )
    yield markup.table(
        (
            "check, and what it means when raised",
            "result",
            "measured",
            "raised if",
            "grade",
            "seen",
        ),
        rows,
    )
    if flags:
        n = (evaluation.get("diagnosis") or {}).get("n")
        count = f"Measured on {n:,} images. " if n else ""
        yield markup.paragraph(
            f"{count}Numbers are shares of the images. Evidence that is raised denies a verdict of "
            "robustness; a notice does so only beyond 5 %.",
            "note",
        )


def _curve(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> str:
    curve = evaluation.get("curve")
    if not curve:
        return ""
    largest = per_example.largest_class(run, name, evaluation)
    file = figures.robust_accuracy_curves(
        {name: curve},
        run.figures / figures.figure_name("curve", name, evaluation),
        norm=evaluation.get("norm", "linf"),
        largest_class=largest,
        measured={name: point} if (point := measured(evaluation)) else None,
    )
    bound = (
        " No model can be above the dashed line: from Linf eps 0.5 on every image can be turned "
        "into the same grey one, so at most the largest class stays right."
        if largest is not None and evaluation.get("norm", "linf") == "linf"
        else ""
    )
    count = (evaluation.get("minimum_perturbation") or {}).get("n")
    basis = f" ({count:,} images)" if count else ""
    return markup.picture(
        file,
        f"Share of the images{basis} for which no adversarial example was found within eps. At "
        f"eps 0 it is the clean accuracy.{bound}",
    )


def measured(evaluation: Mapping[str, Any]) -> tuple[float, float, tuple[float, float]] | None:
    """eps, worst case and its interval; None where one of them is missing."""
    interval = findings.interval_of(evaluation, "robust_")
    eps, share = evaluation.get("eps"), evaluation.get("robust_accuracy")
    return None if eps is None or share is None or interval is None else (eps, share, interval)


def _losses(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> str:
    curves = evaluation.get("loss_curves")
    if not curves or not figures.loss_series(curves):
        return ""
    file = figures.loss_against_iteration(
        curves, run.figures / figures.figure_name("loss", name, evaluation)
    )
    count = f"Means over {curves['n']:,} images; " if curves.get("n") else "Means; "
    return markup.picture(
        file,
        f"{count}attacks go on after an image is broken. A sound attack's curves rise and level "
        "off, and more steps end no higher. A cross entropy that stays at 0 while the margin loss "
        "climbs is gradient masking.",
    )


def _distances(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> Iterable[str]:
    found = evaluation.get("minimum_perturbation") or {}
    rows = []
    for key, label, reading in _READINGS:
        if numbers := found.get(key):
            rows.append(
                [
                    markup.explained(label, reading),
                    markup.text(_mean(numbers)),
                    markup.text(_distance(numbers.get("median"))),
                    markup.text(_share(numbers.get("capped_share", numbers.get("censored_share")))),
                    markup.text(_share(numbers.get("zero_gradient_share"))),
                    markup.text(numbers.get("n", "-")),
                ]
            )
    yield markup.table(
        ("reading", "mean", "median", "nothing found", "zero gradient", "images"),
        rows,
        strong=[len(rows) - 1] if found.get("rho_best") else (),
    )
    if rows:
        norm = {"linf": "Linf", "l2": "L2"}.get(found.get("norm", ""), "")
        limit = f", searched up to {found['limit']:.4g}" if found.get("limit") else ""
        yield markup.paragraph(
            f"{norm} distance to the nearest image of another class that was found, in [0, 1] "
            f"pixel units{limit}. Nothing found: the search gave up, the distance is unknown, and "
            "a mean over all is not given. The distances bound the true ones from above.",
            "note",
        )
    bins = evaluation.get("distances")
    if bins is None and evaluation.get("curve") and found.get("n"):
        bins = bins_of_curve(evaluation["curve"], found["n"])
    if bins:
        file = figures.distance_histogram(
            bins,
            run.figures / figures.figure_name("distances", name, evaluation),
            norm=evaluation.get("norm", "linf"),
            eps=evaluation.get("eps"),
        )
        yield markup.picture(file, "Distances of the images to their nearest adversarial example")


def _mean(numbers: Mapping[str, Any]) -> str:
    if numbers.get("mean") is None and numbers.get("mean_found") is not None:
        return f"more than {_distance(numbers['mean_found'])}"
    return _distance(numbers.get("mean"))


def _distance(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _causes(evaluation: Mapping[str, Any]) -> Iterable[str]:
    causes = evaluation.get("causes") or {}
    rows: Sequence[Mapping[str, Any]] = (
        causes if isinstance(causes, list) else causes.get("rows", [])
    )
    cells = []
    for row in rows:
        inflation = row.get("inflation")
        state = ("not run", "none") if inflation is None else ("no", "good")
        state = ("yes", "bad") if row.get("reproduces") else state
        cells.append(
            [
                markup.text(row.get("cause", "")),
                markup.explained(_share(row.get("accuracy_on")), str(row.get("on", ""))),
                markup.explained(_share(row.get("accuracy_off")), str(row.get("off", ""))),
                markup.text("-" if inflation is None else f"{100 * inflation:+.1f} points"),
                markup.state(*state),
            ]
        )
    head = ("cause", "attacked the wrong way", "attacked the right way", "difference", "inflates")
    yield markup.table(head, cells)
    if cells and isinstance(causes, dict) and causes.get("text"):
        yield markup.paragraph(f"In short: {causes['text']}.", "note")


def _examples(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> str:
    return markup.picture(
        run.figures / figures.figure_name("examples", name, evaluation),
        "Test images; what an attack made of them, with the class that the model then sees (framed "
        "and starred where it is wrong); and the difference, amplified, grey where nothing changed",
    )
