"""Attacks, diagnosis, verdict and minimum perturbation of classifiers, in the stages of a run.

A run's folder gets, for each model, ``evaluation-NAME.npz`` (the per-example arrays,
:mod:`bcgan_tf.evaluation.archive`), ``state-NAME/`` (what a killed evaluation resumes from), and
its entry in ``metrics.json``, to which each stage adds its part.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.certification.certified import certificate
from bcgan_tf.data import Dataset
from bcgan_tf.data.arrays import as_images
from bcgan_tf.data.store import check_memory
from bcgan_tf.diagnosis.causes import measure_causes
from bcgan_tf.diagnosis.diagnostics import diagnose
from bcgan_tf.diagnosis.loss_curves import loss_curves
from bcgan_tf.diagnosis.verdict import verdict
from bcgan_tf.distribute.workers import Workers
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive
from bcgan_tf.evaluation.clean_accuracy import suspicion
from bcgan_tf.evaluation.radii import measure_radii
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.state import differing, fingerprint
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.minimum_perturbation import MinimumPerturbation, minimum_perturbation
from bcgan_tf.progress import ShowProgress
from bcgan_tf.report import evaluation_figures
from bcgan_tf.report.distances import distance_bins
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig, ThreatModel

_EXAMPLES = 8
# Images of the diagnosis, and of the loss curves and causes.
_DIAGNOSED, _FEW = 200, 100
_IDENTIFIED = {
    "model": "weights or layers of the model",
    "answers": "answers of the model",
    "data": "test images or labels",
}


def evaluate_models(
    run: RunDirectory,
    data: Dataset,
    models: Mapping[str, Any],
    settings: EvaluationConfig,
    *,
    surrogate: Any = None,
    control: Any = None,
    attacked: Mapping[str, Evaluation] | None = None,
    validation: Mapping[str, float | None] | None = None,
    batch_size: int = 250,
    workers: Workers | None = None,
    progress: ShowProgress | None = None,
) -> dict[str, Any]:
    """Evaluates several models on the same test images, and writes ``metrics.json``.

    What is finished is not done again, so that a killed run goes on where it was.

    Args:
        run: open for writing.
        data: its test set is used.
        models: by name; Keras models or callables (:func:`bcgan_tf.loading.model.load_model`).
        settings: what to measure.
        surrogate: a model of the same task whose adversarial examples are tried on each.
        control: an undefended model of the same task, which the attacks must break.
        attacked: evaluations that were made elsewhere, by :attr:`ThreatModel.label`: those models
            are not attacked again.
        validation: accuracies on validation images in the training of each model, where known.
        batch_size: most images at once; it bounds memory, and changes no result.
        workers: processes that run the attacks of the suite in place of this one.
        progress: see :data:`bcgan_tf.progress.ShowProgress`.

    Returns:
        The content of metrics.json (:mod:`bcgan_tf.report.page`); a model's ``evaluations`` has
        one entry for each threat model.

    Raises:
        UserError: a model, the images, the labels or a setting are unfit, or the run's files are
            damaged or cannot be written.
    """
    images, labels = _test_images(data, settings)
    if settings.diagnose and settings.whole:
        for name, other in (("surrogate", surrogate), ("control", control)):
            if other is not None:
                keep_identity(run, name, other, images, labels)
    for name, model in models.items():
        for threat in settings.threat_models(name):
            made = (attacked or {}).get(threat.label)
            known = (validation or {}).get(name)
            _ModelEvaluation(
                run, data.name, threat, model, settings, batch_size, workers, progress, made, known
            ).run_stages(images, labels, data.class_names, surrogate=surrogate, control=control)
    return run.add_metrics(unfinished=None)


def check_attackable(data: Dataset, model: Any, settings: EvaluationConfig) -> None:
    """Refuses, before hours of training, a model that :func:`evaluate_models` could not attack.

    Raises:
        UserError: the model, the images or the labels are unfit.
    """
    (threat, *_) = settings.threat_models("")
    EvaluationTask(model, *_test_images(data, settings), eps=threat.eps, norm=settings.norm)


def _test_images(data: Dataset, settings: EvaluationConfig) -> tuple[Any, np.ndarray]:
    part = data.test.take(settings.n, seed=0) if settings.n and len(data.test) else data.test
    if settings.minimum_perturbation:  # which has all images in memory
        check_memory(len(part), data.image_shape)
    return as_images(part.images, lazy=True), part.labels


def evaluation_file(run: RunDirectory, label: str) -> Path:
    """The file of per-example arrays of one model under one threat model."""
    return run.path / f"evaluation-{label}.npz"


def save_evaluation(
    run: RunDirectory,
    threat: ThreatModel,
    settings: EvaluationConfig,
    evaluation: Evaluation,
    minimum: MinimumPerturbation | None = None,
    *,
    class_names: Sequence[str] = (),
    validation: float | None = None,
) -> None:
    """Saves a finished evaluation, begins its entry in metrics.json, and marks its stage."""
    rows = minimum.rows() if minimum else {}
    file = archive.save(evaluation, evaluation_file(run, threat.label), rows)
    found = evaluation.to_dict() | {"classes": evaluation.by_class(class_names)}
    if doubt := suspicion(evaluation.clean_correct, evaluation.labels, validation):
        found["suspicion"] = doubt
    if threat.text:
        found["reading"] = threat.text
    if not settings.whole:
        found["shard"] = str(settings.shard)
    if minimum:
        readings = {"fgsm": minimum.fgsm, "multi": minimum.multi, "best": minimum.best}
        found["minimum_perturbation"] = minimum.to_dict()
        found["curve"] = minimum.curve()
        found["distances"] = distance_bins(readings)
    _add_to_entry(run, threat, settings, found)
    run.finish_stage(f"evaluate-{threat.label}", files=[file])


def _entry(run: RunDirectory, threat: ThreatModel, settings: EvaluationConfig) -> dict[str, Any]:
    """What metrics.json has of one model under one threat model by now."""
    place = settings.threat_models(threat.name).index(threat)
    model = run.metrics().get("models", {}).get(threat.name, {})
    return dict(enumerate(model.get("evaluations", ()))).get(place, {})


def _add_to_entry(
    run: RunDirectory,
    threat: ThreatModel,
    settings: EvaluationConfig,
    found: dict[str, Any],
) -> None:
    place = settings.threat_models(threat.name).index(threat)
    models = run.metrics().get("models", {})
    known = models.get(threat.name, {})
    entries = list(known.get("evaluations", ()))
    entries[place : place + 1] = [_entry(run, threat, settings) | found]
    first = ("clean_accuracy", "clean_interval95", "n", "suspicion")
    # What was measured on more images before the attacks stays.
    clean = known or {name: entries[0][name] for name in first if name in entries[0]}
    run.add_metrics(models={**models, threat.name: {**clean, "evaluations": entries}})


def keep_identity(
    run: RunDirectory, name: str, model: Any, images: np.ndarray, labels: np.ndarray
) -> None:
    """Notes what a model is that stages are about to depend on, or compares it with that note.

    Raises:
        UserError: the run was begun with another model of that name.
    """
    stage, now = f"identity-{name}", fingerprint(model, images, labels)
    if run.stage_done(stage):
        _refuse_another(run, name, run.stage_payload(stage), now)
    else:
        run.finish_stage(stage, now)


def _refuse_another(
    run: RunDirectory, name: str, kept: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    if others := differing({**now, **kept}, now):
        told = " and the ".join(_IDENTIFIED[what] for what in others)
        raise UserError(
            f"{run.path}, {name}: the {told} are others than those of its finished evaluation; "
            "give those again, or begin another run"
        )


@dataclasses.dataclass(frozen=True)
class _ModelEvaluation:
    """One model under one threat model."""

    run: RunDirectory
    dataset: str
    threat_model: ThreatModel
    model: Any
    settings: EvaluationConfig
    batch_size: int
    workers: Workers | None
    progress: ShowProgress | None
    attacked: Evaluation | None
    validation: float | None

    def run_stages(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        surrogate: Any,
        control: Any,
    ) -> None:
        task = EvaluationTask(
            self.model,
            images,
            labels,
            eps=self.threat_model.eps,
            norm=self.settings.norm,
            seed=self.settings.seed,
            batch_size=self.batch_size,
            eot_samples=self.settings.samples,
            precision=self.settings.precision,
        )
        # Nothing is written about a model that cannot be attacked.
        self.run.add_metrics(dataset=self.dataset, unfinished=True)
        evaluation = self._evaluation(task, class_names)
        if not self.settings.whole:
            return
        # As it was attacked: the mean of several calls of a model that draws.
        task = task.averaged(evaluation.eot_samples)
        self._draw_examples(evaluation, task, class_names)
        if self.settings.norm == "linf" and isinstance(self.model, keras.Model):
            self._stage("certify", "certified", lambda: self._certificate(images, labels))
        if self.settings.diagnose:
            self._diagnose(evaluation, task, surrogate, control)

    def _evaluation(self, task: EvaluationTask, class_names: Sequence[str]) -> Evaluation:
        """Read back from its file even when it was made now: a resumed run sees the same."""
        label = self.threat_model.label
        done = self.run.stage_done(f"evaluate-{label}") and self._entry()
        known = archive.load(evaluation_file(self.run, label)) if done else self.attacked
        if known:
            now = fingerprint(self.model, task.images, task.labels)
            _refuse_another(self.run, label, known.identity, now)
        if not done:
            evaluation = self.attacked or self._attack(task)
            minimum = None
            if self.settings.minimum_perturbation and self.settings.whole:
                minimum = self._minimum(evaluation, task.averaged(evaluation.eot_samples))
            save_evaluation(
                self.run,
                self.threat_model,
                self.settings,
                evaluation,
                minimum,
                class_names=class_names,
                validation=self.validation,
            )
        return archive.load(evaluation_file(self.run, label))

    def _attack(self, task: EvaluationTask) -> Evaluation:
        with self._reporting("") as report:
            return run_suite(
                task,
                self.settings.suite,
                shard=self.settings.shard or (1, 1),
                skip_certified=self.settings.skip_certified,
                state=self.run.path / f"state-{self.threat_model.label}",
                workers=self.workers,
                progress=report,
            )

    def _certificate(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        found = certificate(
            self.model, images, labels, self.threat_model.eps, batch_size=self.batch_size
        )
        return {"certified": found}

    def _diagnose(
        self,
        evaluation: Evaluation,
        task: EvaluationTask,
        surrogate: Any,
        control: Any,
    ) -> None:
        # The images are in a random order already, unless all of them were asked for.
        first = np.arange(min(_DIAGNOSED, task.n))
        few = task.take(first[:_FEW])

        def judge() -> dict[str, Any]:
            with self._reporting("diagnosis") as report:
                diagnosis = diagnose(
                    task,
                    evaluation,
                    rows=first,
                    control=control,
                    surrogate=surrogate,
                    progress=report,
                )
            judged = verdict(evaluation, diagnosis, task.labels, self.validation)
            return {"verdict": judged.to_dict(), "diagnosis": diagnosis.to_dict()}

        def find_causes() -> dict[str, Any]:
            with self._reporting("causes") as report:
                causes = measure_causes(few, surrogate, progress=report)
            return {"causes": causes.to_dict()}

        def find_radii() -> dict[str, Any]:
            with self._reporting("accuracy over radii") as report:
                return {"radii": measure_radii(task, evaluation, progress=report)}

        judged = self._stage("diagnose", "verdict", judge)
        self._stage("losses", "loss_curves", lambda: {"loss_curves": loss_curves(few)})
        if judged["verdict"]["kind"] == "gradient masking":
            self._stage("causes", "causes", find_causes)
        # One curve a model, and none of a model whose every answer is a mean of many calls.
        if self.threat_model.label == self.threat_model.name and task.calls == 1:
            self._stage("radii", "radii", find_radii)

    def _minimum(self, evaluation: Evaluation, task: EvaluationTask) -> MinimumPerturbation:
        images = np.asarray(task.images)
        broken = evaluation.clean_correct & ~evaluation.worst_case
        changed = np.where(
            broken.reshape(-1, *[1] * (images.ndim - 1)), evaluation.adversarials, images
        )
        with self._reporting("minimum perturbation") as report:
            return minimum_perturbation(task, known=[changed], progress=report)

    def _draw_examples(
        self, evaluation: Evaluation, task: EvaluationTask, class_names: Sequence[str]
    ) -> None:
        """Some images that attacks broke; where they are few, also some that are wrong anyway."""
        broken = evaluation.clean_correct & ~evaluation.worst_case
        wrong = np.flatnonzero(~evaluation.clean_correct)
        rows = np.concatenate([np.flatnonzero(broken), wrong])[:_EXAMPLES]
        file = self.run.figures / evaluation_figures.figure_name(
            "examples", self.threat_model.name, evaluation.to_dict()
        )
        if file.exists() or not rows.size:
            return
        images = task.images[rows]
        changed = broken[rows].reshape(-1, *[1] * (images.ndim - 1))
        adversarials = np.where(changed, evaluation.adversarials[rows], images)
        breakers = [
            next((r.attack for r in evaluation.results if evaluation.broken_by(r)[row]), "")
            for row in rows
        ]

        def names(classes: np.ndarray) -> list[str]:
            return [class_names[i] if i < len(class_names) else str(i) for i in map(int, classes)]

        evaluation_figures.example_images(
            images,
            adversarials,
            file,
            labels=names(evaluation.labels[rows]),
            predictions=names(task.predict(adversarials).argmax(-1)),
            clean_predictions=names(task.predict(images).argmax(-1)),
            attacks=breakers,
            title=self.threat_model.text,
        )

    def _stage(self, stage: str, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The entry in metrics.json, with what the stage adds to it; ``key`` is among that."""
        name = f"{stage}-{self.threat_model.label}"
        if not (self.run.stage_done(name) and key in self._entry()):
            _add_to_entry(self.run, self.threat_model, self.settings, compute())
            self.run.finish_stage(name)
        return self._entry()

    def _entry(self) -> dict[str, Any]:
        return _entry(self.run, self.threat_model, self.settings)

    def _reporting(self, what: str) -> contextlib.AbstractContextManager[Any]:
        if self.progress is None:
            return contextlib.nullcontext()
        return self.progress(
            f"{self.threat_model.label}, {what}" if what else self.threat_model.label
        )
