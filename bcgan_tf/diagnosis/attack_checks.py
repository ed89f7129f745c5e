"""Red flags that show when attacks are compared with each other. Each function is one check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import derived
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.square import Square
from bcgan_tf.diagnosis.flags import Flag, above, not_run, percent, points
from bcgan_tf.diagnosis.subject import Subject, black_box_results, gradient_results
from bcgan_tf.diagnosis.transfer import transferred
from bcgan_tf.evaluation.gradient_health import guard_gradient
from bcgan_tf.statistics import beyond_chance

# evaluation.md, section 3: differences of accuracy.
_SQUARE, _CONVERGENCE, _SCALE, _LOSS, _CONTROL = 0.002, 0.005, 0.005, 0.005, 0.05
_QUERIES = 1000
# Below this gap of logits float32 cross entropy has all its digits, and no scale is needed.
_HARMLESS_GAP = 10.0
_NO_GRADIENT = "the model has no gradient, which is a flag of its own"


def iterative(subject: Subject) -> Flag:
    """Many steps must be at least as strong as one."""
    one, many = subject.survivors(subject.fgsm()), subject.survivors(subject.pgd())
    value = float(many.mean() - one.mean())
    text = f"PGD-40 leaves {percent(many.mean())}, FGSM {percent(one.mean())}"
    return Flag("iterative vs one-step", "notice", True, above(value, 0.0), value, 0.0, text)


def black_box(subject: Subject) -> Flag:
    """Random search must not find what gradients did not."""
    evaluation = subject.evaluation
    without = black_box_results(evaluation)
    if evaluation is not None and without and gradient_results(evaluation):
        left = evaluation.clean_correct.copy()
        for result in gradient_results(evaluation):
            left &= ~evaluation.broken_by(result)
        after = left.copy()
        for result in without:
            after &= ~evaluation.broken_by(result)
        source = f"{', '.join(result.attack for result in without)} of the evaluation"
    else:
        left = subject.gradient_survivors
        attack = Square(subject.eps, queries=_QUERIES, **subject.shared)
        after = left & subject.attack(attack, mask=left).robust
        source = f"{attack.name} with {_QUERIES} queries"
    value = float(left.mean() - after.mean())
    text = (
        f"{source} breaks {points(value)} that gradient attacks left "
        f"({percent(left.mean())} to {percent(after.mean())})"
    )
    return Flag("white vs black box", "notice", True, above(value, _SQUARE), value, _SQUARE, text)


def transfer(subject: Subject, surrogate: Any) -> Flag:
    """Another model's adversarial examples must not find what white-box attacks did not."""
    if surrogate is None:
        return not_run("transfer", "notice", "pass surrogate=, a model trained on the same task")
    attackable, _ = guard_gradient(surrogate, subject.images, subject.labels)
    broken = transferred(
        attackable,
        subject.model,
        subject.images,
        subject.labels,
        eps=subject.eps,
        norm=subject.norm,
        batch_size=subject.batch_size,
    )
    value = float((broken & subject.gradient_survivors).mean())
    text = f"examples made on the surrogate break {points(value)} that white-box attacks left"
    return Flag("transfer", "notice", True, value > 0, value, 0.0, text)


def monotone(subject: Subject) -> Flag:
    """A larger ball holds the smaller one: accuracy cannot rise with eps."""
    if subject.no_gradient:
        return not_run("monotone in eps", "evidence", _NO_GRADIENT)
    grid = sorted(
        {min(factor * subject.eps, subject.whole) for factor in (0.25, 0.5, 1.0, 1.5, 2.0)}
        | set(_large_grid(subject))
    )
    left = [subject.survivors(subject.pgd(eps)) for eps in grid]
    rises = [
        (float(b.mean() - a.mean()), beyond_chance(b, a))
        for i, a in enumerate(left)
        for b in left[i + 1 :]
    ]
    value = max(rise for rise, _ in rises)
    raised = any(rise > 0 and significant for rise, significant in rises)
    curve = ", ".join(f"{eps:.3g}: {percent(x.mean())}" for eps, x in zip(grid, left, strict=True))
    return Flag("monotone in eps", "evidence", True, raised, value, 0.0, f"PGD-40 at eps {curve}")


def large_eps(subject: Subject) -> Flag:
    """At half the pixel range one constant image is within reach of all: no model can resist.

    The grey image has one label, so a deterministic model keeps at most the images of that class.
    An attack that tries the grey image reaches this bound on every model and shows nothing; the
    flag is about attacks that follow gradients.
    """
    largest = float(np.bincount(subject.labels).max() / subject.n)
    found: list[tuple[float, float]] = []
    for eps in _large_grid(subject):
        left = subject.survivors(subject.pgd(eps))
        if left.mean() > largest and not subject.no_gradient:
            left = left & subject.attack(subject.apgd(eps, loss="dlr"), mask=left).robust
        found.append((float(left.mean()), eps))
    value, eps = max(found)
    gray = subject.predict(np.full_like(subject.images[:1], 0.5)).argmax(-1)[0]
    bound = float((subject.right & (subject.labels == gray)).mean())
    text = (
        f"gradient attacks leave {percent(value)} at eps {eps:.3g}; with the grey image alone no "
        f"more than {percent(bound)} can be left, the largest class is {percent(largest)}"
    )
    return Flag("large eps", "evidence", True, above(value, largest), value, largest, text)


def convergence(subject: Subject) -> Flag:
    """Twice the steps from another random start must not find much more."""
    if subject.no_gradient:
        return not_run("convergence", "notice", _NO_GRADIENT)
    base = subject.survivors(subject.apgd())
    options: dict[str, Any] = subject.shared | {"seed": subject.seed + 1}
    longer = subject.attack(APGD(subject.eps, steps=200, **options), mask=base)
    value = float((base & longer.success).mean())
    text = (
        f"200 steps from another start break {points(value)} more than APGD-CE's 100 "
        f"({percent(base.mean())})"
    )
    raised = above(value, _CONVERGENCE)
    return Flag("convergence", "notice", True, raised, value, _CONVERGENCE, text)


def logit_scale(subject: Subject) -> Flag:
    """Dividing all logits by a number changes no prediction, so it must not help an attack."""
    if subject.no_gradient:
        return not_run("logit scale", "evidence", _NO_GRADIENT)
    plain = subject.survivors(subject.apgd())
    scale, name = temperature(subject), "logit scale"
    if scale == 1.0:
        text = (
            f"the median logit gap {subject.gap:.1f} is within float32's reach: scale 1, APGD-CE "
            f"leaves {percent(plain.mean())}"
        )
        return Flag(name, "evidence", True, False, 0.0, _SCALE, text)
    attack = subject.apgd()
    result = attack(scaled(subject.model, scale), subject.images, subject.labels)
    value = float(plain.mean() - result.robust_accuracy)
    text = (
        f"APGD-CE leaves {percent(plain.mean())} on the logits and "
        f"{percent(result.robust_accuracy)} on logits / {scale:.3g} (median gap "
        f"{subject.gap:.3g}); both: {percent((plain & result.robust).mean())}"
    )
    raised = above(value, _SCALE) and beyond_chance(plain, result.robust)
    return Flag(name, "evidence", True, raised, value, _SCALE, text)


def loss_choice(subject: Subject) -> Flag:
    """A loss that does not saturate must not find much more than the cross entropy."""
    if subject.no_gradient:
        return not_run("loss choice", "notice", _NO_GRADIENT)
    entropy = subject.survivors(subject.apgd())
    both = entropy & subject.survivors(subject.apgd(loss="dlr"))
    value = float(entropy.mean() - both.mean())
    text = (
        f"APGD on the logit difference (DLR) breaks {points(value)} that the cross entropy left "
        f"({percent(entropy.mean())})"
    )
    return Flag("loss choice", "notice", True, above(value, _LOSS), value, _LOSS, text)


def positive_control(subject: Subject, control: Any) -> Flag:
    """The same attacks must break a model that nobody defended.

    Where they leave something of it at eps, which may be too small to break anything, eps is
    doubled until they break it, or until it reaches every image: only then do the attacks fail.
    The flag's value is what they leave at eps itself, which a defended model has to surpass.
    """
    name = "positive control"
    if control is None:
        return not_run(name, "evidence", "pass control=, the undefended model")
    model, _ = guard_gradient(control, subject.images, subject.labels)
    eps = subject.eps
    left = [_left_by_apgd(subject, model, eps)]
    told = [f"{percent(left[0])} at eps {eps:.3g}"]
    while above(left[-1], _CONTROL) and eps < subject.half:
        eps = min(2 * eps, subject.half)
        left.append(_left_by_apgd(subject, model, eps))
        told.append(f"{percent(left[-1])} at eps {eps:.3g}")
    raised = above(left[-1], _CONTROL)
    meaning = "as it should"
    if raised:
        meaning = "the attacks are too weak"
    elif len(left) > 1:
        meaning = "the attacks work, and eps is small"
    text = f"the undefended model keeps {', '.join(told)} under APGD-CE and -DLR: {meaning}"
    return Flag(name, "evidence", True, raised, left[0], _CONTROL, text)


def _left_by_apgd(subject: Subject, model: Any, eps: float) -> float:
    entropy = subject.apgd(eps)(model, subject.images, subject.labels)
    margin = subject.apgd(eps, loss="dlr")
    both = margin(model, subject.images, subject.labels, mask=entropy.robust)
    return float((entropy.robust & both.robust).mean())


def temperature(subject: Subject) -> float:
    """What to divide the logits by: 1 where their median gap is harmless for float32."""
    return max(1.0, subject.gap / _HARMLESS_GAP)


def scaled(model: Any, scale: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model with its logits divided by ``scale``."""
    forward = checks.as_logits_fn(model)
    return derived(lambda images: forward(images) / scale, model)


def _large_grid(subject: Subject) -> tuple[float, ...]:
    return subject.half, 1.5 * subject.half, subject.whole
