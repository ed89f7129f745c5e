"""``bcgan-tf attack``: FGSM, PGD and Carlini-Wagner on one or more classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output, session
from .command import Command


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@options.dataset_options()
@options.recipe_options("attack")
@options.run_options()
def command(
    models: tuple[str, ...],
    dataset: str,
    data_dir: Path | None,
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **recipe_options: Any,
) -> None:
    """Attack classifiers (.keras files) and report their accuracy side by side.

    All are attacked white-box on the same test images with the true labels. The models named
    `original` and `hardened` are compared in words.
    """
    recipe = options.chosen_recipe(dataset, recipe_options)
    names = session.named_models(models)
    data = session.load_data(dataset, data_dir, seed)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf import pipeline

    loaded = session.load_models(names, data)
    config = {
        **recipe.to_dict(),
        "seed": seed,
        "deterministic": deterministic,
        **session.described(names),
    }
    with session.open_run("attack", config, run_dir=run_dir, resume=resume) as run:
        metrics = pipeline.attack(run, data, loaded, recipe, seed=seed)
        pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "run": str(run.path)})
            return
        output.print_metrics(metrics)
        output.print_paths({"report": run.path / "report.html"})
