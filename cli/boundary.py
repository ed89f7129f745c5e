"""``bcgan-tf boundary``: the paper's Figure 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.settings.figures import BoundarySettings

from . import options, output, session
from .command import Command


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@options.dataset_options()
@options.settings_options(BoundarySettings)
@options.convention_options()
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
    **settings: Any,
) -> None:
    """Draw the paper's Figure 4: decision boundaries around one test image, side by side.

    MODELs are .keras files, the original first: all are drawn on the directions of the first, and
    each on its own.
    """
    names = session.named_models(models)
    convention = options.chosen_convention(settings)
    custom = settings.pop("custom_objects")
    session.check_programs(run_dir, {}, custom_objects=custom and str(custom))
    own = session.custom_objects(custom)
    settings["eps"] = options.chosen_eps(dataset, settings["eps"])
    images = options.chosen_images(settings)
    data = session.load_data(dataset, data_dir, seed, images, next(iter(names.values())))
    session.make_repeatable(seed, deterministic)
    from bcgan_tf.workflows import run as pipeline
    from bcgan_tf.workflows.boundary import boundary

    chosen = BoundarySettings(**settings, seed=seed)
    found = session.take_in(names, data, convention)
    loaded = {name: adapted.classifier for name, adapted in found.items()}
    config = {
        "dataset": dataset,
        **images.settings.changed(),
        **chosen.to_dict(),
        **convention.given,
        **own,
        "deterministic": deterministic,
        **session.described(names),
    }
    with session.open_run("boundary", config, run_dir=run_dir, resume=resume) as run:
        metrics = boundary(run, data, loaded, chosen)
        report = pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "run": str(run.path)})
            return
        found = metrics["boundary"]
        title = f"{data.name}: planes through test image {found['index']} ({found['class_name']})"
        output.print_rows(title, found["planes"])
        output.print_paths({"figures": run.figures, "report": report})
