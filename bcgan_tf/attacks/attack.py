"""The base class of attacks: checks, rounds on the survivors, a last run that judges success."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import answers, checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.boundary_walk import nearest_along_boundary
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.logits import check_digits, masked_classes, without_classes
from bcgan_tf.attacks.passes import NONE, PassCounter, Passes
from bcgan_tf.attacks.primitives import logit_units, margins
from bcgan_tf.attacks.search_network import in_order, search_networks
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import joined_images
from bcgan_tf.progress import Progress
from bcgan_tf.settings.fields import Checked, Range
from bcgan_tf.settings.kinds import Batch, Precision

# The arrays of a result that have one entry for each example.
PER_EXAMPLE = (
    "clean_correct", "attacked", "success", "linf", "l2", "searched_again", "nearness",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """The result of one attack on ``N`` examples.

    Attributes:
        attack: name of the attack.
        config: its settings, JSON-able.
        adversarials: float32 ``[N, ...]`` in [0, 1]. Where the attack failed: the last candidate
            (CW: the clean image). Where the clean image was already misclassified: that image.
            An evaluation that keeps its results in a folder reads them from there
            (:class:`bcgan_tf.lazy_images.LazyImages`), and has the image itself where it failed.
        clean_correct: bool ``[N]``, the clean image is classified right.
        attacked: bool ``[N]``: was attacked: right, and not left out by the caller.
        success: bool ``[N]``, ``attacked`` and the model is wrong on ``adversarials``.
        linf: float64 ``[N]``, largest change of a pixel.
        l2: float64 ``[N]``, Euclidean norm of the change.
        uses_gradients: whether the attack follows the model's gradients.
        searched_again: bool ``[N]``: a search in lower precision came near without breaking it, so
            that it was searched again in float32.
        nearness: float32 ``[N]``: the largest margin (the largest wrong logit minus the true one)
            that the model has on a candidate, in units of the distance between the largest and the
            third-largest logit of the image; minus infinity where it was not attacked.
        passes: through the networks that it searched with, of all examples together.
    """

    attack: str
    config: dict[str, Any]
    adversarials: np.ndarray
    clean_correct: np.ndarray
    attacked: np.ndarray
    success: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    uses_gradients: bool = True
    searched_again: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    nearness: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    passes: Passes = NONE

    def __post_init__(self) -> None:
        if self.searched_again is None:  # no example was
            vars(self)["searched_again"] = np.zeros_like(self.success)
        if self.nearness is None:  # not known
            vars(self)["nearness"] = np.full(self.success.shape, -np.inf, np.float32)

    @property
    def n(self) -> int:
        """Number of examples, the misclassified ones included."""
        return len(self.clean_correct)

    @property
    def robust(self) -> np.ndarray:
        """bool ``[N]``: classified right, and not broken by this attack."""
        return self.clean_correct & ~self.success

    @property
    def clean_accuracy(self) -> float:
        """Share of all examples whose clean image is classified right."""
        return float(self.clean_correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* examples that are classified right and survive the attack.

        Where the caller left examples out, because another attack broke them, the attack alone
        would reach at most this accuracy; the worst case over all attacks is what counts.
        """
        return float(self.robust.mean())

    @property
    def success_rate(self) -> float:
        """Share of the attacked examples that were broken; NaN without any."""
        attacked = int(self.attacked.sum())
        return float(self.success.sum() / attacked) if attacked else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Settings and summary, JSON-able, without the arrays; norms are over the successes."""

        def summary(norms: np.ndarray) -> dict[str, float] | None:
            if not self.success.any():
                return None
            broken = norms[self.success]
            return {
                "mean": float(broken.mean()),
                "median": float(np.median(broken)),
                "max": float(broken.max()),
            }

        return {
            "attack": self.attack,
            "config": dict(self.config),
            "n": self.n,
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": self.robust_accuracy,
            "success_rate": None if math.isnan(self.success_rate) else self.success_rate,
            "attacked": int(self.attacked.sum()),
            "successes": int(self.success.sum()),
            "searched_again": int(self.searched_again.sum()),
            "passes": self.passes._asdict(),
            "linf": summary(self.linf),
            "l2": summary(self.l2),
        }


def joined_results(parts: Sequence[AttackResult], order: Any = slice(None)) -> AttackResult:
    """One attack's result on all examples, from its results on parts of them.

    Args:
        parts: at least one, all of the same attack.
        order: of the examples, positions among those of all parts one after the other.
    """
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts])[order] for name in PER_EXAMPLE
    }
    whole["adversarials"] = joined_images([part.adversarials for part in parts], order)
    passes = sum((part.passes for part in parts), NONE)
    return dataclasses.replace(parts[0], **whole, passes=passes)


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
