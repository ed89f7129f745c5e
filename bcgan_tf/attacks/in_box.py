"""Attacks in the box that an Linf ball becomes behind preprocessing that scales and cuts off."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.masked_loop import rows_at_work

# Halvings that find a pixel in an interval of at most 1, to less than the spacing of float32 at 1.
_HALVINGS = 26


def _as_inner(name: str) -> Any:
    """A property that the attack itself has."""
    return property(operator.attrgetter(f"inner.{name}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InBox(Attack):
    """An attack on the network behind monotone preprocessing, in the exact box of its inputs.

    Where a model first maps each pixel by a function ``f`` that never falls, such as a cut-off, the
    Linf ball around an image, within [0, 1], becomes the box from ``f(max(x - eps, 0))`` to
    ``f(min(x + eps, 1))``. The attack moves in units of that box: its iterates ``u`` in [0, 1]
    stand for ``low + u (high - low)``, its image is the middle, and its radius 1/2 reaches all of
    the box. So no flat part of ``f`` hides a gradient, and no step is lost on one. What it finds is
    turned back into pixels of the ball by bisection; the whole model decides on those.

    Args:
        inner: the attack, within an Linf ball.
        before: the preprocessing, float32 ``[B, ...]`` in [0, 1] to the same shape; each entry
            depends on its pixel alone and never falls
            (:func:`bcgan_tf.attacks.preprocessing.monotone_preprocessing`).
    """

    inner: BoundedAttack
    before: Callable[[tf.Tensor], Any]

    uses_gradients = _as_inner("uses_gradients")
    near = _as_inner("near")
    first = _as_inner("first")
    again = _as_inner("again")
    searched_in = _as_inner("searched_in")
    eps = _as_inner("eps")
    norm = _as_inner("norm")
    rounds = _as_inner("rounds")
    idle = _as_inner("idle")

    @classmethod
    def of(cls, attack: BoundedAttack, before: Callable[[tf.Tensor], Any]) -> InBox:
        """The attack in the box; prepare it with ``search``: the network behind ``before``."""
        return cls(inner=attack, before=before, batch_size=attack.batch_size, seed=attack.seed)

    @property
    def name(self) -> str:
        return f"{self.inner.name}+box"

    def config(self) -> dict[str, Any]:
        return self.inner.config()

    def project(self, images: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return self.inner.project(images, candidates)

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        """See :meth:`Attack.run`; ``logits_fn`` is the network behind the preprocessing."""
        least, most = tf.maximum(images - self.eps, 0.0), tf.minimum(images + self.eps, 1.0)
        low, high = self.before(least), self.before(most)

        def placed(units: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(low + units * (high - low), low, high)

        def behind(units: tf.Tensor) -> tf.Tensor:
            rows = rows_at_work()
            box = (low, high) if rows is None else (tf.gather(low, rows), tf.gather(high, rows))
            return logits_fn(placed(units, *box))

        half = self.inner._changed({"eps": 0.5})
        units = half.run(behind, tf.fill(tf.shape(images), 0.5), labels, indices, round_index)
        wanted = placed(units, low, high)

        def halved(least: tf.Tensor, most: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            middle = (least + most) / 2
            below = self.before(middle) < wanted
            return tf.where(below, middle, least), tf.where(below, most, middle)

        for _ in range(_HALVINGS):
            least, most = halved(least, most)
        # An attack says by NaN that a gradient was not finite.
        return tf.where(tf.math.is_nan(units), units, most)
