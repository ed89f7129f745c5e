"""``bcgan-tf attack``: FGSM, PGD and Carlini-Wagner on one or more classifiers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bcgan_tf.errors import UserError

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


def _names(models: tuple[str, ...]) -> dict[str, Path]:
    """Column titles: the names given, else the files', with their folders' where two are equal."""
    named: list[tuple[str, Path]] = []
    for model in models:
        name, given, path = model.partition("=")
        file = Path(path if given else model)
        # As a run calls its columns: the classifier that it trains is the original.
        named.append((name if given else file.stem.replace("classifier", "original"), file))
    names = [name for name, _ in named]
    found = {
        f"{path.parent.name}-{name}" if names.count(name) > 1 else name: path
        for name, path in named
    }
    if len(found) < len(named):
        raise UserError("the models have the same names; give them as NAME=MODEL")
    bad = [name for name in found if not re.fullmatch(r"[\w.-]+", name)]
    if bad:
        raise UserError(f"{bad[0]!r} is no name; use letters, digits, dots, dashes, underscores")
    return found
