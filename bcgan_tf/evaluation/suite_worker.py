"""The chunks of a suite's run, finished by workers; each result goes to the folder of its state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.distribute.workers import Workers
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import PIXELS, EvaluationState, differing, fingerprint
from bcgan_tf.evaluation.suite_run import SuiteRun, prepared_attacks
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.files import replacing
from bcgan_tf.lazy_images import ScaledImages, file_images, in_chunks
from bcgan_tf.loading.reload import loader_of
from bcgan_tf.version import __version__


@dataclasses.dataclass(frozen=True)
class SuiteJob:
    """All that a worker needs to finish a chunk of a :class:`SuiteRun`; it can be pickled.

    Attributes:
        load: makes the model.
        images: in a file, uint8 or float32 in [0, 1].
        settings: of the :class:`EvaluationTask`.
        attacks: a suite's name, or attacks.
        identity: of the model on these images.
        evaluation: of the run, without results.
        standing: of the run.
        before: of the run.
        chunk: of the run.
        folder: of its state.
        working_folder: from which the paths of models are.
        version: of this package, where it was made.
        deterministic: whether TensorFlow's operations are, where it was made.
    """

    load: Callable[[], Any]
    images: Any
    settings: dict[str, Any]
    attacks: str | Sequence[Attack]
    identity: dict[str, Any]
    evaluation: Evaluation
    standing: np.ndarray
    before: int
    chunk: int
    folder: Path
    working_folder: str = dataclasses.field(default_factory=os.getcwd)
    version: str = __version__
    deterministic: bool = dataclasses.field(default_factory=is_op_determinism_enabled)


def finish_in_workers(
    run: SuiteRun, task: EvaluationTask, attacks: str | Sequence[Attack], workers: Workers
) -> None:
    """Finishes what a run has not, so that :meth:`SuiteRun.finish` finds all in its folder.

    Args:
        run: with a folder for its state.
        task: that its attacks were prepared for.
        attacks: of which they were prepared.
        workers: that do it.

    Raises:
        UserError: the workers cannot load the model, or load another one; or an attack failed.
    """
    assert run.state.folder is not None
    folder = run.state.folder.resolve()
    left = [number for number in run.chunks if not run.state.has(run.pieces[number])]
    if not left:
        return
    names = [name for pieces in run.pieces for name in pieces]

    def look() -> None:
        if run.progress is not None:
            done = sum(run.state.has([name]) for name in names)
            share = round(len(run.images) * len(run.attacks) * done / len(names))
            text = f"{done:,} of {len(names):,} parts, {workers.count} workers"
            run.progress(share, len(run.images) * len(run.attacks), text)

    pixels = folder / PIXELS
    try:
        job = SuiteJob(
            load=loader_of(task.model, folder),
            images=_in_file(task.images, pixels),
            settings={
                "eps": task.eps,
                "norm": task.norm,
                "seed": task.seed,
                "batch_size": task.batch_size,
                "eot_samples": task.calls,
                "precision": task.searched_in,
            },
            attacks=attacks,
            identity=fingerprint(task.model, task.images, None),
            evaluation=dataclasses.replace(run.evaluation, results=(), seconds=()),
            standing=run.standing,
            before=run.before,
            chunk=run.chunk,
            folder=folder,
        )
        workers.run(suite_worker, job, left, look)
    finally:
        pixels.unlink(missing_ok=True)


def suite_worker(job: SuiteJob) -> Callable[[int], None]:
    """What finishes a chunk, by its number; called in a worker.

    Raises:
        UserError: the worker has another version of this package, or loads another model.
    """
    if job.version != __version__:
        raise UserError(
            f"a worker has bcgan-tf {__version__}, where the evaluation was begun with "
            f"{job.version}; install the same version everywhere"
        )
    os.chdir(job.working_folder)
    keras.utils.set_random_seed(job.settings["seed"])
    if job.deterministic:
        tf.config.experimental.enable_op_determinism()
    model, evaluation = job.load(), job.evaluation
    task = EvaluationTask(model, job.images, evaluation.labels, **job.settings)
    task = task.part_of(evaluation.indices)
    if others := differing(job.identity, fingerprint(model, task.images, None)):
        raise UserError(
            f"a worker loaded another model (another {' and '.join(others)}); the file changed, or "
            "its code makes another one each time"
        )
    run = SuiteRun(
        prepared_attacks(task, job.attacks),
        task.images,
        evaluation,
        job.standing,
        job.before,
        job.chunk,
        EvaluationState(job.folder, None),
    )

    def finish(number: int) -> None:
        run.finish_chunk(number)

    return finish


def _in_file(images: Any, path: Path) -> Any:
    """The images, or the pixels that they are made of, in a file that the workers read."""
    pixels = images.pixels if isinstance(images, ScaledImages) else images
    with replacing(path) as partial, partial.open("wb") as file:
        for part in in_chunks(pixels):
            file.write(part.data)
    return file_images(path, pixels.shape, pixels.dtype)
