"""The searches behind the three readings of the minimum perturbation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.fab import FAB
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
from bcgan_tf.perturbation.nearest_point import NearestPoint
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


class Reading(NamedTuple):
    """What is known of ``M`` images.

    Attributes:
        distance: float64 ``[M]``, infinite where nothing was found.
        points: float32 ``[M, ...]``; any, where nothing was found.
        found_by: object ``[M]``, the name of the search, or "".
    """

    distance: np.ndarray
    points: np.ndarray
    found_by: np.ndarray


class PerturbationSearch:
    """The searches for ``M`` correctly classified images, to be called in the order of writing.

    Each goes on from what those before it found.

    Args:
        logits_fn: float32 images in [0, 1] to logits ``[B, K]``, with finite gradients.
        images: float32 ``[M, ...]`` in [0, 1].
        labels: int64 ``[M]``.
        indices: int64 ``[M]``, positions in the whole set, which the draws follow.
        norm: ``"linf"`` or ``"l2"``.
        limit: farther points do not count.
        attacks: whether :meth:`with_attacks` runs any.
        seed: of all draws.
        batch_size: most images at once.
        progress: called with (searches done, searches, text).
    """

    def __init__(
        self,
        logits_fn: LogitsFn,
        images: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        norm: str,
        limit: float,
        attacks: bool,
        seed: int,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self.logits_fn, self.images, self.labels, self.indices = logits_fn, images, labels, indices
        self.norm, self.seed, self.batch_size = norm, seed, batch_size
        self.attacks, self.progress, self.done = attacks, progress, 0
        self.nearest = NearestPoint(
            logits_fn, images, labels, norm=norm, limit=limit, batch_size=batch_size
        )
        self.gradients = cross_entropy_gradients(logits_fn, images, labels, batch_size=batch_size)
        self.zero_gradient = ~self.gradients.reshape(len(images), -1).any(axis=1)

    def along_gradient(self, step: float) -> Reading:
        """FGSM's line, on the grid; the record goes on from the grid's point, refined."""
        nearest, rows = self.nearest, self.nearest.rows
        directions = fgsm_direction(self.gradients, self.norm)
        spacing, reach = np.full(len(rows), step), np.full(len(rows), nearest.limit)
        t = nearest.first_change(rows, directions, spacing, reach)
        hit = np.flatnonzero(np.isfinite(t))
        points = self.images.copy()
        points[hit] = nearest.at(hit, directions[hit], t[hit])
        before = np.maximum(t[hit] - step, 0)
        nearest.bisect("FGSM line", hit, directions[hit], before, t[hit])
        self._report()
        # The length that was asked for; float32 may have made it longer by a rounding.
        distances = np.maximum(t, length(points.astype(np.float64) - self.images, self.norm))
        return Reading(distances, points, np.where(np.isfinite(t), "FGSM line", "").astype(object))

    def along_lines(self, step: float) -> Reading:
        """All other lines."""
        nearest, size = self.nearest, self.batch_size
        targets = {
            name: np.broadcast_to(image, self.images.shape)
            for name, image in plain_images(self.images.shape[1:]).items()
        }
        others = nearest_of_other_classes(self.images, self.labels, batch_size=size)
        for column in range(others.shape[1]):
            targets[f"image of class {column + 1}"] = self.images[others[:, column]]
        for name, target in targets.items():
            # The ends themselves first: they are what bounds the distance.
            nearest.offer(f"towards {name}", nearest.rows, np.ascontiguousarray(target))
        for name, target in targets.items():
            change = target - self.images
            reach = length(change, self.norm)
            nearest.search_line(f"towards {name}", unit(change, self.norm), step=step, reach=reach)
        self._report()
        for name, directions in gradient_directions(
            self.logits_fn,
            self.images,
            self.labels,
            self.gradients,
            norm=self.norm,
            batch_size=size,
        ):
            nearest.search_line(name, directions, step=step)
        self._report()
        for start in range(0, len(self.images), size):
            rows = nearest.rows[start : start + size]
            signs = random_signs(
                self.indices[rows], self.images.shape[1:], _RANDOM_DIRECTIONS, self.seed
            )
            for number in range(_RANDOM_DIRECTIONS):
                directions = unit(signs[:, number].astype(np.float32), self.norm)
                nearest.look_ahead("random signs", rows, directions)
        self._report()
        return self._known()

    def with_attacks(self, found: list[np.ndarray]) -> Reading:
        """What other attacks brought, ``[M, ...]`` each, and attacks of its own."""
        nearest = self.nearest
        for points in found:
            nearest.offer_lines("given", nearest.rows, points)
        if not self.attacks:
            return self._known()
        shared: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
        attacks: tuple[Attack, ...] = (
            FAB(
                None,
                norm=self.norm,
                steps=_FAB_STEPS[self.norm],
                target_classes=_FAB_CLASSES,
                **shared,
            ),
            _carlini_wagner(self.norm, shared),
        )
        for attack in attacks:
            result = attack(self.logits_fn, self.images, self.labels, indices=self.indices)
            rows = np.flatnonzero(result.success)
            nearest.offer_lines(attack.name, rows, result.adversarials[rows])
            self._report()
        search_radius(
            nearest,
            self.logits_fn,
            self.indices,
            steps=_APGD_STEPS,
            levels=_LEVELS,
            report=self._report,
            **shared,
        )
        return self._known()

    def _known(self) -> Reading:
        known = self.nearest
        return Reading(known.distance.copy(), known.points.copy(), known.found_by.copy())

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
