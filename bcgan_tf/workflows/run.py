"""The stages of a run: train, harden, attack, export, report. Each is skipped when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bcgan_tf import progress
from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
from bcgan_tf.files import read_json
from bcgan_tf.loading.adapted import Adapted
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.report import page
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import card as model_card
from bcgan_tf.serving import export as serving
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.presets import Recipe
from bcgan_tf.workflows.attack import evaluate_models
from bcgan_tf.workflows.harden import HARDENED, harden
from bcgan_tf.workflows.train import CLASSIFIER, check_training, measure_clean_accuracy, train

__all__ = [
    "CLASSIFIER",
    "HARDENED",
    "check_training",
    "evaluate_models",
    "export",
    "harden",
    "measure_clean_accuracy",
    "report",
    "run",
    "train",
]


def export(
    run: RunDirectory,
    classifier: keras.Model,
    data: Dataset,
    name: str,
    saved_models_dir: str | Path,
    card: Mapping[str, Any],
    *,
    convention: Convention | None = None,
) -> Path:
    """Publishes the next version of ``saved_models_dir/name`` for TF Serving.

    Returns:
        The version's folder.
    """
    if run.stage_done("export"):
        return Path(run.stage_payload("export")["path"])
    directory = Path(saved_models_dir) / name
    if not run.stage_done("export-begin"):
        newest = max(serving.versions(directory), default=0)
        run.finish_stage("export-begin", {"newest": newest})
    path = _published(run, directory) or serving.export(
        classifier, directory, class_names=data.class_names, convention=convention, card=card
    )
    run.finish_stage("export", {"path": str(path)})
    return path


def _published(run: RunDirectory, directory: Path) -> Path | None:
    """The version that this run published just before it was killed, if it did."""
    before = run.stage_payload("export-begin")["newest"]
    for version in sorted(v for v in serving.versions(directory) if v > before):
        card = directory / str(version) / serving.CARD
        if card.exists() and read_json(card).get("run") == run.path.name:
            return card.parent
    return None


def report(run: RunDirectory) -> Path:
    """Writes the run's report.html."""
    return page.write_report(run)


def run(
    run: RunDirectory,
    data: Dataset,
    defense: Defense,
    recipe: Recipe,
    *,
    eps: float,
    classifier: Adapted | None = None,
    convention: Convention | None = None,
    validation: float | None = None,
    saved_models_dir: str | Path = "saved_models",
) -> dict[str, Any]:
    """Train (unless a classifier is given), harden, attack both, export, report.

    Both models are attacked within ``eps``, a Linf radius in [0, 1] pixel units, by the recipe's
    ``suite`` on ``n`` test images. The defence's seed and devices are those of all stages.
    ``validation`` is the given classifier's accuracy on validation images when it was trained.

    Returns:
        The metrics, with ``"exported"``: the version's folder.
    """
    # Before the hours of training that come first, not after them.
    defense.check_data(data)
    seed = defense.seed
    if classifier is None:
        trained = train(run, data, recipe, seed=seed, devices=defense.devices)
        classifier, validation = adapted_classifier(trained), trained_accuracy(trained)
    file = harden(run, data, classifier, defense, recipe)
    hardened = adapted_classifier(file, image_shape=data.image_shape, convention=convention)
    evaluate_models(
        run,
        data,
        {"original": classifier.classifier, "hardened": hardened.classifier},
        EvaluationConfig(eps=eps, suite=recipe.suite, n=recipe.n, seed=seed),
        validation={"original": validation, "hardened": trained_accuracy(file)},
        progress=progress.told,
    )
    card = model_card.of_training(run, "hardened")
    name = serving.served_name(data.name, defense.name)
    exported = export(
        run, hardened.given, data, name, saved_models_dir, card, convention=convention
    )
    metrics = run.add_metrics(exported=str(exported))
    report(run)
    return metrics
