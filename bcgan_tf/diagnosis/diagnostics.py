"""Every red flag of gradient masking, measured on one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import check_answers
from bcgan_tf.attacks.expectation import SAMPLES, differing_answers, expectation
from bcgan_tf.attacks.preprocessing import may_hide_gradients, through_preprocessing
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.diagnosis import attack_checks, limit_checks
from bcgan_tf.diagnosis.flags import Flag, above
from bcgan_tf.diagnosis.subject import Subject
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import (
    GradientHealth,
    gradient_health,
    guard_gradient,
)
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.progress import Progress

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
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    evaluation: Evaluation | None = None,
    control: Any = None,
    surrogate: Any = None,
    samples: int = 200,
    seed: int = 0,
    batch_size: int = 250,
    progress: Progress | None = None,
) -> Diagnosis:
    """Looks for gradient masking: robustness that lies in the attacks, not in the model.

    A Keras model that preprocesses its pixels is attacked through that, as in the suites: what is
    asked is whether those attacks miss something.

    Args:
        model: a Keras model (called with ``training=False``) or a callable, float32 images in
            [0, 1] to logits ``[B, K]``. A missing or non-finite gradient is a finding, no error.
        images: float32 ``[N, ...]`` in [0, 1].
        labels: int ``[N]``, the true classes.
        eps: radius of the threat model, in [0, 1] pixel units, above 0.
        norm: ``"linf"`` or ``"l2"``.
        evaluation: finished attacks on the same images; Square's part is then read from it.
        control: an undefended model of the same task, which the attacks must break.
        surrogate: another model of the same task, whose adversarial examples are tried.
        samples: the checks use the first ``samples`` images, which should be of all classes; an
            eighth of them (at least 10) for a model that answers differently at every call, which
            is averaged over 20 calls.
        seed: of all draws.
        batch_size: most images at once.
        progress: called with (checks done, checks to do, the next check) before every check.

    Returns:
        The flags. For a small convolutional network it takes half a minute on two cores.

    Raises:
        UserError: if the model's output, the images, labels or eps are unfit.

    Reference: Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Athalye, Carlini,
    Wagner 2018, "Obfuscated Gradients Give a False Sense of Security"; Croce and Hein 2020, the
    checks of AutoAttack's published code.
    """
    images = as_images(images)
    labels = as_labels(labels, len(images))
    checks.check_model_input(model, images)
    checks.check_number("eps", eps, above=0)
    checks.check_positive_int("samples", samples)
    if evaluation is not None and evaluation.n != len(images):
        raise UserError(
            f"the evaluation is of {evaluation.n} images, but {len(images)} came with it; pass "
            "the images that were evaluated"
        )
    check_answers(model, images)
    images, labels = images[:samples], labels[:samples]

    differing = differing_answers(model, images, batch_size)
    calls = SAMPLES if differing > 0 else 1
    health = gradient_health(model, images, labels, float64=True, batch_size=batch_size)
    if differing > 0:
        count = max(_STOCHASTIC_LEAST, len(images) // _STOCHASTIC_SHARE)
        images, labels = images[:count], labels[:count]
    through = may_hide_gradients(model)
    attacked: Any = through_preprocessing(model) if through else model
    averaged = expectation(attacked, calls) if calls > 1 else attacked
    attackable, _ = guard_gradient(averaged, images, labels, batch_size=batch_size)
    subject = Subject(
        attackable,
        images,
        labels,
        float(eps),
        norm,
        seed,
        batch_size,
        calls,
        evaluation,
        no_gradient=health.missing and not health.backward,
        through_preprocessing=through,
    )
    evaluated_with = evaluation.samples if evaluation is not None else None
    others = _Others(surrogate, control, differing, evaluated_with)
    flags = _flags(subject, health, others, progress)
    diagnosis = Diagnosis(tuple(flags), health, subject.n, calls, differing > 0)
    if evaluation is not None and diagnosis.deciding and _only_large_logits(subject, health):
        scale = attack_checks.temperature(subject)
        smaller = dataclasses.replace(
            subject, model=attack_checks.scaled(subject.model, scale), evaluation=None
        )
        broken = evaluation.worst_case[: subject.n] & ~smaller.gradient_survivors
        if not above(float(broken.mean()), _CONFIRMED):
            own = gradient_health(
                attack_checks.scaled(model, scale), images, labels, batch_size=batch_size
            )
            if not any(flag.decides for flag in _flags(smaller, own, others, progress)):
                diagnosis = dataclasses.replace(diagnosis, confirmed_on=scale)
    return diagnosis


@dataclasses.dataclass(frozen=True)
class _Others:
    """What the checks know beside the subject."""

    surrogate: Any
    control: Any
    differing: float
    evaluated_with: int | None


def _only_large_logits(subject: Subject, health: GradientHealth) -> bool:
    """Whether smaller logits may tell more: those are large, and the margin has gradients.

    Of a model that is no better than a constant answer nothing is to be confirmed.
    """
    assert subject.evaluation is not None
    constant = np.bincount(subject.labels).max() / subject.n
    alive = not health.missing and health.dead <= limit_checks.DEAD
    better = subject.evaluation.robust_accuracy > constant
    return alive and better and attack_checks.temperature(subject) > 1


def _flags(
    subject: Subject, health: GradientHealth, others: _Others, progress: Progress | None
) -> list[Flag]:
    through = subject.through_preprocessing
    differing, evaluated_with = others.differing, others.evaluated_with
    table: list[tuple[str, Callable[[], Flag]]] = [
        ("iterative vs one-step", lambda: attack_checks.iterative(subject)),
        ("white vs black box", lambda: attack_checks.black_box(subject)),
        ("transfer", lambda: attack_checks.transfer(subject, others.surrogate)),
        ("monotone in eps", lambda: attack_checks.monotone(subject)),
        ("large eps", lambda: attack_checks.large_eps(subject)),
        ("convergence", lambda: attack_checks.convergence(subject)),
        ("gradient health", lambda: limit_checks.gradient_flag(health, through=through)),
        ("logit scale", lambda: attack_checks.logit_scale(subject)),
        ("loss choice", lambda: attack_checks.loss_choice(subject)),
        ("stochastic forward", lambda: limit_checks.stochastic(differing, evaluated_with)),
        ("unbounded attack", lambda: limit_checks.unbounded(subject)),
        ("random noise", lambda: limit_checks.random_noise(subject)),
        ("positive control", lambda: attack_checks.positive_control(subject, others.control)),
    ]
    flags = []
    for done, (check, measure) in enumerate(table):
        if progress is not None:
            progress(done, len(table), check)
        flags.append(measure())
    if progress is not None:
        progress(len(table), len(table), "")
    return flags
