"""One sentence on a model's robustness: the worst case, and whether it can be believed."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from bcgan_tf.attacks.suites import suite
from bcgan_tf.data.arrays import as_labels
from bcgan_tf.diagnosis.diagnostics import Diagnosis
from bcgan_tf.diagnosis.flags import Flag, percent, points
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.clean_accuracy import suspicion
from bcgan_tf.evaluation.robust_accuracy import Evaluation

Kind = Literal["robust", "weakly robust", "not robust", "gradient masking", "black box only"]

# From this share of images without any gradient on, gradient attacks as a whole mean nothing.
_NO_GRADIENTS = 0.9
# What must be left of the clean accuracy to be called robust without a qualification, and for
# gradients not to have been a mere disguise.
_SUBSTANTIAL = 0.5
# Checks that find adversarial examples without the model's gradients.
_WITHOUT_GRADIENTS = ("transfer", "random noise", "white vs black box")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What an evaluation and a diagnosis together allow to say.

    Attributes:
        robust: whether ``kind`` is ``"robust"``.
        kind: ``"robust"``; ``"weakly robust"``, the number is believed, but less than half of
            the clean accuracy is left; ``"not robust"``, as far as the interval tells no better
            than one constant answer or the undefended model; ``"gradient masking"``, attacks fail
            for reasons that are not robustness; ``"black box only"``, there are no gradients,
            and what is left was only attacked without them.
        accuracy: the worst case over all attacks, in [0, 1]; for ``"black box only"`` and
            ``"gradient masking"`` an upper bound of the robust accuracy.
        interval: its 95 % interval (Wilson).
        flags: those that decided, else those that are up.
        text: one line for people.
    """

    robust: bool
    kind: Kind
    accuracy: float
    interval: tuple[float, float]
    flags: tuple[Flag, ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "robust": self.robust,
            "kind": self.kind,
            "accuracy": self.accuracy,
            "interval95": list(self.interval),
            "flags": [flag.check for flag in self.flags],
            "text": self.text,
        }


def verdict(
    evaluation: Evaluation,
    diagnosis: Diagnosis,
    labels: np.ndarray,
    validation: float | None = None,
) -> Verdict:
    """Judges a model.

    The accuracy is always the worst case. It is called robust only where no *evidence* of
    gradient masking was found, no *notice* is larger than 5 points, and a model that draws
    at every call was attacked through the mean of many calls. Flags that come of large logits alone
    do not decide, where smaller ones confirm the number (``Diagnosis.confirmed_on``).

    Args:
        evaluation: finished attacks.
        diagnosis: of the same model, on the same images or some of them.
        labels: int ``[N]``, the true classes of the evaluated images.
        validation: accuracy on validation images when the model was trained; None: not known. A
            suspicious clean accuracy (:func:`bcgan_tf.evaluation.clean_accuracy.suspicion`) is
            said first.

    Raises:
        UserError: if the labels are not those of the evaluation.
    """
    if len(labels) != evaluation.n:
        raise UserError(f"{evaluation.n} images were evaluated, but {len(labels)} labels given")
    labels = as_labels(labels, evaluation.n)
    accuracy, interval = evaluation.robust_accuracy, evaluation.interval95()
    number = f"{percent(accuracy)} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    names = ", ".join(dict.fromkeys(result.attack for result in evaluation.results))
    basis = f"worst case over {names}, n = {evaluation.n:,}{_threat(evaluation)}"
    scale = diagnosis.confirmed_on
    deciding = diagnosis.deciding if scale is None else ()
    raised = ", ".join(flag.check for flag in deciding)

    constant = float(np.bincount(labels).max() / len(labels))
    health = diagnosis.health
    no_gradients = health.dead >= _NO_GRADIENTS
    left = min(accuracy, evaluation.clean_accuracy - _found_otherwise(diagnosis))
    kind: Kind
    if accuracy <= constant:
        kind = "not robust"
        text = (
            f"not robust: {number}, no more than a constant answer gets ({percent(constant)}), "
            f"{basis}"
        )
        if raised:
            text += f"; gradient masking: {raised}"
    elif no_gradients and left >= _SUBSTANTIAL * evaluation.clean_accuracy:
        kind = "black box only"
        share = "has no gradient" if health.missing else f"has none for {percent(health.dead)}"
        stand_in = "BPDA through its own stand-in and " if health.backward else ""
        text = (
            f"black box only: the model {share}, so only black-box and BPDA attacks count here; "
            f"after {stand_in}{basis}, at most {number} is robust; flags: {raised}"
        )
    elif diagnosis.stochastic and evaluation.eot_samples == 1:
        kind = "gradient masking"
        text = (
            f"gradient masking: {raised or 'stochastic forward'}; the model draws at every call "
            f"and was attacked without expectation over transformation (samples=20), so {number} "
            f"is an upper bound, {basis}"
        )
    elif deciding:
        kind = "gradient masking"
        text = f"gradient masking: {raised}; at most {number}, {basis}"
        if no_gradients and left < accuracy:
            text += f"; examples found otherwise leave about {percent(max(left, 0.0))}"
    elif interval[0] <= (floor := max(constant, _control_left(diagnosis) or 0.0)):
        kind = "not robust"
        whose = "the undefended model keeps" if floor > constant else "a constant answer gets"
        text = (
            f"not robust: {number}, as far as can be told no more than {whose} "
            f"({percent(floor)}), {basis}"
        )
    else:
        substantial = accuracy >= _SUBSTANTIAL * evaluation.clean_accuracy
        kind = "robust" if substantial else "weakly robust"
        notices = ", ".join(flag.check for flag in diagnosis.raised)
        found = f"no evidence; noticed: {notices}" if notices else "no flag"
        if scale is not None:
            found = (
                f"{notices} come of logits too large for float32: on logits / {scale:.3g} nothing "
                "decides and no more breaks"
            )
        text = f"{kind} ({found}): {number}, {basis}"
    flags = deciding or diagnosis.raised
    text += _gap_to_paper(evaluation, accuracy)
    if doubt := suspicion(evaluation.clean_correct, labels, validation):
        text = f"{doubt}. {text}"
    return Verdict(kind == "robust", kind, accuracy, interval, flags, text)


def _control_left(diagnosis: Diagnosis) -> float | None:
    """The accuracy that attacks within eps leave the undefended model, where one was given."""
    return next((f.value for f in diagnosis.flags if f.check == "positive control" and f.ran), None)


def _found_otherwise(diagnosis: Diagnosis) -> float:
    """Share of the images that transfer or random draws broke where gradients broke nothing.

    Square stalls on rounded logits, whose margin moves in jumps; the examples of the model behind
    the rounding do not.
    """
    found = [
        flag.value
        for flag in diagnosis.flags
        if flag.check in _WITHOUT_GRADIENTS and flag.raised and flag.value is not None
    ]
    return max(found, default=0.0)


def _threat(evaluation: Evaluation) -> str:
    if evaluation.eps is None:
        return ""
    return f", {'Linf' if evaluation.norm == 'linf' else 'L2'} eps {evaluation.eps:.4g}"


def _gap_to_paper(evaluation: Evaluation, accuracy: float) -> str:
    """How much the three attacks of the paper alone would have overstated, where they were run."""
    best: dict[str, float] = {}
    paper = suite("paper", evaluation.eps or 0.0, norm=evaluation.norm, num_classes=2)
    for name in (attack.name for attack in paper):
        left = [
            evaluation.clean_correct & ~evaluation.broken_by(result)
            for result in evaluation.results
            if result.attack == name and (result.attacked == result.clean_correct).all()
        ]
        if left:
            best[name] = float(np.logical_and.reduce(left).mean())
    if not best:
        return ""
    told = ", ".join(f"{name} {percent(value)}" for name, value in best.items())
    gap = min(best.values()) - accuracy
    return f"; the paper's attacks alone: {told}, {points(gap)} above the worst case"
