"""The paper's three attacks over several eps: a first look, which bounds robustness from above."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks import FGSM, PGD, Attack, AttackResult, CarliniWagnerL2
from bcgan_tf.data import Split, evaluation_batches
from bcgan_tf.settings.presets import Recipe
from bcgan_tf.statistics import wilson_interval

# An attack's label to a context that yields its progress function.
Progress = Callable[[str], contextlib.AbstractContextManager[Callable[[int, int], None]]]
# Rounding of float32 images may exceed an eps by this much.
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class FirstLook:
    """Numbers, and some examples to draw.

    Attributes:
        metrics: one model's part of metrics.json (:mod:`bcgan_tf.report.page`).
        examples: ``images``, ``labels``, and per attack ``adversarials`` and ``predictions``.
    """

    metrics: dict[str, Any]
    examples: dict[str, Any]


def first_look(
    classifier: keras.Model,
    test: Split,
    recipe: Recipe,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> FirstLook:
    """Runs FGSM and PGD at every eps of the recipe and CW-L2 without a bound.

    Args:
        classifier: images in [0, 1] to logits.
        test: clean accuracy is measured on all of it.
        recipe: its ``attack_*``, ``pgd_*`` and ``cw_*`` fields are used.
        seed: of the random starts.
        progress: context of each attack's label, such as ``bcgan_tf.progress.counted``.
    """
    part = test.take(recipe.attack_samples, seed=0) if recipe.attack_samples else test
    images, labels = part.scaled(), part.labels
    attacks: list[Attack] = []
    for eps in recipe.attack_eps:
        attacks.append(FGSM(eps, seed=seed))
        steps, restarts = recipe.pgd_steps, recipe.pgd_restarts
        attacks.append(PGD(eps, steps=steps, restarts=restarts, seed=seed))
    results = [_attacked(attack, classifier, images, labels, progress) for attack in attacks]
    if recipe.cw_samples:
        carlini = CarliniWagnerL2(
            steps=recipe.cw_steps,
            learning_rate=recipe.cw_learning_rate,
            binary_search_steps=recipe.cw_binary_search_steps,
            seed=seed,
        )
        few = slice(0, min(recipe.cw_samples, len(labels)))
        results.append(_attacked(carlini, classifier, images[few], labels[few], progress))
    metrics = {
        **clean_accuracy(classifier, test),
        "attacks": [_entry(result) for result in results],
        "worst_case": [_worst_case(results, eps, len(labels)) for eps in recipe.attack_eps],
    }
    return FirstLook(metrics, _examples(classifier, images, labels, results))


def _attacked(
    attack: Attack,
    classifier: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    progress: Progress | None,
) -> AttackResult:
    if progress is None:
        return attack(classifier, images, labels)
    eps = attack.config().get("eps")
    with progress(attack.name if eps is None else f"{attack.name} eps {eps:.4g}") as count:
        return attack(classifier, images, labels, progress=count)


def clean_accuracy(classifier: keras.Model, test: Split) -> dict[str, Any]:
    """``clean_accuracy``, its 95 % ``clean_interval`` and ``n``, on all of a split."""
    correct = sum(
        int(np.sum(np.argmax(classifier(images, training=False), -1) == labels))
        for images, labels in evaluation_batches(test, 500).as_numpy_iterator()
    )
    return {
        "clean_accuracy": correct / len(test),
        "clean_interval": list(wilson_interval(correct, len(test))),
        "n": len(test),
    }


def _entry(result: AttackResult) -> dict[str, Any]:
    summary = result.to_dict()
    return {
        "attack": result.attack,
        "config": summary["config"],
        "robust_accuracy": result.robust_accuracy,
        "interval": list(wilson_interval(int(result.robust.sum()), result.n)),
        "n": result.n,
        "success_rate": summary["success_rate"],
        "mean_l2": summary["l2"]["mean"] if summary["l2"] else None,
        "mean_linf": summary["linf"]["mean"] if summary["linf"] else None,
    }


def _worst_case(results: list[AttackResult], eps: float, n: int) -> dict[str, Any]:
    """Per image, over every adversarial example found that lies within ``eps``."""
    survived = np.ones(n, bool)
    for result in results:
        broken = result.success & (result.linf <= eps + _TOLERANCE)
        survived[: result.n] &= result.clean_correct & ~broken
    count = int(survived.sum())
    return {
        "eps": eps,
        "robust_accuracy": count / n,
        "interval": list(wilson_interval(count, n)),
        "n": n,
    }


def _examples(
    classifier: keras.Model, images: np.ndarray, labels: np.ndarray, results: list[AttackResult]
) -> dict[str, Any]:
    rows: dict[str, np.ndarray] = {}
    for result in results:
        if result.attack.startswith("FGSM"):
            continue
        eps = result.config.get("eps")
        rows[result.attack if eps is None else f"{result.attack}, eps {eps:.3g}"] = (
            result.adversarials
        )
    count = min([8, *(len(row) for row in rows.values())])
    return {
        "images": images[:count],
        "labels": labels[:count],
        "adversarials": {name: row[:count] for name, row in rows.items()},
        "predictions": {
            name: np.argmax(classifier(row[:count], training=False), -1)
            for name, row in rows.items()
        },
    }
