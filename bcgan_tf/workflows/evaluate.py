"""``evaluate``: a suite of attacks, the diagnosis and the verdict, without a run's folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.data.arrays import as_split
from bcgan_tf.data.dataset import Dataset
from bcgan_tf.data.store import check_memory
from bcgan_tf.diagnosis.diagnostics import Diagnosis, diagnose
from bcgan_tf.diagnosis.flags import percent
from bcgan_tf.diagnosis.verdict import Verdict, verdict
from bcgan_tf.distribute.workers import workers as worker_processes
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.clean_accuracy import suspicion, trained_accuracy
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.loading.usual_conventions import check_with
from bcgan_tf.progress import Progress
from bcgan_tf.report.page import write_evaluation_report
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.fields import parsed, settings_of

# Settings of an evaluation that are of a run's folder or of the command line alone.
_OF_RUNS = ("eps_unit", "shard", "minimum_perturbation")


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedEvaluation(Evaluation):
    """An :class:`Evaluation` with its verdict; ``print`` shows it.

    Attributes:
        diagnosis: the red flags of gradient masking; None where they were not looked for.
        verdict: what evaluation and diagnosis together allow to say; None without a diagnosis.
        suspicion: why the clean accuracy suggests that the model is used in another way than it
            was trained; None where it does not.
    """

    diagnosis: Diagnosis | None = None
    verdict: Verdict | None = None
    suspicion: str | None = None

    def __str__(self) -> str:
        lines = [
            *([f"{self.suspicion}."] if self.suspicion and not self.verdict else ()),
            f"Verdict: {self.verdict.text}" if self.verdict else "No verdict: not diagnosed.",
            *(
                f"  {flag.check}: {flag.text}"
                for flag in (self.verdict.flags if self.verdict else ())
            ),
            f"clean accuracy   {self._share(self.clean_correct)}",
            f"robust accuracy  {self._share(self.worst_case)}",
            f"suite {self.suite}, {'Linf' if self.norm == 'linf' else 'L2'} eps {self.eps:.4g}, "
            f"n = {self.n:,}, {sum(self.seconds):.0f} s",
            *([self.fallback] if self.fallback else ()),
        ]
        return "\n".join(lines)

    def _share(self, held: np.ndarray) -> str:
        low, high = (100 * end for end in self.interval95(held))
        return f"{percent(held.mean())} (95 % interval {low:.1f} to {high:.1f} %)"

    def to_dict(self) -> dict[str, Any]:
        """As of an :class:`Evaluation`, with ``verdict`` and ``diagnosis`` where there are such."""
        found = super().to_dict() | {"classes": self.by_class()}
        if self.suspicion:
            found["suspicion"] = self.suspicion
        if self.diagnosis is not None and self.verdict is not None:
            found |= {"verdict": self.verdict.to_dict(), "diagnosis": self.diagnosis.to_dict()}
        return found

    def report(self, path: str | Path = "report.html", *, name: str = "model") -> Path:
        """Writes a page that stands alone.

        Args:
            path: the page to write; an older one is replaced.
            name: of the model, on the page.

        Returns:
            The page's path.

        Raises:
            OSError: the page cannot be written.
        """
        model = {
            "clean_accuracy": self.clean_accuracy,
            "clean_interval95": list(self.interval95(self.clean_correct)),
            "n": self.n,
            **({"suspicion": self.suspicion} if self.suspicion else {}),
            "evaluations": [self.to_dict()],
        }
        return write_evaluation_report(path, {"models": {name: model}})


def evaluate(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    convention: Convention | None = None,
    control: Any = None,
    surrogate: Any = None,
    state: str | Path | None = None,
    workers: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> JudgedEvaluation:
    """Attacks a classifier, looks for gradient masking, and judges it: as ``bcgan-tf attack`` does.

    Args:
        model: a Keras model of any convention that
            :func:`bcgan_tf.loading.classifier.load_classifier` takes, or a callable; float32
            images in [0, 1] to logits ``[B, K]``.
        x: images ``[N, ...]``, uint8 in 0 ... 255 or floats in [0, 1], with ``y``; or, without, a
            ``tf.data.Dataset`` or a ``PyDataset`` of (image, label), a pair, a ``Split``, or a
            ``Dataset``, of which the test split is taken.
        y: the true classes: integers ``[N]`` or ``[N, 1]``, or one-hot rows ``[N, K]``.
        convention: the pixels that a Keras model takes, where not those of [0, 1], and which of
            its outputs classifies; of the control and the surrogate too.
        control: an undefended model of the same task, which the attacks must break.
        surrogate: another model of the same task, whose adversarial examples are tried.
        state: a folder for what is finished, from which the same call resumes; the adversarial
            examples then stay in its files, so that memory does not grow with the images.
        workers: processes that attack in place of this one: ``"local:N"``, ``"ray"`` or
            ``"ray:ADDRESS"`` (:func:`bcgan_tf.distribute.workers`); they need a ``state`` folder
            that all of them reach, and a Keras model. The result does not depend on them.
        progress: called with (work done, work to do, what is at work).
        **settings: ``eps``, the radius in [0, 1] pixel units, which is needed; and where others
            than the defaults are wanted: ``norm`` (``"linf"`` or ``"l2"``), ``suite``
            (``"standard"``, ``"plus"``, ``"fast"``, ``"rand"`` or ``"paper"``),
            ``precision`` of the search (``"auto"``, of shards ``"float32"``), ``n``
            (images, drawn with seed 0; all), ``samples`` (calls of the model that are averaged; 20
            for one that draws random numbers, else 1), ``diagnose`` (True), ``skip_certified``
            (False), ``seed`` (0) and ``batch_size`` (250, most images at once).

    Returns:
        The evaluation: the accuracies, each attack's result, the rows of all images, the red flags
        of 200 of the images (drawn with ``seed``), and the verdict.

    Raises:
        UserError: a setting, the images, the labels or the model are unfit, a Keras model is
            clearly more accurate on pixels of another range, or the folder holds another
            evaluation.

    Example:
        >>> result = bcgan_tf.evaluate(model, x_test, y_test, eps=8 / 255, n=1000)
        >>> print(result)
        >>> result.report("report.html")
    """
    batch_size = settings.pop("batch_size", 250)
    config = _config(settings)
    if isinstance(x, Dataset) and y is None:
        x = x.test
    split = as_split(x, y, image_shape=_image_shape(model))
    if config.n:
        split = split.take(config.n, seed=0)
    if state is None:
        check_memory(len(split), split.images.shape[1:])
    taken = {"the model": model, "the control": control, "the surrogate": surrogate}
    for name, given in taken.items():
        if isinstance(given, keras.Model):
            found = adapted_classifier(
                given, image_shape=split.images.shape[1:], convention=convention
            )
            found.tell(name)
            taken[name] = found.classifier
    model, control, surrogate = taken.values()
    if isinstance(model, keras.Model):
        check_with("the model", model, split, convention)
    task = EvaluationTask(
        model,
        split.images,
        split.labels,
        eps=config.eps,
        norm=config.norm,
        seed=config.seed,
        batch_size=batch_size,
        eot_samples=config.samples,
        precision=config.precision,
    )
    found = run_suite(
        task,
        config.suite,
        skip_certified=config.skip_certified,
        state=state,
        workers=None if workers is None else worker_processes(workers),
        progress=progress,
    )
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    validation = trained_accuracy(model)
    fields["suspicion"] = suspicion(found.clean_correct, task.labels, validation)
    if not config.diagnose:
        return JudgedEvaluation(**fields)
    diagnosis = diagnose(task, found, control=control, surrogate=surrogate, progress=progress)
    judged = verdict(found, diagnosis, task.labels, validation)
    return JudgedEvaluation(**fields, diagnosis=diagnosis, verdict=judged)


def _config(settings: dict[str, Any]) -> EvaluationConfig:
    known = settings_of(EvaluationConfig)
    known = {name: setting for name, setting in known.items() if name not in _OF_RUNS}
    given = {name: value for name, value in settings.items() if value is not None}
    chosen = parsed("evaluate", known, given)
    if "eps" not in chosen:
        raise UserError("eps is missing; give the radius in [0, 1] pixel units, such as eps=0.3")
    values: dict[str, Any] = {"n": 0, **chosen}
    return EvaluationConfig(**values)


def _image_shape(model: Any) -> tuple[int | None, ...] | None:
    """What a Keras model takes; None where it does not say, or takes several inputs."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or any(isinstance(side, tuple) for side in shape):
        return None
    return shape[1:]
