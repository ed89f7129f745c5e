"""``bcgan-tf toy``: the paper's Figure 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bcgan_tf.settings.figures import ToySettings

from . import options, output, session
from .command import Command


@click.command(cls=Command)
@options.settings_options(ToySettings)
@options.run_options()
def command(
    run_dir: Path | None,
    resume: bool,
    seed: int,
    deterministic: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Draw the paper's Figure 2: what beta does to generated points.

    Two Gaussians in the plane, where the best boundary is known, and one BCGAN for each beta.
    """
    session.make_repeatable(seed, deterministic)
    from bcgan_tf.reproduction.toy import toy
    from bcgan_tf.workflows import run as pipeline

    chosen = ToySettings(**settings, seed=seed)
    config = {"dataset": "gaussians", **chosen.to_dict(), "deterministic": deterministic}
    with session.open_run("toy", config, run_dir=run_dir, resume=resume) as run:
        metrics = toy(run, chosen)
        report = pipeline.report(run)
        if as_json:
            output.print_json({**metrics, "run": str(run.path)})
            return
        output.print_rows("gaussians: generated points", metrics["toy"])
        output.print_paths({"figure": run.figures / "toy.png", "report": report})
