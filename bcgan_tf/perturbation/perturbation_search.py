"""The searches behind the three readings of the minimum perturbation."""

from __future__ import annotations

from typing import Any

import numpy as np

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.fab import FAB
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.directions import (
    cross_entropy_gradients,
    fgsm_direction,
    gradient_directions,
    length,
    nearest_of_other_classes,
    plain_images,
    random_signs,
    unit,
)
from bcgan_tf.perturbation.nearest_point import NearestAdversarial, NearestPoint
from bcgan_tf.perturbation.radius_search import search_radius
from bcgan_tf.progress import Progress

_RANDOM_DIRECTIONS = 100
# In Linf, APGD finds nearer points than FAB at any number of steps; in L2, on a network trained
# against Linf attacks, FAB's mean is 3.7 after 10 steps, 2.1 after 20, 1.42 after 50 and 1.36 after
# 100; five classes instead of nine cost it 0.3 % (measured, 50 MNIST images).
_FAB_STEPS = {"linf": 10, "l2": 70}
_FAB_CLASSES = 5
_APGD_STEPS = 50
_LEVELS = 8


class PerturbationSearch:
    """The searches for ``M`` correctly classified images, to be called in the order of writing.

    Each goes on from what those before it found.

    Args:
        task: the model and the images, whose clean ones are all classified right.
        limit: farther points do not count.
        attacked: the same images, for the attacks, which search in its precision; None: ``task``.
        attacks: whether :meth:`with_attacks` runs any.
        progress: called with (searches done, searches, text).
    """

    def __init__(
        self,
        task: EvaluationTask,
        limit: float,
        *,
        attacked: EvaluationTask | None = None,
        attacks: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self.task, self.attacked, self.attacks = task, attacked or task, attacks
        self.progress, self.done = progress, 0
        self.nearest = NearestPoint(task, limit)
        self.gradients = cross_entropy_gradients(task)
        self.zero_gradient = ~self.gradients.reshape(task.n, -1).any(axis=1)

    def along_gradient(self, step: float) -> NearestAdversarial:
        """FGSM's line, on the grid; the record goes on from the grid's point, refined."""
        nearest, rows = self.nearest, self.nearest.rows
        directions = fgsm_direction(self.gradients, self.task.norm)
        spacing, reach = np.full(len(rows), step), np.full(len(rows), nearest.limit)
        t = nearest.first_change(rows, directions, spacing, reach)
        hit = np.flatnonzero(np.isfinite(t))
        points = self.task.images.copy()
        points[hit] = nearest.at(hit, directions[hit], t[hit])
        before = np.maximum(t[hit] - step, 0)
        nearest.bisect("FGSM line", hit, directions[hit], before, t[hit])
        self._report()
        # The length that was asked for; float32 may have made it longer by a rounding.
        distances = np.maximum(
            t, length(points.astype(np.float64) - self.task.images, self.task.norm)
        )
        return NearestAdversarial(
            distances, points, np.where(np.isfinite(t), "FGSM line", "").astype(object)
        )

    def along_lines(self, step: float) -> NearestAdversarial:
        """All other lines."""
        nearest, task = self.nearest, self.task
        size = task.batch_size
        targets = {
            name: np.broadcast_to(image, task.images.shape)
            for name, image in plain_images(task.images.shape[1:]).items()
        }
        others = nearest_of_other_classes(task.images, task.labels, batch_size=size)
        for column in range(others.shape[1]):
            targets[f"image of class {column + 1}"] = task.images[others[:, column]]
        for name, target in targets.items():
            # The ends themselves first: they are what bounds the distance.
            nearest.offer(f"towards {name}", nearest.rows, np.ascontiguousarray(target))
        for name, target in targets.items():
            change = target - task.images
            reach = length(change, task.norm)
            nearest.search_line(f"towards {name}", unit(change, task.norm), step=step, reach=reach)
        self._report()
        for name, directions in gradient_directions(task, self.gradients):
            nearest.search_line(name, directions, step=step)
        self._report()
        for start in range(0, len(task.images), size):
            rows = nearest.rows[start : start + size]
            signs = random_signs(
                task.indices[rows], task.images.shape[1:], _RANDOM_DIRECTIONS, task.seed
            )
            for number in range(_RANDOM_DIRECTIONS):
                directions = unit(signs[:, number].astype(np.float32), task.norm)
                nearest.look_ahead("random signs", rows, directions)
        self._report()
        return self.nearest.known

    def with_attacks(self, known: list[np.ndarray]) -> NearestAdversarial:
        """What other attacks brought, ``[M, ...]`` each, and attacks of its own."""
        nearest, task = self.nearest, self.task
        for points in known:
            nearest.offer_lines("given", nearest.rows, points)
        if not self.attacks:
            return self.nearest.known
        shared: dict[str, Any] = {"seed": task.seed, "batch_size": task.batch_size}
        attacks: tuple[Attack, ...] = (
            FAB(
                None,
                norm=task.norm,
                steps=_FAB_STEPS[task.norm],
                target_classes=_FAB_CLASSES,
                **shared,
            ),
            _carlini_wagner(task.norm, shared),
        )
        for attack in attacks:
            prepared = self.attacked.prepared(attack, self.attacked.searched_in)
            result = prepared(task.images, task.labels, indices=task.indices)
            rows = np.flatnonzero(result.success)
            nearest.offer_lines(attack.name, rows, result.adversarials[rows])
            self._report()
        searches = self.attacked.searches(self.attacked.searched_in)
        search_radius(nearest, searches, steps=_APGD_STEPS, levels=_LEVELS, report=self._report)
        return self.nearest.known

    def _report(self) -> None:
        self.done += 1
        if self.progress is not None:
            total = 4 + (2 + _LEVELS if self.attacks else 0)
            self.progress(self.done, total, f"search {self.done} of {total}")


def _carlini_wagner(norm: str, shared: dict[str, Any]) -> CarliniWagnerL2:
    """CW with few steps; fewer still for Linf, which is not what it minimises."""
    steps, searches, rate = (50, 3, 0.1) if norm == "linf" else (100, 5, 0.05)
    return CarliniWagnerL2(
        steps=steps,
        binary_search_steps=searches,
        learning_rate=rate,
        initial_const=0.1,
        **shared,
    )
