"""``bcgan-tf toy``: the paper's Figure 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output, session
from .command import Command

# The fields of bcgan_tf.toy.ToySettings, written out: importing it would load TensorFlow.
SETTINGS: dict[str, tuple[Any, Any, str]] = {
    "betas": (tuple, "0,0.2,1,5", "Weights of the boundary term, a panel each."),
    "steps": (int, 5000, "Of each GAN."),
    "batch_size": (int, 256, "Of the GANs and of the classifier."),
    "learning_rate": (float, 2e-4, "Of both Adams of each GAN."),
    "latent_dim": (int, 4, "Size of the noise."),
    "classifier_steps": (int, 600, "Of the classifier."),
    "samples": (int, 4000, "Generated points that are measured."),
}


@click.command(cls=Command)
@options.settings_options(SETTINGS)
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
    from bcgan_tf import pipeline
    from bcgan_tf.toy import ToySettings, toy

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
