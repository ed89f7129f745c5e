"""The published MNIST network of the paper's code: evaluated its authors' way, and ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf import progress
from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.primitives import margins, require_gradient
from bcgan_tf.diagnosis.loss_curves import loss_curves
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import gradient_health
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.files import as_json, file_digest
from bcgan_tf.perturbation.minimum_perturbation import minimum_perturbation
from bcgan_tf.report.evaluation_figures import loss_against_iteration
from bcgan_tf.reproduction import measures, paper
from bcgan_tf.reproduction.authors_page import authors_page
from bcgan_tf.reproduction.measures import SUMMARY, TableRow, stage
from bcgan_tf.reproduction.protocol import AuthorsProtocol, protocol
from bcgan_tf.reproduction.published_weights import published_network
from bcgan_tf.reproduction.workspace import Workspace

DATASET, ROW = "mnist", "bcgan"
# Linf, [0, 1] pixels: the suite's radii; and one step, the paper's two of [-1, 1] pixels.
_RADII = (0.1, 0.15, 0.2, 0.3)
_ONE_STEP = (0.1, 0.2)
_CURVES_AT = 0.15
_SUITE_N, _FEW = 1000, 200
_BATCH = 250


def authors(
    workspace: Workspace, weights: Path, sizes: AuthorsProtocol, *, results: Path, command: str
) -> Path:
    """Evaluates the published network, and writes ``authors-mnist.md``, its JSON and a picture.

    What is finished is kept in the cache under the weights' digest.

    Args:
        workspace: MNIST, the seed and the cache.
        weights: the published pickle, or an ``.npz`` of its tensors; see
            :func:`bcgan_tf.reproduction.published_weights.published_network`.
        sizes: the authors' way, and on how many images.
        results: where the page is written.
        command: a command line that repeats it, for the page.

    Returns:
        The page.

    Raises:
        UserError: other data than MNIST, or weights of another network.
    """
    if workspace.data.name != DATASET:
        raise UserError(f"the published network is of MNIST, not {workspace.data.name}")
    page = results / f"authors-{DATASET}.md"
    workspace.published(page, {}, ())
    network = published_network(weights)
    with workspace.open_run("convert", "published", {"weights": file_digest(weights)}) as run:
        file = run.path / "classifier.keras"
        if not run.stage_done("convert"):
            network.save(file)
            run.finish_stage("convert", files=[file])
    subject = TableRow(workspace, sizes, "published", file)
    document: dict[str, Any] = {
        "dataset": DATASET,
        "preset": workspace.preset,
        "seed": workspace.seed,
        "command": command,
        "weights_sha256": file_digest(weights),
        "protocol": sizes.to_dict(),
        "paper": paper.TABLE_1[DATASET][ROW],
        "paper_rho": paper.TABLE_2[DATASET][ROW],
        "authors_way": {
            "clean": measures.clean(subject),
            **measures.bounded(subject)["[-1, 1]"],
            "cw": measures.unbounded(subject),
            "rho": measures.smallest_along_one_gradient(subject),
        },
        "one_step": _one_step(subject),
        "standard": [_standard(subject, eps) for eps in _RADII],
        "least": _least(subject),
        "curves": _curves(subject),
    }
    document["environments"] = subject.environments
    picture = page.with_name(f"{page.stem}-loss.png")

    def text(whole: dict[str, Any]) -> str:
        loss_against_iteration(whole["curves"], picture)
        return authors_page(whole, picture.name)

    workspace.publish(page, as_json(document), (), lambda before: as_json(document), text)
    return page


def _standard(subject: TableRow[AuthorsProtocol], eps: float) -> dict[str, Any]:
    ours = dataclasses.replace(protocol(DATASET), eps=eps, standard_n=_SUITE_N)
    row: Any = TableRow(subject.workspace, ours, subject.row, subject.file)
    found = measures.standard(row)
    subject.environments += row.environments
    return found


def _one_step(subject: TableRow[AuthorsProtocol]) -> dict[str, Any]:
    """Gradients and logits of clean images; a step along random signs, and one on the margin."""
    with subject.open("one-step", {"n": _SUITE_N, "radii": _ONE_STEP}) as run:

        def measure() -> dict[str, Any]:
            task = subject.task(_SUITE_N)
            images, labels, model = task.images, task.labels, subject.model
            logits_fn = checks.as_logits_fn(model)
            logits = Batched(logits_fn, _BATCH)(images)
            second, first = np.sort(logits, axis=1)[:, -2:].T
            signs = np.sign(np.random.RandomState(subject.workspace.seed).randn(*images.shape))
            steps = {
                "random signs": signs.astype(np.float32),
                "the margin": Batched(_margin_signs(logits_fn), _BATCH)(images, labels),
            }

            def left(direction: np.ndarray, eps: float) -> float:
                moved = np.clip(images + np.float32(eps) * direction, 0.0, 1.0)
                return float((Batched(logits_fn, _BATCH)(moved).argmax(-1) == labels).mean())

            return {
                "n": task.n,
                "health": gradient_health(model, images, labels, float64=True).to_dict(),
                "largest_logit": float(logits.max()),
                "smallest_logit": float(logits.min()),
                "median_gap": float(np.median((first - second)[task.correct])),
                "along": {
                    name: {f"{eps:g}": left(direction, eps) for eps in _ONE_STEP}
                    for name, direction in steps.items()
                },
            }

        return stage(run, SUMMARY, measure)


def _margin_signs(logits_fn: checks.LogitsFn) -> Any:
    """Images and labels to the signs of the margin's gradient."""

    def signs(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            raised = margins(logits_fn(images), labels)
        return tf.sign(require_gradient(tape.gradient(raised, images)))

    return signs


def _least(subject: TableRow[AuthorsProtocol]) -> dict[str, Any]:
    with subject.open("rho", {"n": _FEW}) as run:

        def measure() -> dict[str, Any]:
            with progress.told("published: smallest perturbation") as report:
                return minimum_perturbation(subject.task(_FEW), progress=report).to_dict()

        return stage(run, SUMMARY, measure)


def _curves(subject: TableRow[AuthorsProtocol]) -> dict[str, Any]:
    with subject.open("loss-curves", {"n": _FEW, "eps": _CURVES_AT}) as run:

        def measure() -> dict[str, Any]:
            part = subject.images(_FEW)
            seed = subject.workspace.seed
            return loss_curves(
                EvaluationTask(subject.model, part.scaled(), part.labels, eps=_CURVES_AT, seed=seed)
            )

        return stage(run, SUMMARY, measure)
