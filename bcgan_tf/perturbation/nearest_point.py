"""The nearest misclassified point known of each image, and searches along straight lines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import margins, misclassified
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.directions import length, unit

# Halvings of the interval between a point that is right and one that is wrong.
_HALVINGS = 12
# Points of a line that are looked at, up to the least distance known, at most.
_POINTS = 8
# How far a search looks that looks once, as a share of the least distance known.
_AHEAD = 0.98


class NearestAdversarial(NamedTuple):
    """What is known of ``M`` images.

    Attributes:
        distance: float64 ``[M]``, infinite where nothing was found.
        points: float32 ``[M, ...]``; any, where nothing was found.
        found_by: object ``[M]``, the name of the search, or "".
    """

    distance: np.ndarray
    points: np.ndarray
    found_by: np.ndarray


class NearestPoint:
    """What is known of ``N`` correctly classified images; every offer can only improve it.

    A point is ``clip(x + t d, 0, 1)`` in float32, and its distance is measured from that array: it
    is at most ``t`` where ``d`` has length 1, up to rounding, and less where clipping took effect.
    A point counts where the model, run on it, answers another class by more than float32 rounding,
    so that it does so in a batch of another size too.

    Args:
        task: the model and the images.
        limit: farther points do not count.

    Attributes:
        distance: float64 ``[N]``, infinite where no misclassified point is known.
        points: float32 ``[N, ...]``, the image itself where none is known.
        found_by: object ``[N]``, the name of the search that found it, or "".
    """

    def __init__(self, task: EvaluationTask, limit: float) -> None:
        self.task, self.limit = task, limit
        self.images, self.labels, self.norm = task.images, task.labels, task.norm
        self.distance = np.full(task.n, np.inf)
        self.points = task.images.copy()
        self.found_by = np.full(task.n, "", object)
        logits_fn = task.attacked
        self._wrong = Batched(lambda *batch: _is_wrong(logits_fn, *batch), task.batch_size)

    @property
    def known(self) -> NearestAdversarial:
        """A copy of what is known now."""
        found = self.distance, self.points, self.found_by
        return NearestAdversarial(*(array.copy() for array in found))

    @property
    def rows(self) -> np.ndarray:
        """All row numbers."""
        return np.arange(len(self.images))

    @property
    def reach(self) -> np.ndarray:
        """How far it is worth looking, float64 ``[N]``."""
        return np.minimum(self.distance, self.limit)

    def wrong(self, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
        """bool ``[M]``: the model is wrong on these points of these rows."""
        if not rows.size:
            return np.zeros(0, bool)
        return self._wrong(points, self.labels[rows], total=len(self.images))

    def at(self, rows: np.ndarray, directions: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The points ``clip(x + t d)``, float32 ``[M, ...]``."""
        wide = t.astype(np.float32).reshape(-1, *[1] * (directions.ndim - 1))
        return np.clip(self.images[rows] + wide * directions, 0, 1)

    def first_change(
        self, rows: np.ndarray, directions: np.ndarray, spacing: np.ndarray, reach: np.ndarray
    ) -> np.ndarray:
        """The first of ``spacing, 2 spacing ... reach`` whose point is misclassified.

        Args:
            rows: int ``[M]``.
            directions: float32 ``[M, ...]``; rows of zeros are not walked along.
            spacing: float64 ``[M]``.
            reach: float64 ``[M]``, the last ``t``, a multiple of ``spacing`` or not.

        Returns:
            float64 ``[M]``, infinite where there is none.
        """
        found = np.full(len(rows), np.inf)
        counts = np.ceil(reach / spacing - 1e-9)
        active = np.flatnonzero(directions.reshape(len(rows), -1).any(axis=1))
        number = 0
        while (active := active[counts[active] > number]).size:
            number += 1
            t = np.minimum(number * spacing[active], reach[active])
            hit = self.wrong(rows[active], self.at(rows[active], directions[active], t))
            found[active[hit]] = t[hit]
            active = active[~hit]
        return found

    def bisect(
        self,
        name: str,
        rows: np.ndarray,
        directions: np.ndarray,
        right: np.ndarray,
        wrong: np.ndarray,
    ) -> None:
        """Halves the interval from a ``t`` that is right to one that is wrong, and offers the end.

        Where the class changes more than once in between, it ends at one of the changes.
        """
        if not rows.size:
            return
        for _ in range(_HALVINGS):
            middle = (right + wrong) / 2
            is_wrong = self.wrong(rows, self.at(rows, directions, middle))
            wrong = np.where(is_wrong, middle, wrong)
            right = np.where(is_wrong, right, middle)
        self._keep(name, rows, self.at(rows, directions, wrong))

    def search_line(
        self, name: str, directions: np.ndarray, *, step: float, reach: np.ndarray | None = None
    ) -> None:
        """Looks along one line per image, as far as the nearest point known, and bisects.

        Args:
            name: of the search.
            directions: float32 ``[N, ...]`` of length 1.
            step: between points looked at; an eighth of the way where that is longer.
            reach: float64 ``[N]``, the end of each line; None: the limit.
        """
        reach = self.reach if reach is None else np.minimum(reach, self.reach)
        spacing = np.maximum(step, reach / _POINTS)
        found = self.first_change(self.rows, directions, spacing, reach)
        hit = np.flatnonzero(np.isfinite(found))
        before = (np.ceil(found[hit] / spacing[hit] - 1e-9) - 1) * spacing[hit]
        self.bisect(name, hit, directions[hit], before, found[hit])

    def look_ahead(self, name: str, rows: np.ndarray, directions: np.ndarray) -> None:
        """Looks at one point of each line, a little nearer than what is known, and bisects."""
        t = _AHEAD * self.reach[rows]
        hit = self.wrong(rows, self.at(rows, directions, t))
        self.bisect(name, rows[hit], directions[hit], np.zeros(int(hit.sum())), t[hit])

    def offer(self, name: str, rows: np.ndarray, points: np.ndarray) -> None:
        """Takes those points that are misclassified, and nearer than what is known.

        Args:
            name: of the search that found them.
            rows: int ``[M]``.
            points: float32 ``[M, ...]`` in [0, 1].
        """
        nearer = length(points - self.images[rows], self.norm) < self.distance[rows]
        rows, points = rows[nearer], points[nearer]
        is_wrong = self.wrong(rows, points)
        self._keep(name, rows[is_wrong], points[is_wrong])

    def offer_lines(self, name: str, rows: np.ndarray, points: np.ndarray) -> None:
        """Takes points as :meth:`offer` does, and looks on their lines to the images as well.

        Args:
            name: of the search that found them.
            rows: int ``[M]``, each at most once.
            points: float32 ``[M, ...]`` in [0, 1]; an image itself is no line.
        """
        if not rows.size:
            return
        self.offer(name, rows, points)
        directions, reach = unit(points - self.images[rows], self.norm), self.reach[rows]
        self.look_ahead(name, rows, directions)
        # Where nothing was wrong a little nearer, the boundary is just before a point just taken.
        taken = (self.found_by[rows] == name) & (self.distance[rows] > _AHEAD * reach)
        rows, directions, reach = rows[taken], directions[taken], reach[taken]
        same = self.wrong(rows, self.at(rows, directions, reach))
        rows, directions, reach = rows[same], directions[same], reach[same]
        self.bisect(name, rows, directions, _AHEAD * reach, reach)

    def _keep(self, name: str, rows: np.ndarray, points: np.ndarray) -> None:
        distance = length(points.astype(np.float64) - self.images[rows], self.norm)
        nearer = (distance < self.distance[rows]) & (distance <= self.limit)
        self.distance[rows[nearer]] = distance[nearer]
        self.points[rows[nearer]] = points[nearer]
        self.found_by[rows[nearer]] = name


def _is_wrong(logits_fn: LogitsFn, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    logits = logits_fn(images)
    answers = tf.argmax(logits, axis=1, output_type=labels.dtype)
    # Logits that are rounded tie exactly, and argmax breaks the tie alike at every call.
    clear = misclassified(logits, labels) | tf.equal(margins(logits, labels), 0.0)
    return tf.not_equal(answers, labels) & clear
