"""Opening what a command works on: the data, the run's folder, the classifier."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bcgan_tf.recipes import Recipe

from .command import DEBUG, RUN

if TYPE_CHECKING:
    from bcgan_tf.data import Dataset
    from bcgan_tf.runs import RunDirectory


def load_data(dataset: str, data_dir: Path | None, seed: int) -> Dataset:
    """The data set; a wrong name or a missing copy is reported before TensorFlow loads."""
    from bcgan_tf import data

    if any(info.name == dataset and info.prepared for info in data.datasets(data_dir=data_dir)):
        start_tensorflow()  # reading will, and its notes are not for users
    return data.load(dataset, data_dir=data_dir, seed=seed)


def make_repeatable(seed: int, deterministic: bool) -> None:
    """Seeds Keras, NumPy and Python; with ``deterministic``, TensorFlow's operations too."""
    start_tensorflow()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, without the notes that both print.

    They come from C++ before any logging level applies, so stderr itself is put aside; when the
    import fails, or with --debug, they are shown.
    """
    if click.get_current_context().meta[DEBUG]:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


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
