"""The smallest radius at which APGD succeeds, searched for all examples at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import per_example
from bcgan_tf.perturbation.nearest_point import NearestPoint

# Each example's first radius, as a share of the distance of its nearest point known.
_FIRST = 0.9
# An example is done when the radius that failed is this close to the distance that is known. With
# 5 % the mean was 2 % above what four times the steps and 0.5 % found, with 1.25 % it was 0.5 to
# 1 % above (measured, MNIST, undefended and adversarially trained).
_CLOSE = 0.0125


def search_radius(
    nearest: NearestPoint,
    searches: Sequence[LogitsFn] = (),
    *,
    steps: int,
    levels: int,
    report: Callable[[], None],
) -> None:
    """Bisects each example's radius by whether APGD succeeds, and improves ``nearest`` in place.

    The bracket of an example ends at the distance of its nearest point known. The first radius is
    0.9 of it. A success brings a nearer point, and the next radius lies twice as far below it, in
    proportion; a failure is the lower end of the bracket, and the next radius is its middle. So
    what other attacks found well costs a few failures, and what they found badly is left fast. All
    examples take each level at once, every one at a radius of its own; on the cross entropy, and
    those that survive it on the difference of logits ratio.

    A failure bounds nothing from below: it only ends the search.

    Args:
        nearest: of ``N`` images; its bracket starts there, or at the limit where nothing is known.
        searches: what APGD searches with in place of the model, as of
            :meth:`bcgan_tf.attacks.attack.Attack.prepare`.
        steps: of each APGD.
        levels: radii per example, at most.
        report: called after every level.
    """
    task, indices = nearest.task, nearest.task.indices
    shape = task.images.shape[1:]
    size = math.prod(shape)
    largest = task.whole
    options: dict[str, Any] = {
        "norm": task.norm,
        "steps": steps,
        "seed": task.seed,
        "batch_size": task.batch_size,
        "largest": largest,
    }

    def of_rows(logits_fn: LogitsFn) -> LogitsFn:
        return lambda rows: logits_fn(tf.reshape(rows[:, :size], [tf.shape(rows)[0], *shape]))

    model, *copies = map(of_rows, (task.attacked, *searches))
    attacks = [
        _OwnRadius(1.0, loss=loss, **options).prepare(model, searches=copies)
        for loss in ("ce", "dlr")
    ]

    lower, gap = np.zeros(len(indices)), np.full(len(indices), 1 - _FIRST)
    for _ in range(levels):
        upper = nearest.reach
        rows = np.flatnonzero(lower < (1 - _CLOSE) * upper)
        if not rows.size:
            report()
            continue
        radius = np.where(lower > 0, (lower + upper) / 2, (1 - gap) * upper)[rows]
        entries = (radius / largest).astype(np.float32)
        flat = np.concatenate([nearest.images[rows].reshape(len(rows), -1), entries[:, None]], 1)
        standing = np.ones(len(rows), bool)
        for attack in attacks:
            if not standing.any():
                break
            result = attack(flat, nearest.labels[rows], mask=standing, indices=indices[rows])
            points = result.adversarials[:, :size].reshape(len(rows), *shape)
            nearest.offer_lines(result.attack, rows[result.success], points[result.success])
            standing &= result.robust
        lower[rows[standing]] = radius[standing]
        gap[rows[~standing]] = np.minimum(2 * gap[rows[~standing]], 0.5)
        report()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OwnRadius(APGD):
    """APGD on vectors ``[D + 1]`` that carry their own radius, in units of ``largest``, at the end.

    So one graph serves all radii. ``eps`` is 1, and every length is multiplied by the radius.
    """

    largest: float

    def _radius(self, images: tf.Tensor) -> tf.Tensor:
        return images[:, -1] * self.largest

    def clip_to_ball(self, images: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        change = (candidates - images)[:, :-1]
        radius = self._radius(images)[:, None]
        if self.norm == "linf":
            change = tf.clip_by_value(change, -radius, radius)
        else:
            over = tf.norm(change, axis=1, keepdims=True) / radius
            change /= tf.maximum(over, 1.0)
        pixels = tf.clip_by_value(images[:, :-1] + change, 0.0, 1.0)
        return tf.concat([pixels, images[:, -1:]], 1)

    def draw_start(
        self, images: tf.Tensor, indices: tf.Tensor, round_index: tf.Tensor
    ) -> tf.Tensor:
        # Drawn around gray, where [0, 1] is in no draw's way: the ball is half as large there.
        half = dataclasses.replace(self, eps=0.5)
        gray = 0.5 * tf.ones_like(images)
        noise = (BoundedAttack.draw_start(half, gray, indices, round_index) - gray) / 0.5
        return self.clip_to_ball(images, images + per_example(self._radius(images), images) * noise)

    def _noise(self, index: int, round_index: int, shape: list[int]) -> np.ndarray:
        return np.append(super()._noise(index, round_index, [shape[0] - 1]), np.float32(0))

    def _moved(self, state: Any, gradient: tf.Tensor, weight: tf.Tensor) -> Any:
        radius = self._radius(state.images)
        moved = super()._moved(state._replace(step_size=state.step_size * radius), gradient, weight)
        return moved._replace(step_size=state.step_size)

    def project(self, images: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return Attack.project(self, images, candidates)
