"""Opening what a command works on: the data, the run's folder, the classifier."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bcgan_tf.recipes import Recipe

from .command import RUN

if TYPE_CHECKING:
    from bcgan_tf.data import Dataset
    from bcgan_tf.runs import RunDirectory


def load_data(dataset: str, data_dir: Path | None, seed: int) -> Dataset:
    """The data set; a wrong name or a missing copy is reported before TensorFlow loads."""
    from bcgan_tf import data

    return data.load(dataset, data_dir=data_dir, seed=seed)


def make_repeatable(seed: int, deterministic: bool) -> None:
    """Seeds Keras, NumPy and Python; with ``deterministic``, TensorFlow's operations too."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def open_run(
    command: str,
    recipe: Recipe,
    *,
    run_dir: Path | None,
    resume: bool,
    settings: dict[str, Any],
) -> Iterator[RunDirectory]:
    """The run's folder, locked, with every setting written down."""
    from bcgan_tf.runs import RunDirectory

    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir, the folder of the run to go on with")
    line = shlex.join(["bcgan-tf", *sys.argv[1:]])
    config = {**recipe.to_dict(), **settings}
    with RunDirectory.create(run_dir, command, config, resume=resume, command_line=line) as run:
        click.get_current_context().meta[RUN] = run.path
        click.echo(f"run: {run.path}", err=True)
        yield run
