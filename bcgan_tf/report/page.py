"""report.html: one self-contained page about a run.

It reads a run directory and nothing else. What is not there (a run without attacks, a toy run) has
no section. ``metrics.json`` has this shape, each key optional unless marked with *::

    {"dataset": "mnist",
     "models": {                                # columns; "original" and "hardened" are compared
       "original": {
         "clean_accuracy"*: 0.99, "clean_interval95": [lo, hi], "n": 10000,
         "attacks": [                           # one entry an attack and eps
           {"attack"*: "PGD-40",
            "config"*: {"eps": 0.3, "norm": "linf", "steps": 40, ...},   # no eps: unbounded (CW)
            "robust_accuracy"*: 0.01, "interval": [lo, hi], "n"*: 1000,
            "success_rate"*: 0.99, "mean_l2": 5.1, "mean_linf": 0.3}],   # of the successes
         "worst_case": [                        # per example, over all attacks within this eps
           {"eps"*: 0.3, "robust_accuracy"*: 0.0, "interval": [lo, hi], "n"*: 1000}],
         "evaluations": [                       # one entry a threat model
           {**Evaluation.to_dict(),             # suite, eps, norm, n, robust_accuracy, attacks, ...
            "verdict": Verdict.to_dict(), "diagnosis": Diagnosis.to_dict(),
            "certified": certificate(...),      # where something is proved
            "minimum_perturbation": MinimumPerturbation.to_dict(),
            "curve": [[0.0, 0.99], [0.01, 0.98], ...],      # eps, robust accuracy
            "distances": distance_bins({"fgsm": ..., "multi": ..., "best": ...}),
            "causes": Causes.to_dict(), "loss_curves": loss_curves(...)}]},
       "hardened": {...}},
     "generated_set": {...},                    # GeneratedSet.to_dict(); "classes" adds log K
     "toy": [{"beta": 0.0, ...}],               # one dict of numbers a panel
     "toy_classifier": {...},                   # numbers
     "boundary": {"planes": [{...}], ...},      # one dict of numbers a plane and model
     "exported": "saved_models/mnist/1"}

Accuracies and rates are shares in [0, 1], intervals are 95 %, eps and distances are in [0, 1] pixel
units. Pictures are taken from ``figures/``: ``boundary_samples*.png``, ``adversarial*.png``,
``boundary_plane*.png``, ``toy*.png``, per epoch ``samples*.png``, and for an evaluation
``evaluation_figures.figure_name("examples", model, evaluation)``; the curves, histograms and bars
are drawn here. ``evaluation-<model>.npz`` beside the page is linked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.files import check_name, note, path_within, replace_file
from bcgan_tf.report import (
    comparison_page,
    evaluation_page,
    figures,
    findings,
    markup,
)
from bcgan_tf.report.columns import columns_of
from bcgan_tf.report.table import Cell, headline_rows
from bcgan_tf.runs.directory import RunDirectory

_SAMPLE_GRIDS = 4


def write_report(run: RunDirectory) -> Path:
    """Draws the curves and bars, and writes ``report.html``.

    Args:
        run: with whatever it has by now.

    Returns:
        The page's path.

    Raises:
        UserError: ``figures`` leads out of the run's folder, or a stage has a name that no file
            may have.
    """
    path_within(run.path, run.figures.name)  # pictures are written there too
    metrics = run.metrics()
    damaged = [
        f"{file} is damaged or gone, and what it holds is left out; {run.resuming_command} makes "
        "it again"
        for file in run.damaged_files()
    ]
    for line in damaged:
        note(line)
    title = f"{run.command}: {run.config.get('dataset', '')}".rstrip(": ")
    parts = [
        f"<header><h1>{markup.text(title)}</h1>",
        markup.paragraph(_subtitle(run), "under"),
        "</header>",
        *map(markup.paragraph, damaged),
        *evaluation_page.cards(metrics),
        markup.section("Side by side", *_side_by_side(run, metrics)),
        *_first_look(run, metrics),
        *evaluation_page.sections(run, metrics),
        markup.section("Boundary samples", *_samples(run, metrics)),
        markup.section("Adversarial examples", *_adversarial(run, metrics)),
        markup.section("Decision boundary", *_planes(run, metrics)),
        markup.section("Toy data", *_toy(run, metrics)),
        markup.section("Training", *_curves(run)),
        markup.section("How to repeat it", *_settings(run, metrics)),
    ]
    page = markup.document(f"bcgan-tf {title}", filter(None, parts))
    return replace_file(run.path / "report.html", page)


def _subtitle(run: RunDirectory) -> str:
    env = run.env()
    names = ("bcgan_tf", "tensorflow", "keras")
    versions = [f"{name} {env[name]}" for name in names if name in env]
    seed = run.config.get("seed")
    extra = [f"preset {run.config['preset']}"] if run.config.get("preset") else []
    extra += [f"seed {seed}"] if seed is not None else []
    return " · ".join([run.path.name, *extra, *versions])


def _side_by_side(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    """Where there is more than one evaluation."""
    if len(list(evaluation_page.evaluations(metrics))) > 1:
        yield from comparison_page.side_by_side(columns_of([run]))


def _first_look(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    """What the attacks of a run found; nothing where evaluations, which say more, are all."""
    models = metrics.get("models", {}).values()
    if any(m.get("evaluations") for m in models) and not any(m.get("attacks") for m in models):
        return
    yield markup.box(findings.verdict(metrics))
    yield _doubts(metrics)
    yield markup.section("Accuracy", *_accuracy(run, metrics))


def _doubts(metrics: Mapping[str, Any]) -> str:
    found = findings.doubts(metrics)
    lead = "What to doubt: these are signs that an attack failed, not that the model held."
    return markup.box([lead, *found], "doubt") if found else ""


def _accuracy(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    models = list(metrics.get("models", {}))
    if not models:
        return
    rows = headline_rows(metrics)
    yield markup.table(
        ["", *models],
        [
            [
                markup.text(row.label),
                *(_cell(row.cells.get(m, Cell(None)), row.kind) for m in models),
            ]
            for row in rows
        ],
        strong=[number for number, row in enumerate(rows) if row.worst],
    )
    yield markup.paragraph(
        "Share of the test images that are classified right, with its 95 % interval. eps and L2 "
        "distances are in [0, 1] pixel units. Worst case: an image counts only when it survives "
        "every attack of at most that eps. These attacks are a first look: they bound robust "
        "accuracy from above.",
        "note",
    )
    file = figures.robust_accuracy_bars(metrics, run.figures / "robust_accuracy.png")
    yield markup.picture(file, "The table as bars, with 95 % intervals")


def _cell(cell: Cell, kind: str) -> str:
    head, space, rest = cell.text(kind).partition(" (")
    if not space:
        head, space, rest = head.partition(", n")
    return f'{markup.text(head)}<span class="minor">{markup.text(space + rest)}</span>'


def _samples(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    for file in sorted(run.figures.glob("boundary_samples*.png")):
        yield markup.picture(file, "Boundary samples; a row shows samples of one class c")
    measures = metrics.get("generated_set", {})
    rows = findings.generated_rows(measures)
    yield markup.table(
        ("measure", "value", "how to read it"),
        [[markup.text(cell) for cell in row] for row in rows],
    )
    grids = sorted(run.figures.glob("**/samples*.png"))
    if len(grids) > 1:
        last = len(grids) - 1
        chosen = sorted({round(last * i / (_SAMPLE_GRIDS - 1)) for i in range(_SAMPLE_GRIDS)})
        images = [markup.picture(grids[i], _words(grids[i])) for i in chosen]
        yield markup.folded("Samples as training went on", *images)


def _words(file: Path) -> str:
    return file.stem.replace("_", " ").replace("-", " ")


def _adversarial(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    order = [f"adversarial_{model}" for model in metrics.get("models", {})]
    files = sorted(run.figures.glob("adversarial*.png"))
    for file in sorted(files, key=lambda f: order.index(f.stem) if f.stem in order else len(order)):
        yield markup.picture(
            file,
            f"{_words(file).replace('adversarial', 'Attacks on').strip()}. First row: test images "
            "with their classes; below, what each attack made of them and what the model then says "
            "(framed and starred where it is wrong)",
        )


def _planes(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    for file in sorted(run.figures.glob("boundary_plane*.png")):
        yield markup.picture(
            file,
            "Predicted class on a plane through a test image (the cross); both axes are L2 "
            "distances in [0, 1] pixel units",
        )
    yield _rows(metrics.get("boundary", {}).get("planes", []))


def _toy(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    for file in sorted(run.figures.glob("toy*.png")):
        yield markup.picture(file, "Data of two classes, generated samples, the Bayes boundary")
    yield _rows(metrics.get("toy", []))
    classifier = metrics.get("toy_classifier", {})
    numbers = markup.pairs((_spaced(name), _number(v)) for name, v in classifier.items())
    yield markup.folded("The classifier", numbers)


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Dicts of numbers, a row each."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return markup.table(
        [_spaced(name) for name in names],
        [[markup.text(_number(row.get(name))) for name in names] for row in rows],
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curves(run: RunDirectory) -> Iterable[str]:
    titles: dict[str, str] = {}
    for finished in run.stage_seconds():
        titles |= run.stage_payload(finished).get("titles", {})
    for stage, metrics in run.history.read().items():
        file = run.figures / f"curves-{check_name(stage, f'a stage of {run.path}')}.png"
        yield markup.picture(figures.curves(metrics, file), titles.get(stage, stage.capitalize()))


def _settings(run: RunDirectory, metrics: Mapping[str, Any]) -> Iterable[str]:
    if run.command_line:
        yield f"<pre>{markup.text(run.command_line)}</pre>"
    if metrics.get("exported"):
        yield markup.paragraph(f"Exported model: {metrics['exported']}")
    yield _folded("Settings", run.config)
    if defense := run.stage_payload("harden", {}).get("defense"):
        yield _folded("Settings of the defence", defense)
    yield _folded("Environment", run.env())
    seconds = run.stage_seconds()
    times = ((stage, f"{value:.1f} s") for stage, value in seconds.items())
    yield markup.folded("Time of each stage", markup.pairs(times) if seconds else "")


def _folded(title: str, values: Mapping[str, Any]) -> str:
    return markup.folded(title, markup.pairs((k, _shown(v)) for k, v in values.items()))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)
