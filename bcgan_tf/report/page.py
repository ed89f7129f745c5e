"""report.html: one self-contained page about a run, or about evaluations alone.

It needs metrics.json, and of a run its folder. What is not there has no section. ``metrics.json``
has this shape, and this is its one description; each key is optional unless marked with *::

    {"dataset": "mnist",
     "models": {                                # "original" and "hardened" in a run that hardens
       "original": {
         "clean_accuracy"*: 0.99, "clean_interval95": [lo, hi], "n": 10000,
         "suspicion": "Suspicious clean accuracy: ...",      # a sentence; also of an evaluation
         "evaluations": [                       # one entry a threat model
           {**Evaluation.to_dict(),             # suite, eps, norm, n, robust_accuracy, attacks, ...
            "verdict": Verdict.to_dict(), "diagnosis": Diagnosis.to_dict(),
            "certified": certificate(...),      # null: nothing can be proved
            "minimum_perturbation": MinimumPerturbation.to_dict(),
            "curve": [[0.0, 0.99], [0.01, 0.98], ...],      # eps, robust accuracy
            "distances": distance_bins({"fgsm": ..., "multi": ..., "best": ...}),
            "causes": Causes.to_dict(), "loss_curves": loss_curves(...),
            "classes": {"names"*: ["cat", ...], "n"*: [50, ...],   # counts, of those that occur
                        "clean"*: [49, ...], "robust"*: [40, ...]},
            "radii": {                          # one attack at several eps
              "attack"*: "PGD-40", "norm"*: "linf", "n"*: 500,
              "points"*: [{"eps"*: 0.1, "accuracy"*: 0.97, "interval95": [lo, hi]}, ...],
              "mean_distance": {"l2"*: 1.4, "n": 100}},     # of the examples found; null: none
            "reading": "eps 0.3 read as of [-1, 1] pixels", "shard": "1/2"}]},
       "hardened": {...}},
     "generated_set": {...},                    # GeneratedSet.to_dict(); "classes" adds log K
     "toy": [{"beta": 0.0, ...}],               # one dict of numbers a panel
     "toy_classifier": {...},                   # numbers
     "boundary": {"planes": [{...}], ...},      # one dict of numbers a plane and model
     "exported": "saved_models/mnist/1",
     "verdict_command": "bcgan-tf attack ...",  # of a hardening: what judges its models
     "unfinished": true}                        # while models are evaluated

Accuracies and rates are shares in [0, 1], intervals are 95 %, eps and distances are in [0, 1] pixel
units. Pictures are taken from ``figures/``: ``boundary_samples*.png``, ``boundary_plane*.png``,
``toy*.png``, per epoch ``samples*.png``, and for an evaluation
``evaluation_figures.figure_name("examples", model, evaluation)``; the curves and histograms are
drawn here. ``evaluation-<model>.npz`` beside the page is linked.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bcgan_tf.files import check_name, note, path_within
from bcgan_tf.report import comparison, evaluation_page, figures, findings
from bcgan_tf.report.pages import Picture, picture, write_page
from bcgan_tf.report.table import Table, clean_table, pairs_table, rows_table
from bcgan_tf.runs.directory import RunDirectory

_SAMPLE_GRIDS = 4


def write_report(run: RunDirectory) -> Path:
    """Draws the curves, and writes ``report.html`` of a run.

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
    if metrics.get("unfinished"):
        damaged.append(f"The evaluation is not finished; go on with: {run.resuming_command}")
    return write_page(
        run.path / "report.html",
        "report.html",
        title=f"{run.command}: {run.config.get('dataset', '')}".rstrip(": "),
        subtitle=_subtitle(run),
        damaged=damaged,
        run=_run(run, metrics),
        **_evaluated(metrics, run.figures, run),
    )


def write_evaluation_report(
    path: str | Path, metrics: Mapping[str, Any], *, figures: str | Path | None = None
) -> Path:
    """Writes the page of evaluations that have no run's folder.

    The page stands alone: style and figures are inside it. Curves and histograms are drawn from
    the numbers.

    Args:
        path: the page to write, such as ``"report.html"``; an older one is replaced.
        metrics: as of metrics.json: ``{"dataset": ..., "models": {name: {"clean_accuracy": ...,
            "evaluations": [{**evaluation.to_dict(), "verdict": verdict.to_dict(), ...}]}}}``.
        figures: a folder with pictures of examples, named as by
            :func:`bcgan_tf.report.evaluation_figures.figure_name`; the drawn ones stay there too.
            None: no examples, and the drawn ones are in the page alone.

    Returns:
        The page's path.

    Raises:
        OSError: the page cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        return write_page(
            Path(path),
            "report.html",
            title=f"Evaluation: {metrics.get('dataset') or ''}".rstrip(": "),
            subtitle=" · ".join(metrics.get("models", {})),
            damaged=[],
            run=None,
            **_evaluated(metrics, Path(figures or folder), None),
        )


def _evaluated(metrics: Mapping[str, Any], drawn: Path, run: RunDirectory | None) -> dict[str, Any]:
    columns = comparison.columns_of_metrics(metrics, run)
    folder = run.path if run else None
    return {
        "evaluations": [
            evaluation_page.section(column.model, column.evaluation, drawn, folder)
            for column in columns
        ],
        "comparison": comparison.Comparison.of(columns) if len(columns) > 1 else None,
        "radii": evaluation_page.radii_section(metrics, drawn),
        "clean": clean_table(metrics.get("models", {})),
        "suspicions": findings.suspicions(metrics.get("models", {})),
        "before_and_after": findings.before_and_after(metrics),
    }


def _subtitle(run: RunDirectory) -> str:
    extra = [f"preset {run.config['preset']}"] if run.config.get("preset") else []
    seed = run.config.get("seed")
    extra += [f"seed {seed}"] if seed is not None else []
    return " · ".join([run.path.name, *extra, *comparison.versions(run)])


def _run(run: RunDirectory, metrics: Mapping[str, Any]) -> SimpleNamespace:
    """What the page says of a run beside its evaluations."""
    seconds = ((stage, f"{value:.1f} s") for stage, value in run.stage_seconds().items())
    images = metrics.get("data", {}).get("text")
    settings = {
        "Images": pairs_table([("read", images)] if images else []),
        "Settings": _settings(run.config),
        "Settings of the defence": _settings(run.stage_payload("harden", {}).get("defense") or {}),
        "Environment": _settings(run.env()),
        "Time of each stage": pairs_table(seconds),
    }
    classifier = metrics.get("toy_classifier", {})
    return SimpleNamespace(
        samples=_pictures(run, "boundary_samples*.png"),
        generated=findings.generated_table(metrics.get("generated_set", {})),
        sample_epochs=_sample_epochs(run),
        planes=_pictures(run, "boundary_plane*.png"),
        plane_rows=rows_table(metrics.get("boundary", {}).get("planes", [])),
        toy=_pictures(run, "toy*.png"),
        toy_rows=rows_table(metrics.get("toy", [])),
        toy_classifier=rows_table([classifier] if classifier else []),
        stages=_stages(run),
        command_line=run.command_line,
        exported=metrics.get("exported"),
        settings=list(settings.items()),
    )


def _pictures(run: RunDirectory, pattern: str) -> list[Picture | None]:
    return [picture(file) for file in sorted(run.figures.glob(pattern))]


def _sample_epochs(run: RunDirectory) -> list[tuple[str, Picture | None]]:
    """Some of the grids that the GAN's training left, from the first epoch to the last."""
    grids = sorted(run.figures.glob("**/samples*.png"))
    last = len(grids) - 1
    if last < 1:
        return []
    chosen = sorted({round(last * i / (_SAMPLE_GRIDS - 1)) for i in range(_SAMPLE_GRIDS)})
    return [(grids[i].stem.replace("_", " "), picture(grids[i])) for i in chosen]


def _stages(run: RunDirectory) -> list[tuple[str, Picture | None]]:
    """The training curves of each stage, under the title that the stage left."""
    titles: dict[str, str] = {}
    for finished in run.stage_seconds():
        titles |= run.stage_payload(finished).get("titles", {})
    found = []
    for stage, metrics in run.history.read().items():
        file = run.figures / f"curves-{check_name(stage, f'a stage of {run.path}')}.png"
        title = titles.get(stage, stage.capitalize())
        found.append((title, picture(figures.curves(metrics, file))))
    return found


def _settings(values: Mapping[str, Any]) -> Table:
    return pairs_table((name, _shown(value)) for name, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)
