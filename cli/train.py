"""``bcgan-tf train``: a classifier on clean data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.distribute import cluster
from bcgan_tf.settings.presets import ClassifierSettings

from . import options, output, session
from .command import Command


@click.command(cls=Command, of_workers=True)
@options.dataset_options()
@options.devices_option()
@options.recipe_options(ClassifierSettings)
@options.run_options()
def command(
    dataset: str,
    data_dir: Path | None,
    devices: int | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    """Train a classifier on clean data; prints its accuracy on the test images."""
    recipe = options.chosen_recipe(dataset, recipe_options)
    images = options.chosen_images(recipe_options)
    data = session.load_data(dataset, data_dir, seed, images)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf.evaluation.clean_accuracy import trained_accuracy
    from bcgan_tf.loading.classifier import load_classifier
    from bcgan_tf.workflows import run as pipeline

    pipeline.check_training(data, recipe, devices)
    config = {
        **recipe.to_dict(),
        **images.settings.changed(),
        "seed": seed,
        "deterministic": deterministic,
        "devices": devices,
    }
    with session.open_run("train", config, run_dir=run_dir, resume=resume, data=data) as run:
        path = pipeline.train(run, data, recipe, seed=seed, devices=devices)
        if not cluster.is_chief():
            return
        metrics = pipeline.measure_clean_accuracy(
            run,
            data,
            {"original": load_classifier(path)},
            validation={"original": trained_accuracy(path)},
        )
        pipeline.report(run)
        if as_json:
            output.print_json(
                {"classifier": str(path), "run": str(run.path), **metrics["models"]["original"]}
            )
            return
        output.print_metrics(metrics)
        output.print_paths({"classifier": path, "report": run.path / "report.html"})
