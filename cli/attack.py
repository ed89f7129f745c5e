"""``bcgan-tf attack``: FGSM, PGD and Carlini-Wagner on one or more classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.cli import options, output, session
from bcgan_tf.cli.command import Command
from bcgan_tf.errors import UserError


@click.command(cls=Command)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL..."
)
@options.dataset_options()
@options.recipe_options("attack")
@options.run_options()
def command(
    models: tuple[Path, ...],
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

    All are attacked white-box on the same test images with the true labels.
    """
    recipe = options.chosen_recipe(dataset, recipe_options)
    names = _names(models)
    data = session.load_data(dataset, data_dir, seed)
    session.make_repeatable(seed, deterministic)
    from bcgan_tf import pipeline
    from bcgan_tf.classifier_io import load_classifier

    loaded = {
        name: load_classifier(path, image_shape=data.image_shape, num_classes=data.num_classes)
        for name, path in names.items()
    }
    settings = {
        "seed": seed,
        "deterministic": deterministic,
        "models": {name: str(path) for name, path in names.items()},
    }
    with session.open_run(
        "attack", recipe, run_dir=run_dir, resume=resume, settings=settings
    ) as run:
        metrics = pipeline.attack(run, data, loaded, recipe, seed=seed)
        pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "run": str(run.path)})
            return
        output.print_metrics(metrics)
        output.print_paths({"report": run.path / "report.html"})


def _names(paths: tuple[Path, ...]) -> dict[str, Path]:
    """A column title for each model: its file's name, with its folder's where two are the same."""
    stems = [path.stem for path in paths]
    names = [
        f"{path.parent.name}-{path.stem}" if stems.count(path.stem) > 1 else path.stem
        for path in paths
    ]
    if len(set(names)) < len(names):
        raise UserError("the models have the same names; give each file a name of its own")
    return dict(zip(names, paths, strict=True))
