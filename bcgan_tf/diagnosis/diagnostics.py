"""Every red flag of gradient masking, measured on one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.expectation import SAMPLES
from bcgan_tf.diagnosis import attack_checks, limit_checks
from bcgan_tf.diagnosis.flags import Flag, above
from bcgan_tf.diagnosis.shared_attacks import SharedAttacks
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import DEAD, GradientHealth, gradient_health
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.progress import Progress

# Images that the checks use.
_IMAGES = 200
# Twenty calls for one answer: fewer images.
_STOCHASTIC_SHARE, _STOCHASTIC_LEAST = 8, 10
# What may break on smaller logits of what the evaluation left: as much as a notice allows.
_CONFIRMED = 0.005


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """The red flags of one model.

    Attributes:
        flags: one per check, in the order of the table, those not run included.
        health: of the model's own input gradients.
        n: images that were used.
        calls: model calls averaged for one answer; above 1 for a stochastic model.
        stochastic: whether the model answers differently to the same images.
        confirmed_on: what the logits were divided by, where the flags come of logits that are too
            large for float32 alone: the model with smaller ones, which has the same classes, raises
            none that decides, and loses no image that the evaluation left. Else None.
    """

    flags: tuple[Flag, ...]
    health: GradientHealth
    n: int
    calls: int
    stochastic: bool
    confirmed_on: float | None = None

    @property
    def raised(self) -> tuple[Flag, ...]:
        """The flags that are up."""
        return tuple(flag for flag in self.flags if flag.raised)

    @property
    def deciding(self) -> tuple[Flag, ...]:
        """The flags that deny a verdict of robustness: evidence, and notices beyond 5 points."""
        return tuple(flag for flag in self.flags if flag.decides)

    def __getitem__(self, check: str) -> Flag:
        """The flag of one check, by its name."""
        for flag in self.flags:
            if flag.check == check:
                return flag
        raise KeyError(check)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "n": self.n,
            "calls": self.calls,
            "stochastic": self.stochastic,
            "confirmed_on": self.confirmed_on,
            "gradients": self.health.to_dict(),
            "flags": [flag.to_dict() for flag in self.flags],
        }


def diagnose(
    task: EvaluationTask,
    evaluation: Evaluation | None = None,
    *,
    rows: np.ndarray | None = None,
    control: Any = None,
    surrogate: Any = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Looks for gradient masking: robustness that lies in the attacks, not in the model.

    A Keras model that preprocesses its pixels is attacked through that, as in the suites: what is
    asked is whether those attacks miss something. A missing or non-finite gradient is a finding,
    no error.

    Args:
        task: the model, the images and the threat model, with ``eps`` above 0.
        evaluation: finished attacks on the same images; the part of those without gradients is
            then read from it.
        rows: int ``[n]``, positions of the images that the checks use, which should be of all
            classes; None: 200 drawn with the task's seed, or all where there are fewer. Of a model
            that answers differently at every call, which is averaged over 20 calls, the first
            eighth of them is used (at least 10).
        control: an undefended model of the same task, which the attacks must break.
        surrogate: another model of the same task, whose adversarial examples are tried.
        progress: called with (checks done, checks to do, the next check) before every check.

    Returns:
        The flags. For a small convolutional network it takes half a minute on two cores.

    Raises:
        UserError: ``eps`` is 0 or None, the evaluation is of other images, or the control or the
            surrogate cannot be attacked.

    Reference: Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Athalye, Carlini,
    Wagner 2018, "Obfuscated Gradients Give a False Sense of Security"; Croce and Hein 2020, the
    checks of AutoAttack's published code.
    """
    checks.check_number("eps", task.eps, above=0)
    if evaluation is not None and evaluation.n != task.n:
        raise UserError(
            f"the evaluation is of {evaluation.n} images, but {task.n} came with it; pass "
            "the images that were evaluated"
        )
    rows = task.draw(_IMAGES) if rows is None else rows
    part = task.take(rows)
    differing = part.differing
    health = gradient_health(
        task.model, part.images, part.labels, float64=True, batch_size=task.batch_size
    )
    if differing > 0:
        rows = rows[: max(_STOCHASTIC_LEAST, part.n // _STOCHASTIC_SHARE)]
        part = task.take(rows)
    part = part.averaged(SAMPLES if differing > 0 else 1)
    through = part.through_preprocessing
    shared = SharedAttacks(
        part if through is None else part.with_logits(through),
        evaluation,
        rows,
        no_gradient=health.missing and not health.backward,
        through=through is not None,
    )
    others = _Others(
        surrogate, control, differing, evaluation.eot_samples if evaluation is not None else None
    )
    flags = _flags(shared, health, others, progress)
    diagnosis = Diagnosis(tuple(flags), health, part.n, part.calls, differing > 0)
    if evaluation is not None and diagnosis.deciding and _only_large_logits(shared, health):
        scale = attack_checks.temperature(shared.task)
        smaller = shared.of_logits(attack_checks.scaled(shared.task.attacked, scale))
        broken = evaluation.worst_case[rows] & ~smaller.gradient_survivors
        if not above(float(broken.mean()), _CONFIRMED):
            own = gradient_health(
                attack_checks.scaled(task.model, scale),
                part.images,
                part.labels,
                batch_size=task.batch_size,
            )
            if not any(flag.decides for flag in _flags(smaller, own, others, progress)):
                diagnosis = dataclasses.replace(diagnosis, confirmed_on=scale)
    return diagnosis


@dataclasses.dataclass(frozen=True)
class _Others:
    """What the checks know beside the attacks."""

    surrogate: Any
    control: Any
    differing: float
    evaluated_with: int | None


def _only_large_logits(shared: SharedAttacks, health: GradientHealth) -> bool:
    """Whether smaller logits may tell more: those are large, and the margin has gradients.

    Of a model that is no better than a constant answer nothing is to be confirmed.
    """
    assert shared.evaluation is not None
    constant = np.bincount(shared.task.labels).max() / shared.task.n
    alive = not health.missing and health.dead <= DEAD
    better = shared.evaluation.robust_accuracy > constant
    return alive and better and attack_checks.temperature(shared.task) > 1


def _flags(
    shared: SharedAttacks, health: GradientHealth, others: _Others, progress: Progress | None
) -> list[Flag]:
    through = shared.through
    differing, evaluated_with = others.differing, others.evaluated_with
    table: list[tuple[str, Callable[[], Flag]]] = [
        ("iterative vs one-step", lambda: attack_checks.iterative(shared)),
        ("white vs black box", lambda: attack_checks.black_box(shared)),
        ("transfer", lambda: attack_checks.transfer(shared, others.surrogate)),
        ("monotone in eps", lambda: attack_checks.monotone(shared)),
        ("large eps", lambda: attack_checks.large_eps(shared)),
        ("convergence", lambda: attack_checks.convergence(shared)),
        ("gradient health", lambda: limit_checks.gradient_flag(health, through=through)),
        ("logit scale", lambda: attack_checks.logit_scale(shared)),
        ("loss choice", lambda: attack_checks.loss_choice(shared)),
        ("stochastic forward", lambda: limit_checks.stochastic(differing, evaluated_with)),
        ("unbounded attack", lambda: limit_checks.unbounded(shared)),
        ("random noise", lambda: limit_checks.random_noise(shared)),
        ("positive control", lambda: attack_checks.positive_control(shared, others.control)),
    ]
    flags = []
    for done, (check, measure) in enumerate(table):
        if progress is not None:
            progress(done, len(table), check)
        flags.append(measure())
    if progress is not None:
        progress(len(table), len(table), "")
    return flags
