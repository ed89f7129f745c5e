"""The stages of a run: train, harden, attack, export, report. Each is skipped when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf import progress, serving
from bcgan_tf.classifier_io import load_classifier
from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.defenses import BCGANDefense
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.first_look import first_look
from bcgan_tf.evaluation.generated_set import measure_generated_set
from bcgan_tf.files import read_json
from bcgan_tf.models.augmentation import noisy_shifted_batch
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.models.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.models.fitting import fit
from bcgan_tf.networks.classifiers import classifier as build_classifier
from bcgan_tf.networks.oracle import oracle as build_oracle
from bcgan_tf.recipes import Recipe
from bcgan_tf.report import figures, page
from bcgan_tf.runs import RunDirectory

CLASSIFIER = "classifier.keras"
HARDENED = "hardened.keras"
_GAN = "gan.keras"
_ORACLE = "oracle.keras"
_GRID_ROWS = 10
_EXAMPLES = 8
# Settings that a recipe and the defence call the same.
_SAME = (
    "beta",
    "delay_epochs",
    "warmup_epochs",
    "gan_epochs",
    "gan_batch_size",
    "gan_learning_rate",
    "generator_width",
    "discriminator_width",
    "latent_dim",
    "dropout",
    "real_target",
    "instance_noise",
    "spectral_norm",
    "ema",
    "dtype",
    "clean_ratio",
    "fixed_samples",
)


def train(
    run: RunDirectory, data: Dataset, recipe: Recipe, *, seed: int = 0, devices: int | None = None
) -> Path:
    """Trains the recipe's classifier on clean data.

    Returns:
        The saved classifier, ``classifier.keras`` in the run's folder.
    """
    options: dict[str, Any] = (
        {} if recipe.architecture == "small_cnn" else {"width": recipe.architecture_width}
    )
    if recipe.dtype and recipe.architecture == "resnet18":
        options["dtype"] = recipe.dtype
    return _train_once(
        run,
        data,
        "train",
        CLASSIFIER,
        lambda: build_classifier(
            recipe.architecture, data.image_shape, data.num_classes, seed=seed, **options
        ),
        epochs=recipe.classifier_epochs,
        recipe=recipe,
        seed=seed,
        devices=devices,
    )


def _train_once(
    run: RunDirectory,
    data: Dataset,
    stage: str,
    file: str,
    build: Any,
    *,
    epochs: int,
    recipe: Recipe,
    seed: int,
    devices: int | None,
    build_batch: BatchBuilder | None = None,
) -> Path:
    path = run.path / file
    if run.stage_done(stage):
        return path
    keras.utils.set_random_seed(seed)
    chosen = strategy(devices)
    batch_size = recipe.classifier_batch_size
    check_batch_size(batch_size, chosen)
    with scope(chosen):
        model = build()
        trainer = ClassifierTrainer(model, seed=seed, build_batch=build_batch)
        steps = epochs * steps_per_epoch(data.train, batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(recipe.classifier_learning_rate, steps)
        trainer.compile(keras.optimizers.Adam(schedule))
    fit(
        trainer,
        data.train,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=data.validation,
        directory=run.checkpoints / stage,
        resume=True,
        callbacks=[progress.HistoryWriter(run.history, stage)],
    )
    _save(model, path)
    run.finish_stage(stage)
    return path


def _save(model: keras.Model, path: Path) -> None:
    """Saves beside the target and renames: a kill leaves no half-written model."""
    partial = path.with_name(f".partial-{path.name}")
    model.save(partial)
    partial.replace(path)


def defense_of(recipe: Recipe, *, seed: int = 0, devices: int | None = None) -> BCGANDefense:
    """The BCGAN defence with a recipe's settings."""
    return BCGANDefense(
        **{name: getattr(recipe, name) for name in _SAME},
        epochs=recipe.harden_epochs,
        batch_size=recipe.harden_batch_size,
        learning_rate=recipe.harden_learning_rate,
        seed=seed,
        devices=devices,
    )


class _SampleGrid(keras.callbacks.Callback):
    """Draws what the GAN makes of the same noise after every epoch."""

    def __init__(self, folder: Path, classes: Sequence[str]):
        super().__init__()
        self.folder = folder
        self.classes = classes

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        gan: Any = self.model
        draw_samples(
            gan,
            self.folder / f"samples_epoch_{epoch + 1:04d}.png",
            self.classes,
            title=f"epoch {epoch + 1}",
        )


def draw_samples(gan: BCGAN, path: Path, classes: Sequence[str], *, title: str = "") -> Path:
    """A picture of generated samples, one row a class (at most ten classes)."""
    rows = min(len(classes), _GRID_ROWS)
    labels = np.repeat(np.arange(rows), _GRID_ROWS)
    images = gan.generate(labels, seed=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    return figures.image_grid(
        images, path, columns=_GRID_ROWS, row_labels=list(classes[:rows]), title=title
    )


def harden(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model,
    recipe: Recipe,
    *,
    defense: str = "bcgan",
    seed: int = 0,
    devices: int | None = None,
) -> Path:
    """Trains the boundary GAN and an oracle, measures the samples, refines the classifier.

    Returns:
        The saved hardened classifier, ``hardened.keras`` in the run's folder.

    Raises:
        UserError: no such defence, or the training failed.
    """
    if defense != BCGANDefense.name:
        raise UserError(f"there is no defense {defense!r}; choose {BCGANDefense.name}")
    path = run.path / HARDENED
    if run.stage_done("harden"):
        return path
    chosen = defense_of(recipe, seed=seed, devices=devices)
    gan = _trained_gan(run, data, classifier, chosen)
    if not run.stage_done("generated_set"):
        measures = _measure_generated(run, data, classifier, gan, recipe, seed, devices)
        run.finish_stage("generated_set", measures)
    keras.utils.set_random_seed(seed)
    hardened = chosen.refine(
        classifier,
        gan,
        data,
        directory=run.checkpoints / "harden",
        resume=True,
        callbacks=[progress.HistoryWriter(run.history, "harden")],
    )
    _save(hardened, path)
    run.finish_stage("harden")
    return path


def train_oracle(
    run: RunDirectory, data: Dataset, recipe: Recipe, *, seed: int = 0, devices: int | None = None
) -> Path:
    """Trains the net that judges generated samples and is in no loss.

    It sees noisy, shifted images, so that it goes by shapes: a plainly trained net calls a sample
    something else for a texture that a person does not see.

    Returns:
        The saved oracle, ``oracle.keras`` in the run's folder.
    """
    return _train_once(
        run,
        data,
        "oracle",
        _ORACLE,
        lambda: build_oracle(data.image_shape, data.num_classes, seed=seed),
        epochs=recipe.oracle_epochs,
        recipe=recipe,
        seed=seed,
        devices=devices,
        build_batch=noisy_shifted_batch,
    )


def _trained_gan(
    run: RunDirectory, data: Dataset, classifier: keras.Model, defense: BCGANDefense
) -> BCGAN:
    path = run.path / _GAN
    if run.stage_done("gan"):
        with scope(strategy(defense.devices)):
            return keras.models.load_model(path)
    gan = defense.train_gan(
        classifier,
        data,
        directory=run.checkpoints / "gan",
        resume=True,
        callbacks=[
            progress.HistoryWriter(run.history, "gan"),
            _SampleGrid(run.figures / "gan", data.class_names),
        ],
    )
    _save(gan, path)
    run.finish_stage("gan")
    return gan


def _measure_generated(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model,
    gan: BCGAN,
    recipe: Recipe,
    seed: int,
    devices: int | None,
) -> dict[str, Any]:
    oracle_path = train_oracle(run, data, recipe, seed=seed, devices=devices)
    labels = np.arange(recipe.generated_samples) % data.num_classes
    measures = measure_generated_set(
        gan.generate(labels, seed=1),
        labels,
        classifier=classifier,
        oracle=keras.models.load_model(oracle_path),
        real_images=data.validation.scaled(),
        real_labels=data.validation.labels,
    )
    draw_samples(gan, run.figures / "boundary_samples.png", data.class_names)
    return {**measures.to_dict(), "classes": data.num_classes}


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
    for name, model in models.items():
        stage = f"attack-{name}"
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


def model_card(run: RunDirectory, model: str, recipe: Recipe, *, seed: int) -> dict[str, Any]:
    """What the exported model's card says, from the run's metrics of ``model``."""
    metrics = run.metrics().get("models", {}).get(model, {})
    robust = [
        {
            "attack": entry["attack"],
            "eps": entry["config"].get("eps"),
            "n": entry["n"],
            "accuracy": entry["robust_accuracy"],
        }
        for entry in metrics.get("attacks", ())
        if entry["config"].get("eps") is not None
    ]
    return {
        "defense": defense_of(recipe, seed=seed).config() if model == "hardened" else None,
        "clean_accuracy": metrics.get("clean_accuracy"),
        "robust_accuracy": robust or None,
        "run": run.path.name,
    }


def report(run: RunDirectory) -> Path:
    """Writes the run's report.html."""
    return page.write_report(run)


def run(
    run: RunDirectory,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    devices: int | None = None,
    classifier: keras.Model | None = None,
    saved_models_dir: str | Path = "saved_models",
) -> dict[str, Any]:
    """Train (unless a classifier is given), harden, attack both, export, report.

    Returns:
        The metrics, with ``"exported"``: the version's folder.
    """
    if classifier is None:
        classifier = load_classifier(train(run, data, recipe, seed=seed, devices=devices))
    hardened = load_classifier(harden(run, data, classifier, recipe, seed=seed, devices=devices))
    metrics = attack(run, data, {"original": classifier, "hardened": hardened}, recipe, seed=seed)
    card = model_card(run, "hardened", recipe, seed=seed)
    name = f"{data.name}-{BCGANDefense.name}"
    exported = export(run, hardened, data, name, saved_models_dir, card)
    metrics = {**metrics, "exported": str(exported)}
    run.write_metrics(metrics)
    report(run)
    return metrics
