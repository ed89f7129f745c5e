"""The fast adaptive boundary attack (FAB): the nearest misclassified point."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.box_projection import box_projection
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.line_search import nearest_on_line
from bcgan_tf.attacks.linearized_boundary import Hyperplanes, towards_nearest, towards_target
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.objectives import ranked_wrong_class
from bcgan_tf.attacks.primitives import (
    margins,
    misclassified,
    not_inlined,
    per_example,
    rounding,
)
from bcgan_tf.settings.fields import Range
from bcgan_tf.settings.kinds import AttackEps, Repeats, Share, Steps

# Radius of the random starts of an attack that has no eps of its own.
_START_RADIUS = {"linf": 0.3, "l2": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB(BoundedAttack):
    """Searches the misclassified point that is nearest to the image.

    Each step linearizes the decision boundary at the iterate. It projects the iterate and the image
    exactly onto that hyperplane within [0, 1], overshoots both projections (``eta``) and takes
    their weighted mean, in which the image has a weight of at most ``alpha_max``. From a
    misclassified point it goes back towards the image (``beta``). The nearest misclassified point
    is kept, and three steps of a line search towards the image bring it nearer.

    Untargeted, the boundary is the one to the class with the nearest linearized boundary, which
    takes the gradients of all classes. Targeted (FAB-T), each round takes the boundary to one wrong
    class, by descending logit on the clean image; where a model has fewer wrong classes, the rounds
    that lack a target do nothing. A point counts whatever wrong class is predicted.

    With an ``eps``, a point counts within ``eps`` only, each round attacks what those before it
    left, and an example is done when one is found: its distance is then not the least. With
    ``eps=None`` any misclassified point counts, all targets and restarts are run on every example,
    and ``linf`` or ``l2`` of the result is the least distance found.

    Args:
        eps: radius, in units of the [0, 1] pixel range, or None; 0 returns the images.
        targeted: aim at wrong classes in turn, instead of at the nearest.
        steps: in each round.
        restarts: per example, targeted: per example and target. The first starts at the image,
            the others at a random distance of half of eps (None: 0.3 for Linf, 1.0 for L2), or of
            the least distance found before where that is smaller.
        target_classes: how many wrong classes are aimed at; targeted only.
        alpha_max: largest weight of the image's projection, in [0, 1].
        eta: overshoot of both projections, at least 1.
        beta: share of the way that is kept in going back, in (0, 1).
        norm: ``"linf"`` or ``"l2"``: of the distance that is minimized, and of ``eps``.
        batch_size: most examples attacked at once.
        seed: of the random starts.

    Raises:
        UserError: if a setting is out of range.

    Example:
        >>> FAB(0.3)(classifier, images, labels).robust_accuracy  # FAB-T
        >>> nearest = FAB(None, norm="l2")(classifier, images, labels)
        >>> nearest.l2[nearest.success].mean()

    Reference: Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack", algorithm 1; FAB-T and the budgets from their "Reliable Evaluation of
    Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks".
    """

    # Optional here alone: the other attacks of this base need a ball.
    uses_gradients = True

    eps: AttackEps | None = dataclasses.field(kw_only=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    targeted: bool = True
    steps: Steps = 100
    restarts: Repeats = 1
    target_classes: Repeats = 9
    alpha_max: Share = 0.1
    eta: Annotated[float, Range(1, 1000)] = 1.05
    beta: Annotated[float, Range(0, 1, above=True, below=True)] = 0.9

    @property
    def name(self) -> str:
        return f"FAB{'-T' if self.targeted else ''}{self.suffix()}"

    @property
    def minimizes(self) -> str | None:
        return self.norm if self.eps is None else None

    @property
    def _searches(self) -> int:
        return self.restarts * (self.target_classes if self.targeted else 1)

    @property
    def rounds(self) -> int:
        # A misclassified example takes no part in later rounds. Without an eps every search must
        # see every example, so all searches run in one round.
        return 1 if self.eps is None else self._searches

    def config(self) -> dict[str, Any]:
        settings = super().config()
        if not self.targeted:
            del settings["target_classes"]
        return settings

    def project(self, images: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        if self.eps is None:
            return Attack.project(self, images, candidates)
        return super().project(images, candidates)

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        search = functools.partial(self._search, logits_fn, images, labels, indices)
        if self.eps is not None:
            x_adv = search(round_index, images)
        else:
            x_adv = tf.while_loop(
                lambda number, x_adv: number < self._searches,
                lambda number, x_adv: (number + 1, search(number, x_adv)),
                (tf.constant(0, tf.int64), images),
            )[1]
        return nearest_on_line(logits_fn, images, labels, x_adv)

    def _search(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        number: tf.Tensor,
        x_adv: tf.Tensor,
    ) -> tf.Tensor:
        """One target and restart; returns ``x_adv`` where it meets nothing nearer."""
        targets, reachable = labels, tf.ones_like(labels, tf.bool)
        if self.targeted:
            rank = tf.math.floormod(number, self.target_classes)
            targets, reachable = ranked_wrong_class(logits_fn(images), labels, rank)

        @not_inlined
        def linearize(points: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> Hyperplanes:
            if self.targeted:
                return towards_target(logits_fn, points, labels, targets)
            return towards_nearest(logits_fn, points, labels, norm=self.norm)

        def advance(step: tf.Tensor, state: _State) -> _State:
            del step
            normals, gaps = linearize(state.iterates, state.labels, state.targets)
            moved = self._moved(state, normals, gaps)
            state = self._recorded(state, moved, logits_fn(moved))
            return _without_unsound(state, normals)

        distance = tf.where(
            misclassified(logits_fn(x_adv), labels), self._length(x_adv - images), math.inf
        )
        state = _State(
            images=images,
            labels=labels,
            targets=targets,
            iterates=self._start(images, indices, number, distance),
            x_adv=x_adv,
            distance=distance,
            finished=tf.logical_not(reachable),
        )
        return masked_while_loop(advance, state, self.steps)

    def _start(
        self, images: tf.Tensor, indices: tf.Tensor, number: tf.Tensor, distance: tf.Tensor
    ) -> tf.Tensor:
        """The images at first, and from the second restart on random points around them."""
        radius = tf.minimum(distance, self.eps or _START_RADIUS[self.norm]) / 2.0
        shape = cast(list[int], images.shape[1:].as_list())

        def draw(indices: np.ndarray, number: np.ndarray) -> np.ndarray:
            return np.stack([self._noise(int(i), int(number), shape) for i in indices])

        def somewhere() -> tf.Tensor:
            noise = tf.numpy_function(draw, [indices, number], tf.float32, stateful=False)
            noise = per_example(radius, images) * tf.ensure_shape(noise, images.shape)
            return tf.clip_by_value(images + noise, 0.0, 1.0)

        first = number < (self.target_classes if self.targeted else 1)
        return tf.cond(first, lambda: images, somewhere)

    def _noise(self, index: int, round_index: int, shape: list[int]) -> np.ndarray:
        """A change of length 1: a draw from the unit ball, moved out to its surface."""
        unit = dataclasses.replace(self, eps=1.0)
        ball = BoundedAttack._noise(unit, index, round_index, shape)
        length = np.abs(ball).max() if self.norm == "linf" else np.linalg.norm(ball)
        return ball / np.float32(length or 1.0)

    def _moved(self, state: _State, normals: tf.Tensor, gaps: tf.Tensor) -> tf.Tensor:
        """One step from the iterates, towards the hyperplanes and a little to the images."""
        away = state.iterates - state.images
        gaps_of_images = gaps + tf.reduce_sum(normals * away, axis=_pixels(normals))
        # Both projections in one call, the iterates' above the images'.
        flat = tf.reshape(normals, [tf.shape(normals)[0], -1])
        points = tf.concat([state.iterates, state.images], 0)
        changes = box_projection(
            tf.reshape(points, [tf.shape(points)[0], -1]),
            tf.concat([flat, flat], 0),
            tf.concat([gaps, gaps_of_images], 0),
            norm=self.norm,
        )
        changes = tf.reshape(changes, tf.shape(points))
        beyond, beyond_image = tf.split(points + self.eta * changes, 2)
        way, way_of_image = tf.split(self._length(changes), 2)
        share = tf.minimum(tf.math.divide_no_nan(way, way + way_of_image), self.alpha_max)
        share = per_example(share, normals)
        return tf.clip_by_value((1.0 - share) * beyond + share * beyond_image, 0.0, 1.0)

    def _recorded(self, state: _State, moved: tf.Tensor, logits: tf.Tensor) -> _State:
        """Keeps a misclassified point that is nearer, and goes back from every such point.

        It also goes back from points within rounding of the boundary: steps there have no length,
        so no point would count as misclassified.
        """
        away = moved - state.images
        length = self._length(away)
        nearer = (length < state.distance) & tf.logical_not(state.finished)
        better = nearer & misclassified(logits, state.labels)
        distance = tf.where(better, length, state.distance)
        near_enough = distance <= (-1.0 if self.eps is None else self.eps)
        lost = rounding(logits, state.labels)
        arrived = per_example(margins(logits, state.labels) >= -lost, moved)
        return state._replace(
            iterates=tf.where(arrived, state.images + self.beta * away, moved),
            x_adv=tf.where(per_example(better, moved), moved, state.x_adv),
            distance=distance,
            finished=state.finished | near_enough,
        )

    def _length(self, changes: tf.Tensor) -> tf.Tensor:
        """The norm of each row, ``[B]``."""
        if self.norm == "linf":
            return tf.reduce_max(tf.abs(changes), axis=_pixels(changes))
        return tf.sqrt(tf.reduce_sum(tf.square(changes), axis=_pixels(changes)))


class _State(NamedTuple):
    """Where each of the ``M`` examples still worked on stands."""

    images: tf.Tensor
    labels: tf.Tensor
    targets: tf.Tensor
    iterates: tf.Tensor
    x_adv: tf.Tensor  # the nearest misclassified point, the image until there is one
    distance: tf.Tensor  # of x_adv; infinite until there is one
    finished: tf.Tensor


def _pixels(batch: tf.Tensor) -> list[int]:
    return list(range(1, len(batch.shape)))


def _without_unsound(state: _State, normals: tf.Tensor) -> _State:
    """Finishes examples whose gradient is not finite.

    Where no misclassified point was found, ``x_adv`` becomes NaN, so that the caller raises an
    error: a broken gradient is no sign of robustness.
    """
    sums = tf.reduce_sum(normals, axis=_pixels(normals))
    unsound = tf.logical_not(state.finished | tf.math.is_finite(sums))
    unjudged = unsound & tf.math.is_inf(state.distance)
    return state._replace(
        x_adv=tf.where(per_example(unjudged, normals), math.nan, state.x_adv),
        finished=state.finished | unsound,
    )
