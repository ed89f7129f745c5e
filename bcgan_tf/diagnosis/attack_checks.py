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
from bcgan_tf.diagnosis.shared_attacks import SharedAttacks, results_of
from bcgan_tf.diagnosis.transfer import transferred
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.statistics import beyond_chance

# evaluation.md, section 3: differences of accuracy.
_BLIND = 0.002
_CONVERGENCE, _SCALE, _LOSS, _CONTROL = 0.005, 0.005, 0.005, 0.05
_QUERIES = 1000
# Below this gap of logits float32 cross entropy has all its digits, and no scale is needed.
_HARMLESS_GAP = 10.0
_NO_GRADIENT = "the model has no gradient, which is a flag of its own"


def iterative(shared: SharedAttacks) -> Flag:
    """Many steps must be at least as strong as one."""
    one, many = shared.survivors(shared.fgsm()), shared.survivors(shared.pgd())
    value = float(many.mean() - one.mean())
    text = f"PGD-40 leaves {percent(many.mean())}, FGSM {percent(one.mean())}"
    return Flag("iterative vs one-step", "notice", True, above(value, 0.0), value, 0.0, text)


def black_box(shared: SharedAttacks) -> Flag:
    """Random search must not find what gradients did not."""
    evaluation = shared.evaluation
    with_gradients = results_of(evaluation, uses_gradients=True)
    without = results_of(evaluation, uses_gradients=False)
    if evaluation is not None and without and with_gradients:
        left = evaluation.clean_correct.copy()
        for result in with_gradients:
            left &= ~evaluation.broken_by(result)
        after = left.copy()
        for result in without:
            after &= ~evaluation.broken_by(result)
        source = f"{', '.join(result.attack for result in without)} of the evaluation"
    else:
        left = shared.gradient_survivors
        attack = Square(shared.task.radius, queries=_QUERIES, **shared.settings)
        after = left & shared.task.attack(attack, mask=left).robust
        source = f"{attack.name} with {_QUERIES} queries"
    value = float(left.mean() - after.mean())
    text = (
        f"{source} breaks {points(value)} that gradient attacks left "
        f"({percent(left.mean())} to {percent(after.mean())})"
    )
    return Flag("white vs black box", "notice", True, above(value, _BLIND), value, _BLIND, text)


def transfer(shared: SharedAttacks, surrogate: Any) -> Flag:
    """Another model's adversarial examples must not find what white-box attacks did not."""
    if surrogate is None:
        wanted = "pass surrogate= or --surrogate, a model trained on the same task"
        return not_run("transfer", "notice", wanted)
    broken = transferred(shared.task, shared.task.with_model(surrogate))
    value = float((broken & shared.gradient_survivors).mean())
    text = f"examples made on the surrogate break {points(value)} that white-box attacks left"
    return Flag("transfer", "notice", True, value > 0, value, 0.0, text)


def monotone(shared: SharedAttacks) -> Flag:
    """A larger ball holds the smaller one: accuracy cannot rise with eps."""
    if shared.no_gradient:
        return not_run("monotone in eps", "evidence", _NO_GRADIENT)
    eps, whole = shared.task.radius, shared.task.whole
    grid = sorted(
        {min(factor * eps, whole) for factor in (0.25, 0.5, 1.0, 1.5, 2.0)}
        | set(_large_grid(shared.task))
    )
    left = [shared.survivors(shared.pgd(eps)) for eps in grid]
    rises = [
        (float(b.mean() - a.mean()), beyond_chance(b, a))
        for i, a in enumerate(left)
        for b in left[i + 1 :]
    ]
    value = max(rise for rise, _ in rises)
    raised = any(rise > 0 and significant for rise, significant in rises)
    curve = ", ".join(f"{eps:.3g}: {percent(x.mean())}" for eps, x in zip(grid, left, strict=True))
    return Flag("monotone in eps", "evidence", True, raised, value, 0.0, f"PGD-40 at eps {curve}")


def large_eps(shared: SharedAttacks) -> Flag:
    """At half the pixel range one constant image is within reach of all: no model can resist.

    The gray image has one label, so a deterministic model keeps at most the images of that class.
    An attack that tries the gray image reaches this bound on every model and shows nothing; the
    flag is about attacks that follow gradients.
    """
    task = shared.task
    largest = float(np.bincount(task.labels).max() / task.n)
    found: list[tuple[float, float]] = []
    for eps in _large_grid(task):
        left = shared.survivors(shared.pgd(eps))
        if left.mean() > largest and not shared.no_gradient:
            left = left & task.attack(shared.apgd(eps, loss="dlr"), mask=left).robust
        found.append((float(left.mean()), eps))
    value, eps = max(found)
    gray = task.predict(np.full_like(task.images[:1], 0.5)).argmax(-1)[0]
    bound = float((task.correct & (task.labels == gray)).mean())
    text = (
        f"gradient attacks leave {percent(value)} at eps {eps:.3g}; with the gray image alone no "
        f"more than {percent(bound)} can be left, the largest class is {percent(largest)}"
    )
    return Flag("large eps", "evidence", True, above(value, largest), value, largest, text)


def convergence(shared: SharedAttacks) -> Flag:
    """Twice the steps from another random start must not find much more."""
    if shared.no_gradient:
        return not_run("convergence", "notice", _NO_GRADIENT)
    base = shared.survivors(shared.apgd())
    options: dict[str, Any] = shared.settings | {"seed": shared.task.seed + 1}
    longer = shared.task.attack(APGD(shared.task.radius, steps=200, **options), mask=base)
    value = float((base & longer.success).mean())
    text = (
        f"200 steps from another start break {points(value)} more than APGD-CE's 100 "
        f"({percent(base.mean())})"
    )
    raised = above(value, _CONVERGENCE)
    return Flag("convergence", "notice", True, raised, value, _CONVERGENCE, text)


def logit_scale(shared: SharedAttacks) -> Flag:
    """Dividing all logits by a number changes no prediction, so it must not help an attack."""
    if shared.no_gradient:
        return not_run("logit scale", "evidence", _NO_GRADIENT)
    plain = shared.survivors(shared.apgd())
    task, name = shared.task, "logit scale"
    scale = temperature(task)
    if scale == 1.0:
        text = (
            f"the median logit gap {task.gap:.1f} is within float32's reach: scale 1, APGD-CE "
            f"leaves {percent(plain.mean())}"
        )
        return Flag(name, "evidence", True, False, 0.0, _SCALE, text)
    result = task.with_logits(scaled(task.attacked, scale)).attack(shared.apgd())
    value = float(plain.mean() - result.robust_accuracy)
    text = (
        f"APGD-CE leaves {percent(plain.mean())} on the logits and "
        f"{percent(result.robust_accuracy)} on logits / {scale:.3g} (median gap "
        f"{task.gap:.3g}); both: {percent((plain & result.robust).mean())}"
    )
    raised = above(value, _SCALE) and beyond_chance(plain, result.robust)
    return Flag(name, "evidence", True, raised, value, _SCALE, text)


def loss_choice(shared: SharedAttacks) -> Flag:
    """A loss that does not saturate must not find much more than the cross entropy."""
    if shared.no_gradient:
        return not_run("loss choice", "notice", _NO_GRADIENT)
    entropy = shared.survivors(shared.apgd())
    both = entropy & shared.survivors(shared.apgd(loss="dlr"))
    value = float(entropy.mean() - both.mean())
    text = (
        f"APGD on the logit difference (DLR) breaks {points(value)} that the cross entropy left "
        f"({percent(entropy.mean())})"
    )
    return Flag("loss choice", "notice", True, above(value, _LOSS), value, _LOSS, text)


def positive_control(shared: SharedAttacks, control: Any) -> Flag:
    """The same attacks must break a model that nobody defended.

    Where they leave something of it at eps, which may be too small to break anything, eps is
    doubled until they break it, or until it reaches every image: only then do the attacks fail.
    The flag's value is what they leave at eps itself, which a defended model has to surpass.
    """
    name = "positive control"
    if control is None:
        return not_run(name, "evidence", "pass control= or --control, the undefended model")
    undefended, eps = shared.task.with_model(control), shared.task.radius
    left = [_left_by_apgd(shared, undefended, eps)]
    told = [f"{percent(left[0])} at eps {eps:.3g}"]
    while above(left[-1], _CONTROL) and eps < shared.task.half:
        eps = min(2 * eps, shared.task.half)
        left.append(_left_by_apgd(shared, undefended, eps))
        told.append(f"{percent(left[-1])} at eps {eps:.3g}")
    raised = above(left[-1], _CONTROL)
    meaning = "as it should"
    if raised:
        meaning = "the attacks are too weak"
    elif len(left) > 1:
        meaning = "the attacks work, and eps is small"
    text = f"the undefended model keeps {', '.join(told)} under APGD-CE and -DLR: {meaning}"
    return Flag(name, "evidence", True, raised, left[0], _CONTROL, text)


def _left_by_apgd(shared: SharedAttacks, undefended: EvaluationTask, eps: float) -> float:
    entropy = undefended.attack(shared.apgd(eps))
    both = undefended.attack(shared.apgd(eps, loss="dlr"), mask=entropy.robust)
    return float((entropy.robust & both.robust).mean())


def temperature(task: EvaluationTask) -> float:
    """What to divide the logits by: 1 where their median gap is harmless for float32."""
    return max(1.0, task.gap / _HARMLESS_GAP)


def scaled(model: Any, scale: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model with its logits divided by ``scale``."""
    forward = checks.as_logits_fn(model)
    return derived(lambda images: forward(images) / scale, model)


def _large_grid(task: EvaluationTask) -> tuple[float, ...]:
    return task.half, 1.5 * task.half, task.whole
