"""The Square attack: random search with square changes, from the model's outputs alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import square_l2
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.masked_loop import masked_while_loop
from bcgan_tf.attacks.primitives import margins, misclassified
from bcgan_tf.attacks.square_windows import Draws, Plan
from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import Range
from bcgan_tf.settings.kinds import Repeats, Steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(BoundedAttack):
    """Random search: change one window, keep the change where the margin falls.

    It uses logits only, so it can attack models whose gradients are missing, zero or misleading.
    If it breaks images that gradient attacks did not, their gradients were misleading.

    Each query moves one window, which shrinks over the queries: see ``window_share`` and
    ``window_size`` in :mod:`bcgan_tf.attacks.square_windows`. Linf: the start adds +-eps to each
    column and channel; a query sets the window to +-eps, one sign per channel. L2: see
    :mod:`bcgan_tf.attacks.square_l2`. A change is kept where the margin ``z_y - max_{i != y} z_i``
    falls; an example stops where it is misclassified. Positions and signs are drawn for each
    example by itself, from (seed, index, round, query), so the first ``n`` queries are the same
    whatever follows them, and whichever examples share the batch. Windows reach every position,
    the last row and column included.

    Images are ``[H, W, C]``; a vector ``[D]`` is attacked as an image of one row, with windows
    that are intervals.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        queries: windows tried per restart, the start not counted.
        restarts: runs with new random numbers, on those that survived the runs before.
        p_init: share of the image that the first windows cover, in (0, 1].
        norm: ``"linf"`` or ``"l2"``.
        batch_size: most examples attacked at once.
        seed: of all random numbers.

    Raises:
        UserError: if a setting is out of range; at the call, if the examples are neither images
            nor vectors.

    Example:
        >>> Square(0.3)(classifier, images, labels).robust_accuracy

    Reference: Andriushchenko, Croce, Flammarion and Hein 2020, "Square Attack: a query-efficient
    black-box adversarial attack via random search"; budget and margin loss as in AutoAttack.
    """

    uses_gradients = False

    queries: Steps = 5000
    restarts: Repeats = 1
    p_init: Annotated[float, Range(0, 1, above=True)] = 0.8

    @property
    def name(self) -> str:
        return f"Square{self.suffix()}"

    @property
    def rounds(self) -> int:
        return self.restarts

    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        shape = cast(list[int], images.shape[1:].as_list())
        if len(shape) not in (1, 3):
            raise UserError(
                f"Square changes windows of images [N, H, W, C] or vectors [N, D]; these examples "
                f"are {['N', *shape]}: wrap the model in a function that reshapes"
            )
        as_image = shape if len(shape) == 3 else [1, *shape, 1]
        images = tf.reshape(images, [-1, *as_image])

        def judge(candidates: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = logits_fn(tf.reshape(candidates, [-1, *shape]))
            margin = margins(logits, labels)
            # A point with NaN logits is kept: the run that judges it then raises an error.
            return margin, misclassified(logits, labels) | tf.math.is_nan(margin)

        start = self.draw_start(images, indices, round_index)
        margin, stop = judge(start, labels)
        state = _State(images, labels, indices, start, margin, finished=stop)
        windows = 1 if self.norm == "linf" else 2
        plan = Plan(
            self.queries, self.p_init, as_image, norm=self.norm, windows=windows, seed=self.seed
        )

        def advance(chunk: tf.Tensor, state: _State) -> _State:
            draws = plan.draw(chunk, state.indices, round_index)
            propose = self._proposals(state.images, plan, chunk)

            def one_query(query: tf.Tensor, *standing: tf.Tensor) -> tuple[tf.Tensor, ...]:
                x_adv, margin, finished = standing
                candidates = propose(x_adv, Draws(*(values[query] for values in draws)))
                new_margin, stop = judge(candidates, state.labels)
                better = tf.logical_not(finished) & (stop | (new_margin > margin))
                return (
                    query + 1,
                    # Select takes whole examples; tf.where would repeat the choice for every pixel.
                    tf.raw_ops.Select(condition=better, x=candidates, y=x_adv),
                    tf.where(better, new_margin, margin),
                    finished | stop,
                )

            def unfinished(query: tf.Tensor, *standing: tf.Tensor) -> tf.Tensor:
                length = tf.gather(plan.lengths, chunk)
                return (query < length) & tf.logical_not(tf.reduce_all(standing[-1]))

            standing = (state.x_adv, state.margin, state.finished)
            final: Any = tf.while_loop(unfinished, one_query, (tf.constant(0), *standing))
            x_adv, margin, finished = final[1:]
            return state._replace(x_adv=x_adv, margin=margin, finished=finished)

        x_adv = masked_while_loop(advance, state, len(plan.lengths))
        return tf.reshape(x_adv, [-1, *shape])

    def _noise(self, index: int, round_index: int, shape: list[int]) -> np.ndarray:
        """What the start adds to the image ``[H, W, C]``: stripes, for L2 a grid of bumps."""
        bits = np.random.Philox(key=[self.seed, round_index], counter=[0, 0, 0, index])
        if self.norm == "l2":
            return square_l2.start(np.random.Generator(bits), shape, self.eps)
        signs = 2 * (bits.random_raw(shape[1] * shape[2]) & 1).astype(np.float32) - 1
        stripes = signs.reshape(1, shape[1], shape[2]) * np.float32(self.eps)
        return np.broadcast_to(stripes, shape)

    def _proposals(
        self, images: tf.Tensor, plan: Plan, chunk: tf.Tensor
    ) -> Callable[[tf.Tensor, Draws], tf.Tensor]:
        """The function from the last iterate to the candidates of one query."""
        if self.norm == "l2":
            return square_l2.proposals(images, self.eps, plan, chunk)
        windows = plan.windows(chunk)
        lowest = tf.maximum(images - self.eps, 0.0)
        highest = tf.minimum(images + self.eps, 1.0)

        def propose(x_adv: tf.Tensor, draws: Draws) -> tf.Tensor:
            changed = x_adv + 2 * self.eps * draws.signs * windows(draws.corners[:, 0])
            return tf.minimum(tf.maximum(changed, lowest), highest)

        return propose


class _State(NamedTuple):
    """Where each of the ``M`` examples still worked on stands."""

    images: tf.Tensor
    labels: tf.Tensor
    indices: tf.Tensor
    x_adv: tf.Tensor
    margin: tf.Tensor  # of x_adv: the largest wrong logit minus the true one
    finished: tf.Tensor
