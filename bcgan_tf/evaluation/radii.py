"""Accuracy over several radii, and the mean L2 distance that an attack needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.progress import Progress

# Radii in units of the threat model's.
_RATIOS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25)
# Images of the curve, and of Carlini-Wagner, which searches for hundreds of steps.
_IMAGES, _SEARCHED = 200, 50


def measure_radii(
    task: EvaluationTask, evaluation: Evaluation, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Accuracy under PGD and the evaluation's attacks at radii around the threat model's.

    PGD is run at each radius. An image counts as broken at a radius if any adversarial example
    found, at whatever radius, lies within it: the curve falls, and at ``task.eps`` it is at most
    the evaluation's robust accuracy on these images. Each point is an upper bound of the robust
    accuracy at its radius.

    Args:
        task: the evaluation's, with its radius above 0; the first 200 images are used.
        evaluation: of all images of ``task``.
        progress: called with (attacks done, attacks to do, what is at work).

    Returns:
        ``radii`` of a model in metrics.json (:mod:`bcgan_tf.report.page`). ``mean_distance`` is
        over the images among the first 50 that Carlini-Wagner's L2 attack breaks, from the true
        labels, without a bound; wrong images are not attacked and do not count.
    """
    part = task.take(np.arange(min(_IMAGES, task.n)))
    limit = task.whole
    radii = sorted({min(ratio * task.radius, limit) for ratio in _RATIOS})
    shared = {"norm": task.norm, "seed": task.seed, "batch_size": task.batch_size}
    attacks: list[Attack] = [PGD(eps, **shared) for eps in radii]
    carlini = CarliniWagnerL2(
        steps=200,
        learning_rate=5e-2,
        seed=task.seed,
        batch_size=task.batch_size,
    )

    def run(done: int, attack: Attack, images: EvaluationTask) -> AttackResult:
        if progress is not None:
            progress(done, len(attacks) + 1, attack.name)
        return images.attack(attack)

    results = [run(done, attack, part) for done, attack in enumerate(attacks)]
    searched = run(len(attacks), carlini, part.take(np.arange(min(_SEARCHED, part.n))))
    if progress is not None:
        progress(len(attacks) + 1, len(attacks) + 1, "")
    at_radii = Evaluation(tuple(results), part.labels, part.indices, eps=None, norm=task.norm)
    points = []
    for eps in (0.0, *radii):
        left = at_radii.clean_correct & evaluation.clean_correct[: part.n]
        if eps > 0:
            left &= at_radii.survivors(eps) & evaluation.survivors(eps)[: part.n]
        points.append(
            {
                "eps": eps,
                "accuracy": float(left.mean()),
                "interval95": list(at_radii.interval95(left)),
            }
        )
    found = searched.l2[searched.success]
    return {
        "attack": f"{attacks[0].name} at each radius, and what the suite found",
        "norm": task.norm,
        "n": part.n,
        "points": points,
        "mean_distance": {"l2": float(found.mean()) if found.size else None, "n": int(found.size)},
    }
