"""``bcgan-tf harden``: a defence makes a classifier more robust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.settings.presets import SampleSettings, defense_settings

from . import options, output, session
from .command import Command, FilePath


@click.command(cls=Command)
@options.dataset_options()
@click.option(
    "--classifier",
    type=FilePath(),
    required=True,
    help="A trained .keras file, images in [0, 1] to logits.",
)
@options.defense_options()
@options.devices_option()
@options.recipe_options(SampleSettings)
@options.run_options()
def command(
    dataset: str,
    data_dir: Path | None,
    classifier: Path,
    defense: str,
    defense_options: tuple[str, ...],
    devices: int | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    """Harden a classifier: adversarial training, boundary samples, distillation, Defense-GAN.

    A setting of the defense is given as --option NAME=VALUE; `bcgan-tf settings` lists them.
    """
    options.check_belongs(defense)
    recipe = options.chosen_recipe(dataset, recipe_options)
    changes = options.named_values(defense_options)
    defense_settings(defense, dataset, recipe.preset, options=changes)  # before anything is loaded
    data = session.load_data(dataset, data_dir, seed)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf.defenses.presets import defense as defense_named
    from bcgan_tf.evaluation.clean_accuracy import clean_accuracy
    from bcgan_tf.loading.classifier import load_classifier
    from bcgan_tf.workflows import run as pipeline

    # The oracle is trained like the preset's classifier; hardening has no option for that.
    original = session.load_models({"original": classifier}, data)["original"]
    config = {
        **(recipe.to_dict() if defense == "bcgan" else {}),
        "dataset": recipe.dataset,
        "preset": recipe.preset,
        "defense_options": [f"{name}={value}" for name, value in changes.items()],
        "seed": seed,
        "deterministic": deterministic,
        "devices": devices,
        "classifier": str(classifier),
        **session.described({"original": classifier}),
        "defense": defense,
    }
    # Before there is a folder, which a corrected command could not begin in.
    chosen = defense_named(
        defense, dataset, recipe.preset, options=changes, seed=seed, devices=devices
    )
    chosen.check(original, data)
    with session.open_run("harden", config, run_dir=run_dir, resume=resume) as run:
        path = pipeline.harden(run, data, original, chosen, recipe)
        models = {"original": original, "hardened": load_classifier(path)}
        metrics = run.add_metrics(
            dataset=data.name,
            models={
                name: clean_accuracy(model, data.test, seed=seed) for name, model in models.items()
            },
        )
        pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "classifier": str(path), "run": str(run.path)})
            return
        output.print_metrics(metrics)
        output.print_paths({"hardened classifier": path, "report": run.path / "report.html"})
