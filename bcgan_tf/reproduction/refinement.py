"""Does the paper's BCGAN row grow out of a long refinement? A curve against its steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks import PGD, checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.data import steps_per_epoch
from bcgan_tf.defenses import BCGANTraining
from bcgan_tf.defenses.presets import defense
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.clean_accuracy import clean_accuracy
from bcgan_tf.evaluation.gradient_health import gradient_health
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.files import as_json, file_digest
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.reproduction.markdown import options_text
from bcgan_tf.reproduction.measures import stage
from bcgan_tf.reproduction.protocol import WAYS, RefinementSettings, check_rows, protocol
from bcgan_tf.reproduction.refinement_page import draw_refinement, refinement_page
from bcgan_tf.reproduction.rows import lasting_settings, original_of
from bcgan_tf.reproduction.workspace import Workspace
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.presets import AUTHORS, recipe

_IDENTITY = ("dataset", "seed", "settings", "steps")
_BATCH = 250
# Numbers of images, which the training does not depend on.
_SIZES = ("pgd_n", "suite_n")


def refinement(
    workspace: Workspace,
    settings: RefinementSettings,
    rows: Sequence[str] = (),
    *,
    results: Path,
    command: str,
) -> Path:
    """Refines the classifier of the preset ``authors`` for long, and measures it on the way.

    Classifier and GAN are trained first, where the cache lacks them. Each refinement is measured
    before the first step and after 1, 2, 5, 10, 20, 50 ... epochs, the control after as many steps;
    the page is written after each. A kill costs an epoch at most. The other curve stays on the page
    where an earlier call published it.

    Args:
        workspace: the data, the seed and the cache; the preset is ``authors``.
        settings: lengths and numbers of images.
        rows: names of :data:`bcgan_tf.reproduction.protocol.WAYS`; none: both.
        results: where ``refinement-<dataset>.json``, ``.md`` and ``.png`` are written.
        command: a command line that repeats it, for the page.

    Returns:
        The page.

    Raises:
        UserError: no such row, the data set has no such preset, or a training failed.
    """
    rows = check_rows(rows, tuple(WAYS))
    workspace = dataclasses.replace(workspace, preset=AUTHORS)
    name, seed = workspace.data.name, workspace.seed
    trained = ("gan_epochs", "epochs", "generated_batches", "dtype")
    options = {key: value for key in trained if (value := getattr(settings, key)) is not None}
    mixed: Any = defense(
        "bcgan", name, AUTHORS, options=options, seed=seed, devices=workspace.devices
    )
    real = steps_per_epoch(workspace.data.train, mixed.batch_size)
    each = mixed.generated_batches + real
    document: dict[str, Any] = {
        "dataset": name,
        "seed": seed,
        "command": command,
        "settings": settings.to_dict(),
        "steps": {"generated": mixed.generated_batches, "real": real},
        "ways": {},
    }
    page = results / f"refinement-{name}.md"
    workspace.published(page, as_json(document), _IDENTITY)
    original = original_of(workspace, recipe(name, AUTHORS))
    classifier = load_classifier(original)

    def publish() -> None:
        def joined(before: dict[str, Any]) -> dict[str, Any]:
            ways = {**before.get("ways", {}), **document["ways"]}
            return {**document, "ways": {way: ways[way] for way in WAYS if way in ways}}

        def text(whole: dict[str, Any]) -> str:
            picture = page.with_suffix(".png")
            draw_refinement(whole, picture)
            return refinement_page(whole, picture.name)

        workspace.publish(page, as_json(document), _IDENTITY, joined, text)

    marks = marks_of(settings.epochs)
    # As many steps as there, to the nearest epoch. The dtype is of the GAN alone.
    alone_at = {epoch: epoch * real for epoch in (round(mark * each / real) for mark in marks)}
    alone = dataclasses.replace(mixed, generated_batches=0, epochs=max(alone_at), dtype=None)
    plan: dict[str, tuple[BCGANTraining, dict[int, int]]] = {
        "generated": (mixed, {mark: mark * each for mark in marks}),
        "real": (alone, alone_at),
    }
    digest = file_digest(original)
    for way in rows:
        training, steps_at = plan[way]
        gan = None
        if training.generated_batches:
            gan_run = {**lasting_settings(training), "original": digest, "epochs": 0}
            with workspace.open_run("train", "gan", gan_run) as run:
                gan = training.train_gan(
                    classifier, workspace.data, directory=run.path / "gan", resume=True
                )
        refined = {**lasting_settings(training), "original": digest}
        if gan is None:
            del refined["gan_epochs"]
        with workspace.open_run("harden", "refinement", refined) as run:
            _check_sizes(run, settings)
            points: list[dict[str, Any]] = []
            document["ways"][way] = {
                "points": points, "original_sha256": digest, "environment": run.env()
            }  # fmt: skip
            noted = _Noted(run, workspace, settings, steps_at, points, publish)
            noted.note(0, classifier)
            training.refine(
                classifier,
                gan,
                workspace.data,
                directory=run.path / "harden",
                resume=True,
                callbacks=[noted],
            )
            noted.collect()  # of a training that was complete already
    return page


def _check_sizes(run: RunDirectory, settings: RefinementSettings) -> None:
    """Refuses other numbers of images than those that a curve was begun with.

    The networks on the way are not kept, so that they cannot be measured again.
    """
    asked = {name: getattr(settings, name) for name in _SIZES}
    begun = stage(run, "sizes", lambda: asked)
    if begun != asked:
        told = options_text({name: str(value) for name, value in begun.items()})
        raise UserError(
            f"the curve in {run.path} was measured with{told}, and the networks on the way are "
            "not kept; leave these settings as they were, or choose another --cache"
        )


def marks_of(epochs: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50 ... and the last epoch."""
    marks = [0, *(step * 10**power for power in range(6) for step in (1, 2, 5))]
    return [mark for mark in marks if mark < epochs] + [epochs]


class _Noted(keras.callbacks.Callback):
    """Measures the classifier after some epochs, before the checkpoint of the epoch is written.

    Args:
        run: keeps the measurements.
        workspace: has the test images.
        settings: how many of them.
        steps_at: epoch to steps.
        found: what is measured, in the order of the epochs.
        publish: called after each.
    """

    def __init__(
        self,
        run: RunDirectory,
        workspace: Workspace,
        settings: RefinementSettings,
        steps_at: dict[int, int],
        found: list[dict[str, Any]],
        publish: Callable[[], None],
    ) -> None:
        super().__init__()
        self._run, self._workspace, self._settings = run, workspace, settings
        self._steps_at, self._found, self._publish = steps_at, found, publish

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.note(epoch + 1, self.model.classifier)

    def note(self, epoch: int, model: keras.Model) -> None:
        """Measures, where this is one of the epochs."""
        if epoch in self._steps_at:
            measure = functools.partial(_measured, self._workspace, model, self._settings)
            stage(self._run, _stage(epoch), measure)
            self.collect()

    def collect(self) -> None:
        """Publishes what is measured so far."""
        self._found[:] = [
            {"steps": steps, **self._run.stage_payload(_stage(epoch))}
            for epoch, steps in self._steps_at.items()
            if self._run.stage_done(_stage(epoch))
        ]
        self._publish()


def _stage(epoch: int) -> str:
    return f"after epoch {epoch}"


def _measured(
    workspace: Workspace, model: keras.Model, settings: RefinementSettings
) -> dict[str, Any]:
    authors = protocol(workspace.data.name, name="authors")
    (columns,) = authors.radii().values()
    eps, test = columns["pgd"], workspace.data.test
    part, few = test.take(settings.pgd_n, seed=0), test.take(settings.suite_n, seed=0)
    images, labels = part.scaled(), part.labels
    logits = Batched(checks.as_logits_fn(model), _BATCH)(images)
    second, first = np.sort(logits, axis=1)[:, -2:].T
    right = logits.argmax(-1) == labels
    pgd = PGD(eps, seed=workspace.seed, **authors.pgd())
    task = EvaluationTask(
        model, few.scaled(), few.labels, eps=eps, seed=workspace.seed, precision="float32"
    )
    return {
        "clean": clean_accuracy(model, test)["clean_accuracy"],
        "zero_gradient": gradient_health(model, images, labels).to_dict()["zero"],
        "median_gap": float(np.median((first - second)[right])) if right.any() else None,
        "largest_logit": float(np.abs(logits).max()),
        "pgd": pgd(model, images, labels).robust_accuracy,
        "fast": run_suite(task, "fast").robust_accuracy,
    }
