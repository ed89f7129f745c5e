"""The base class of attacks: checks, rounds on the survivors, a last run that judges success."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import answers, checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.boundary_walk import nearest_along_boundary
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.logits import check_digits, masked_classes, without_classes
from bcgan_tf.attacks.passes import PassCounter
from bcgan_tf.attacks.primitives import logit_units, margins
from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.attacks.search_network import in_order, search_networks
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.errors import UserError
from bcgan_tf.progress import Progress
from bcgan_tf.settings.fields import Checked, Range
from bcgan_tf.settings.kinds import Batch, Precision


def deciding_settings(config: dict[str, Any]) -> dict[str, Any]:
    """A ``config`` without the batch size, which changes no result."""
    return {key: value for key, value in config.items() if key != "batch_size"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Checked, abc.ABC):
    """A frozen configuration; calling it attacks a model.

    A new attack subclasses this and writes ``uses_gradients``, ``name`` and ``run``; an attack
    within a ball is a :class:`bcgan_tf.attacks.bounded.BoundedAttack`.

    Attributes:
        uses_gradients: whether it follows the model's gradients; False for an attack that only asks
            for logits. Each attack says it; there is no default.
        near: in a suite it gets only images that an attack before it brought so near
            (:attr:`AttackResult.nearness`); None: all.
        first: in a suite it gets only so many of the first images; None: all.
        again: its search on a copy of the model leaves an example to a better copy, or to the model
            itself, where it came so near; None: leaves none.
        searched_in: in a suite the precision that it searches in, whatever that of the others;
            None: theirs.

    Args:
        batch_size: most examples attacked at once. It changes speed and memory, never the result.
        seed: of whatever the attack draws; each draw depends on (seed, example, round) alone.
    """

    uses_gradients: ClassVar[bool]
    near: ClassVar[float | None] = None
    first: ClassVar[int | None] = None
    again: ClassVar[float | None] = 0.1
    searched_in: ClassVar[str | None] = None

    batch_size: Batch = 250
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Short name for tables."""

    @property
    def rounds(self) -> int:
        """How often ``run`` is tried on the examples that survived so far."""
        return 1

    @property
    def idle(self) -> bool:
        """Whether the settings allow no change of an image."""
        return False

    @property
    def minimizes(self) -> str | None:
        """The norm in which its results are to be as near to the images as can be, if any.

        Those of a search on a copy then end where the model's own boundary is nearest
        (:func:`bcgan_tf.attacks.boundary_walk.nearest_along_boundary`).
        """
        return None

    @property
    def lengths(self) -> dict[str, float]:
        """The settings that the graph takes as inputs, so that one graph serves all their values.

        ``run`` sees them as float32 scalars. A subclass whose ``run`` can take them so says it by
        defining this property itself: what it inherits does not count.
        """
        return {}

    def config(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        return dataclasses.asdict(self)

    @abc.abstractmethod
    def run(
        self,
        logits_fn: LogitsFn,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        round_index: tf.Tensor,
    ) -> tf.Tensor:
        """Attacks one batch. It is traced once into a graph, so use tensor operations only.

        Args:
            logits_fn: images to float32 logits ``[B, K]``.
            images: float32 ``[B, ...]``, clean, correctly classified.
            labels: int64 ``[B]``, the true labels.
            indices: int64 ``[B]``, each example's position in the set: the seed of its draws.
            round_index: int64 scalar in ``[0, rounds)``.

        Returns:
            float32 ``[B, ...]``: a misclassified image where one was found, else any candidate.
        """

    def project(self, images: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Candidates projected onto the allowed set, here [0, 1]; NumPy, after the attack."""
        del images
        return np.clip(candidates, 0.0, 1.0)

    def __call__(
        self,
        logits_fn: Any,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        mask: np.ndarray | None = None,
        indices: np.ndarray | None = None,
        precision: Precision = "float32",
        progress: Progress | None = None,
    ) -> AttackResult:
        """Attacks every example that the model still classifies right.

        Args:
            logits_fn: a Keras model (called with ``training=False``) or a callable on tensors
                that ``tf.function`` can trace; float32 images in [0, 1] to logits ``[B, K]``.
            images: float32 ``[N, ...]`` in [0, 1] within 1e-6.
            labels: int ``[N]``, the true classes.
            mask: bool ``[N]``: attack these alone, such as the survivors of other attacks.
            indices: int ``[N]``, each example's position in the whole set, from which its random
                draws follow; None: 0 ... N-1.
            precision: that it searches in: ``"float32"``, ``"bfloat16"`` or ``"auto"``
                (:func:`bcgan_tf.attacks.search_network.search_networks`). What a search in bfloat16
                comes near to is searched again in float32. The model itself, in its own precision,
                decides whether an example is broken.
            progress: called with (examples done, examples to do, "") after every batch.

        Returns:
            The result. An example is broken if the model, run again on the final float32 array,
            misclassifies it.

        Raises:
            UserError: if the images, labels or outputs are unfit (probabilities included), the
                answers are not one function of each image
                (:func:`bcgan_tf.attacks.answers.check_answers`), or the model's gradient is
                missing or not finite; or the model cannot be searched in bfloat16.
        """
        searches: list[Any] = []
        if precision != "float32":
            images = np.asarray(as_images(images))
            networks = search_networks(logits_fn, images, precision)
            searches = in_order({None: logits_fn, **networks}, "bfloat16")
        prepared = self.prepare(logits_fn, searches=searches)
        prepared.check_answers(as_images(images))
        return prepared(images, labels, mask=mask, indices=indices, progress=progress)

    def prepare(self, logits_fn: Any, *, searches: Sequence[Any] = ()) -> PreparedAttack:
        """The attack on one model, traced at its first call, for many calls.

        Args:
            logits_fn: the model, as of :meth:`__call__`.
            searches: what it searches with in place of the model, which still decides: each with
                the examples that the one before came near to and left.
        """
        return PreparedAttack(self, logits_fn, searches)

    @property
    def own_lengths(self) -> dict[str, float]:
        """:attr:`lengths`, where the class itself defines them; else none."""
        return self.lengths if "lengths" in vars(type(self)) else {}

    def family(self) -> Hashable:
        """What all attacks that differ in nothing but their own lengths have in common.

        None: of an attack that shares its graph with no other.
        """
        if not self.own_lengths:
            return None
        others = {k: v for k, v in vars(self).items() if k not in self.own_lengths}
        return type(self), *sorted(others.items())

    def _within_graph(self, lengths: Sequence[tf.Tensor]) -> Self:
        """A copy with these float64 scalars for its own lengths, in their order."""
        exact = dict(zip(self.own_lengths, lengths, strict=True))
        rounded = {name: tf.cast(value, tf.float32) for name, value in exact.items()}
        return self._changed(rounded | {"exact": exact})

    def _changed(self, values: dict[str, Any]) -> Self:
        """A copy with other attributes, which are not checked."""
        other = copy.copy(self)
        vars(other).update(values)
        return other


class PreparedAttack:
    """An attack and the model it attacks; called like :class:`Attack`, without the model."""

    def __init__(self, attack: Attack, logits_fn: Any, searches: Sequence[Any] = ()) -> None:
        self.attack = attack
        self._model = logits_fn
        forward = checks.as_logits_fn(logits_fn)
        self._counter = PassCounter()
        used = (searches or [logits_fn])[: 1 if attack.again is None else None]
        self._searches = [self._counter.of(checks.as_logits_fn(search)) for search in used]
        self._predict = Batched(forward, attack.batch_size)
        self._nearest: Batched | None = None
        if searches and attack.minimizes:
            walk = functools.partial(nearest_along_boundary, forward, norm=attack.minimizes)
            self._nearest = Batched(walk, attack.batch_size)
        self._runs: dict[bytes, list[Batched]] = {}

    def of(self, attack: Attack) -> PreparedAttack:
        """An attack of the same :meth:`Attack.family` in the same graph."""
        other = copy.copy(self)
        other.attack = attack
        return other

    def check_answers(self, images: np.ndarray) -> None:
        """See :func:`bcgan_tf.attacks.answers.check_answers`."""
        checks.check_model_input(self._model, images)
        answers.check_answers(self._model, images, self._predict)

    def __call__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        mask: np.ndarray | None = None,
        indices: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> AttackResult:
        """See :meth:`Attack.__call__`."""
        attack = self.attack
        images = np.asarray(as_images(images))
        labels = as_labels(labels, len(images))
        checks.check_model_input(self._model, images)
        if indices is None:
            indices = np.arange(len(images))
        clean_logits = self._predict(images)
        checks.check_logits(clean_logits, labels)
        if not self._runs:
            check_digits(clean_logits)
        masked = masked_classes(clean_logits)
        first, *later = self._of_classes(masked)
        units = logit_units(tf.constant(clean_logits[:, ~masked])).numpy()
        clean_correct = clean_logits.argmax(-1) == labels
        attacked = clean_correct if mask is None else clean_correct & mask
        adversarials, success = images.copy(), np.zeros(len(images), bool)
        searched_again = np.zeros_like(success)
        nearness = np.full(len(images), -np.inf, np.float32)

        def search(
            run: Batched, rows: np.ndarray, round_index: int, report: Callable[[int], None] | None
        ) -> np.ndarray:
            """One round on some examples; returns how near it comes to breaking them."""
            candidates = images[rows]
            lengths = map(np.float64, attack.own_lengths.values())
            if not attack.idle:
                candidates = run(
                    candidates,
                    labels[rows],
                    indices[rows].astype(np.int64),
                    constants=(np.int64(round_index), *lengths),
                    total=len(images),
                    report=report,
                )
            if not np.isfinite(candidates).all():
                raise UserError(
                    f"{attack.name}: the model's gradient is NaN or infinite, so this attack "
                    "cannot judge it; look for a division, log or sqrt of zero in the model"
                )
            if self._nearest is not None:
                candidates = self._nearest(
                    images[rows], labels[rows], candidates, total=len(images)
                )
            adversarials[rows] = attack.project(images[rows], candidates)
            logits = self._predict(adversarials[rows], total=len(images))
            if np.isnan(logits).any():
                raise UserError(f"the model returned NaN logits on images changed by {attack.name}")
            success[rows] = logits.argmax(-1) != labels[rows]
            margin = margins(tf.constant(logits), tf.constant(labels[rows])).numpy()
            # Where all logits are equal, nothing is said to be near.
            never = np.full_like(margin, -np.inf)
            reached = np.divide(margin, units[rows], out=never, where=units[rows] > 0)
            nearness[rows] = np.maximum(nearness[rows], reached)
            return reached

        total = int(attacked.sum())
        for round_index in range(attack.rounds):
            pending = np.flatnonzero(attacked & ~success)
            if not pending.size:
                break

            def report(done: int, base: int = total * (round_index + 1) - pending.size) -> None:
                if progress is not None:
                    progress(base + done, total * attack.rounds, "")

            reached = search(first, pending, round_index, report)
            for run in later:
                assert attack.again is not None
                pending = pending[~success[pending] & (reached > -attack.again)]
                if not pending.size:
                    break
                searched_again[pending] = True
                reached = search(run, pending, round_index, None)
        if progress is not None:
            progress(total * attack.rounds, total * attack.rounds, "")

        linf, l2 = _lengths(images, adversarials)
        return AttackResult(
            attack=attack.name,
            config=attack.config(),
            adversarials=adversarials,
            clean_correct=clean_correct,
            attacked=attacked,
            success=success,
            linf=linf,
            l2=l2,
            uses_gradients=attack.uses_gradients,
            searched_again=searched_again,
            nearness=nearness,
            passes=self._counter.taken(),
        )

    def _of_classes(self, masked: np.ndarray) -> list[Batched]:
        """The attack on each search network without the masked classes, bool ``[K]``.

        Masked classes are no targets and do not count in scales, as if the model lacked them.
        """
        key = masked.tobytes()
        if key not in self._runs:

            def run_on(search: LogitsFn) -> Batched:
                logits_fn = without_classes(search, masked)

                def run(images: Any, labels: Any, indices: Any, number: Any, *lengths: Any) -> Any:
                    attack = self.attack._within_graph(lengths)
                    return attack.run(logits_fn, images, labels, indices, number)

                return Batched(run, self.attack.batch_size)

            self._runs[key] = [run_on(search) for search in self._searches]
        return self._runs[key]


def _lengths(images: np.ndarray, adversarials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linf and L2 of each change in float64, image by image: all at once would fill the memory."""
    linf, l2 = np.zeros(len(images)), np.zeros(len(images))
    for row, (before, after) in enumerate(zip(images, adversarials, strict=True)):
        change = after.astype(np.float64).reshape(1, -1) - before.reshape(1, -1)
        linf[row : row + 1] = np.abs(change).max(axis=1)
        l2[row : row + 1] = np.sqrt(np.square(change).sum(axis=1))
    return linf, l2
