"""``bcgan-tf run``: the whole way from data to a servable hardened classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.settings.fields import Setting
from bcgan_tf.settings.kinds import AttackEps
from bcgan_tf.settings.presets import (
    AttackSettings,
    ClassifierSettings,
    SampleSettings,
    defense_settings,
)

from . import options, output, session
from .command import Command, FilePath

SEARCHING = "defense-gan"


@click.command(cls=Command)
@options.dataset_options()
@click.option(
    "--classifier",
    type=FilePath(),
    help="A trained .keras file, or file.py:function that gives a Keras model, in place of "
    "training one.",
)
@click.option(
    "--saved-models",
    type=FilePath(file_okay=False),
    default=Path("saved_models"),
    help="Where the hardened classifier is published.",
)
@options.convention_options()
@options.defense_options()
@options.devices_option()
@options.recipe_options(ClassifierSettings, SampleSettings, AttackSettings)
@options.setting_option(
    Setting.of("eps", AttackEps, help="Linf radius of the attacks on both models."),
    unset="the defense's, or the data set's",
)
@options.run_options()
def command(
    dataset: str,
    data_dir: Path | None,
    classifier: Path | None,
    saved_models: Path,
    defense: str,
    defense_options: tuple[str, ...],
    devices: int | None,
    eps: float | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    """Train, harden, attack, export and report, in a row.

    A setting of the defense is given as --option NAME=VALUE; `bcgan-tf settings` lists them.

    A run that was killed goes on with --run-dir and --resume, with the same result.
    """
    if defense == SEARCHING:
        raise click.UsageError(
            f"{SEARCHING} searches for every answer, so attacks on it need limits of their own; "
            f"use `harden --defense {SEARCHING}`, then `attack --suite rand`"
        )
    session.check_publishing(run_dir, saved_models)
    options.check_belongs(defense, trains=classifier is None)
    convention = options.chosen_convention(recipe_options)
    custom = recipe_options.pop("custom_objects")
    recipe = options.chosen_recipe(dataset, recipe_options)
    changes = options.named_values(defense_options)
    if classifier is not None:
        named = {"classifier": str(classifier), "custom_objects": custom and str(custom)}
        session.check_programs(run_dir, {}, **named)
    defense_settings(defense, dataset, recipe.preset, options=changes)  # before anything is loaded
    images = options.chosen_images(recipe_options)
    data = session.load_data(dataset, data_dir, seed, images, classifier)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf.defenses.presets import defense as defense_named
    from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
    from bcgan_tf.workflows import run as pipeline

    chosen = defense_named(
        defense, dataset, recipe.preset, options=changes, seed=seed, devices=devices
    )
    own = getattr(chosen, "eps", None) if eps is None else eps
    eps = options.chosen_eps(dataset, own)
    model, own = None, session.custom_objects(custom)
    if classifier is not None:
        model = session.take_in({"original": classifier}, data, convention)["original"]
    config = {
        **options.settings_that_count(recipe, defense, trains=classifier is None),
        **images.settings.changed(),
        "seed": seed,
        "deterministic": deterministic,
        "devices": devices,
        "classifier": str(classifier) if classifier else None,
        **session.described({"original": classifier} if classifier else {}),
        **convention.given,
        **own,
        "saved_models": str(saved_models),
        "eps": eps,
        "defense": defense,
        "defense_options": [f"{name}={value}" for name, value in changes.items()],
    }
    # Before there is a folder, which a corrected command could not begin in.
    if model is not None:
        chosen.check(model.classifier, data)
    else:
        chosen.check_data(data)
        pipeline.check_training(data, recipe, devices)
    with session.open_run("run", config, run_dir=run_dir, resume=resume, data=data) as run:
        metrics = pipeline.run(
            run,
            data,
            chosen,
            recipe,
            eps=eps,
            classifier=model,
            convention=convention,
            validation=trained_accuracy(classifier),
            saved_models_dir=saved_models,
        )
        if as_json:
            output.print_json({**metrics, "run": str(run.path)})
            return
        output.print_metrics(metrics)
        output.print_gains(run, metrics)
        output.print_paths(
            {
                "report": run.path / "report.html",
                "hardened classifier": run.path / pipeline.HARDENED,
                "exported model": metrics["exported"],
            }
        )
