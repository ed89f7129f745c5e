"""The stages of a run: train, harden, attack, export, report. Each is skipped when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bcgan_tf import progress
from bcgan_tf.data import Dataset, Split
from bcgan_tf.evaluation.first_look import clean_accuracy, first_look
from bcgan_tf.files import read_json
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.report import figures, page
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import card as model_card
from bcgan_tf.serving import export as serving
from bcgan_tf.settings.presets import Recipe
from bcgan_tf.statistics import wilson_interval
from bcgan_tf.workflows.attack import assess_models, keep_identity, write_metrics
from bcgan_tf.workflows.harden import HARDENED, chosen_defense, harden
from bcgan_tf.workflows.train import CLASSIFIER, check_training, train

__all__ = [
    "CLASSIFIER",
    "HARDENED",
    "assess_models",
    "attack",
    "check_training",
    "chosen_defense",
    "export",
    "harden",
    "measure_clean",
    "report",
    "run",
    "servable",
    "train",
    "write_metrics",
]

_EXAMPLES = 8
# Test images on which Defense-GAN is measured after hardening: each answer is a search.
_SEARCHED = 200


def attack(
    run: RunDirectory,
    data: Dataset,
    models: Mapping[str, keras.Model],
    recipe: Recipe,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Clean accuracy on the whole test set, and FGSM, PGD and CW on the same part of it.

    Returns:
        The content of metrics.json, as :mod:`bcgan_tf.report.page` describes it.
    """
    some = data.test.take(_EXAMPLES)
    for name, model in models.items():
        stage = f"attack-{name}"
        keep_identity(run, name, model, some.scaled(), some.labels)
        if run.stage_done(stage):
            continue
        found = first_look(
            model,
            data.test,
            recipe,
            seed=seed,
            progress=lambda label, model=name: progress.counted(f"{label} on {model}"),
        )
        _draw_adversarials(run, data, name, found.examples)
        run.finish_stage(stage, found.metrics)
    metrics: dict[str, Any] = {
        "dataset": data.name,
        "models": {name: run.stage_payload(f"attack-{name}") for name in models},
    }
    if run.stage_done("generated_set"):
        metrics["generated_set"] = run.stage_payload("generated_set")
    run.write_metrics(metrics)
    return metrics


def _draw_adversarials(
    run: RunDirectory, data: Dataset, name: str, examples: Mapping[str, Any]
) -> None:
    if len(data.image_shape) != 3 or not examples["adversarials"]:
        return
    names = data.class_names
    figures.adversarial_grid(
        examples["images"][:_EXAMPLES],
        {row: images[:_EXAMPLES] for row, images in examples["adversarials"].items()},
        run.figures / f"adversarial_{name}.png",
        labels=[names[i] for i in examples["labels"][:_EXAMPLES]],
        predictions={
            row: [names[i] for i in predicted[:_EXAMPLES]]
            for row, predicted in examples["predictions"].items()
        },
        title=name,
    )


def measure_clean(model: keras.Model, test: Split, *, seed: int = 0) -> dict[str, Any]:
    """Clean accuracy with its interval and n, on all test images.

    On 200 of them, with progress, where every answer takes a search (Defense-GAN).
    """
    if not isinstance(model, DefenseGANClassifier):
        return clean_accuracy(model, test)
    part = test.take(_SEARCHED, seed=0)
    with progress.counted("Defense-GAN's search on test images") as count:
        logits = model.logits(part.scaled(), seed=seed, progress=count)
    right = int((logits.argmax(-1) == part.labels).sum())
    return {
        "clean_accuracy": right / len(part),
        "clean_interval": list(wilson_interval(right, len(part))),
        "n": len(part),
    }


def servable(model: keras.Model, *, seed: int = 0) -> tuple[keras.Model, dict[str, Any]]:
    """The model in a form that answers the same to the same image, and what its card says of that.

    Only Defense-GAN's is another one: its search draws its starting points anew at every call, and
    what is served has them drawn once.
    """
    if not isinstance(model, DefenseGANClassifier):
        return model, {}
    note = (
        f"Defense-GAN with starting points drawn once (seed {seed}): the served model answers the "
        "same to the same image. The model that was measured draws them at every call; with fixed "
        "ones it is easier to attack."
    )
    return model.with_fixed_starts(seed), {"note": note}


def export(
    run: RunDirectory,
    classifier: keras.Model,
    data: Dataset,
    name: str,
    saved_models_dir: str | Path,
    card: Mapping[str, Any],
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
        classifier, directory, class_names=data.class_names, card=card
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
    recipe: Recipe,
    *,
    defense: str,
    seed: int = 0,
    devices: int | None = None,
    classifier: keras.Model | None = None,
    options: Mapping[str, Any] | None = None,
    saved_models_dir: str | Path = "saved_models",
) -> dict[str, Any]:
    """Train (unless a classifier is given), harden, attack both, export, report.

    ``defense`` and ``options`` are those of :func:`bcgan_tf.workflows.harden.harden`.

    Returns:
        The metrics, with ``"exported"``: the version's folder.
    """
    # Before the hours of training that come first, not after them.
    chosen = chosen_defense(recipe, defense, options=options, seed=seed, devices=devices)
    chosen.check_data(data)
    if classifier is None:
        classifier = load_classifier(train(run, data, recipe, seed=seed, devices=devices))
    path = harden(
        run, data, classifier, recipe, defense=defense, options=options, seed=seed, devices=devices
    )
    hardened = load_classifier(path)
    metrics = attack(run, data, {"original": classifier, "hardened": hardened}, recipe, seed=seed)
    card = model_card.of_training(run, "hardened")
    name = serving.served_name(data.name, defense)
    exported = export(run, hardened, data, name, saved_models_dir, card)
    metrics = {**metrics, "exported": str(exported)}
    run.write_metrics(metrics)
    report(run)
    return metrics
