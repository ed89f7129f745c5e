"""Red flags of the model itself: its gradients, its answers, and what nothing should survive."""

from __future__ import annotations

from typing import Any

import numpy as np

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.expectation import PASSES
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.diagnosis.flags import Flag, above, not_run, percent, points
from bcgan_tf.diagnosis.shared_attacks import SharedAttacks
from bcgan_tf.evaluation.gradient_health import DEAD, GradientHealth

_UNBOUNDED_IMAGES = 24
_DRAWS = 1000
# Model calls that the random draws may take.
_NOISE_CALLS = 50_000


def gradient_flag(health: GradientHealth, *, through: bool = False) -> Flag:
    """Zero, missing or non-finite gradients of the cross entropy give an attack no direction.

    Args:
        health: of the model's own gradients.
        through: whether the other checks attack it through its preprocessing.
    """
    numbers = health.to_dict()
    if health.missing:
        text = "TensorFlow finds no gradient of the logits with respect to the images"
    else:
        text = (
            f"the cross entropy's gradient is exactly zero for {percent(numbers['zero'])} of the "
            f"images and NaN or infinite for {percent(numbers['non_finite'])} in float32"
        )
        zero64, non_finite64 = numbers["zero_float64"], numbers["non_finite_float64"]
        text += (
            f"; {percent(zero64)} and {percent(non_finite64)} in float64"
            if zero64 is not None and non_finite64 is not None
            else "; float64 not run: the model cannot be copied to it"
        )
        text += f"; zero for the margin too: {percent(numbers['margin_zero'])}"
    if health.backward:
        text += "; attacks follow the stand-in that the model brings (BPDA)"
    if through:
        text += "; attacks go through the model's preprocessing (BPDA)"
    raised = above(health.bad, DEAD) or numbers["non_finite"] > 0
    return Flag(
        "gradient health", "evidence", True, raised, health.bad, DEAD, text, in_points=False
    )


def stochastic(share: float, evaluated_with: int | None) -> Flag:
    """A model that draws at every call must be attacked through the mean of many calls.

    Args:
        share: of images whose answers differ.
        evaluated_with: calls that the evaluation averaged; None: there is no evaluation.
    """
    text = f"the logits of {percent(share)} of the images differ between {PASSES} passes"
    single = evaluated_with == 1
    if share > 0:
        text += (
            ": evaluate with samples=20 (expectation over transformation)"
            if single
            else "; expectation over transformation was used"
        )
    grade = "evidence" if single else "notice"
    return Flag("stochastic forward", grade, True, share > 0, share, 0.0, text, in_points=False)


def unbounded(shared: SharedAttacks) -> Flag:
    """Every image can be turned into another class: without a bound an attack must succeed.

    CW first: from a constant that succeeds on most models at once, then from its usual small one.
    On adversarially trained networks its hinge has local minima that one way of growing the
    constant does not leave, so PGD on the whole cube, from the image, tries what is left.
    """
    name = "unbounded attack"
    task = shared.task
    rows = np.flatnonzero(task.correct)[: _UNBOUNDED_IMAGES if task.calls == 1 else 4]
    if not rows.size:
        return not_run(name, "evidence", "no image is classified right")
    some = task.take(rows)
    size: dict[str, Any] = {"batch_size": task.batch_size}
    cw: dict[str, Any] = {"steps": 200, "learning_rate": 0.05} | size
    if task.calls > 1:  # each step is twenty
        cw |= {"steps": 50, "learning_rate": 0.2}
    ladder: list[tuple[str, Attack]] = [
        ("CW-L2", CarliniWagnerL2(initial_const=0.1, binary_search_steps=4, **cw)),
        ("CW-L2 from c = 0.001", CarliniWagnerL2(**cw)),
        ("PGD", PGD(1.0, steps=100, random_start=False, **size)),
    ]
    if task.calls > 1:
        del ladder[1]
    standing, told = np.ones(len(rows), bool), []
    for label, attack in ladder:
        standing = standing & some.attack(attack, mask=standing).robust
        told.append(f"{label} {percent(1 - standing.mean())}")
        if not standing.any():
            break
    value = float(1 - standing.mean())
    text = f"success without a bound on {len(rows)} images: {', then '.join(told)}"
    return Flag(name, "evidence", True, value < 1, value, 1.0, text, in_points=False)


def random_noise(shared: SharedAttacks) -> Flag:
    """Random points of the ball must not find what attacks missed."""
    task, draws = shared.task, _DRAWS
    left = np.flatnonzero(shared.gradient_survivors)
    rows = left[: max(1, _NOISE_CALLS // (draws * task.calls))]
    broken = np.zeros(len(rows), bool)
    for position, row in enumerate(rows):
        generator = np.random.default_rng([task.seed, int(task.indices[row])])
        image = task.images[row]
        for start in range(0, draws, task.batch_size):
            count = min(task.batch_size, draws - start)
            noise = _noise(generator, (count, *image.shape), task.radius, task.norm)
            answers = task.predict(np.clip(image + noise, 0, 1), total=draws).argmax(-1)
            if (answers != task.labels[row]).any():
                broken[position] = True
                break
    value = float(broken.mean() * len(left) / task.n) if rows.size else 0.0
    text = (
        f"{draws:,} random draws break {int(broken.sum())} of {len(rows)} images that gradient "
        f"attacks left ({points(value)} of all)"
    )
    return Flag("random noise", "notice", True, value > 0, value, 0.0, text)


def _noise(
    generator: np.random.Generator, shape: tuple[int, ...], eps: float, norm: str
) -> np.ndarray:
    """Half of the draws spread over the ball, half at its corners or surface."""
    corners = np.arange(shape[0]) % 2 == 1
    broadcast = (-1, *[1] * (len(shape) - 1))
    if norm == "linf":
        noise = generator.uniform(-eps, eps, shape)
        noise = np.where(corners.reshape(broadcast), eps * np.sign(noise), noise)
        return noise.astype(np.float32)
    noise = generator.standard_normal(shape)
    length = np.sqrt(np.square(noise).reshape(shape[0], -1).sum(axis=1))
    radius = np.where(corners, 1.0, generator.uniform(size=shape[0])) * eps
    return (noise * (radius / length).reshape(broadcast)).astype(np.float32)
