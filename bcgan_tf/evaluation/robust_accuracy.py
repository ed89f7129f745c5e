"""Clean and robust accuracy: the worst case over attacks, with its interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bcgan_tf.attacks import Attack, AttackResult
from bcgan_tf.data.dataset import Split
from bcgan_tf.errors import UserError

# The standard normal quantile of 97.5 %.
_Z95 = 1.959963984540054


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion.

    Unlike ``p +- 1.96 sqrt(p(1-p)/n)`` it stays in [0, 1], and keeps a width at 0 and at ``n``.

    Args:
        successes: 0 ... ``n``.
        n: number of trials, at least 1.

    Returns:
        The lower and upper end, in [0, 1].

    Reference: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"{successes} of {n} is no proportion; give 0 <= successes <= n, n >= 1")
    share, z2 = successes / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the end is exact in theory; rounding would leave 1e-18.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A classifier under several attacks, on the same ``N`` images.

    Attributes:
        results: one per attack, in the order given.
    """

    results: tuple[AttackResult, ...]

    @property
    def n(self) -> int:
        """Number of images, the misclassified ones included."""
        return self.results[0].n

    @property
    def clean_correct(self) -> np.ndarray:
        """bool ``[N]``: the clean image is classified right."""
        return np.logical_and.reduce([result.clean_correct for result in self.results])

    @property
    def worst_case(self) -> np.ndarray:
        """bool ``[N]``: classified right, and still so after *every* attack."""
        return np.logical_and.reduce([result.robust for result in self.results])

    @property
    def clean_accuracy(self) -> float:
        """Share of the images that are classified right."""
        return float(self.clean_correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* images that are right and survive every attack (per-image worst case)."""
        return float(self.worst_case.mean())

    def interval95(self, survived: np.ndarray | None = None) -> tuple[float, float]:
        """Wilson's 95 % interval of an accuracy measured here.

        Args:
            survived: bool ``[N]``; None: the worst case. Others: ``evaluation.clean_correct``, or
                ``result.robust`` of one attack.

        Returns:
            The lower and upper end, in [0, 1].
        """
        survived = self.worst_case if survived is None else survived
        return wilson_interval(int(np.count_nonzero(survived)), len(survived))

    @property
    def note(self) -> str:
        """How many images, and what that allows to say."""
        low, high = self.interval95()
        return (
            f"{self.n:,} images: the 95 % interval of the robust accuracy is {100 * low:.1f} to "
            f"{100 * high:.1f} %; smaller differences may be chance"
        )

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able, without the arrays."""
        return {
            "n": self.n,
            "note": self.note,
            "clean_accuracy": self.clean_accuracy,
            "clean_interval95": list(self.interval95(self.clean_correct)),
            "robust_accuracy": self.robust_accuracy,
            "robust_interval95": list(self.interval95()),
            "attacks": [
                result.to_dict() | {"interval95": list(self.interval95(result.robust))}
                for result in self.results
            ],
        }


def evaluate(
    model: Any,
    data: Split | tuple[np.ndarray, np.ndarray],
    attacks: Sequence[Attack],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Runs every attack on the same images, white-box, with the true labels.

    Args:
        model: a Keras model (called with ``training=False``) or a callable; float32 images in
            [0, 1] to logits ``[B, K]``.
        data: a split, or (float32 images in [0, 1], int labels).
        attacks: at least one.
        progress: called with (done, to do) over all attacks, in examples times restarts.

    Returns:
        The accuracies, each attack's result, and the per-example worst case.

    Raises:
        UserError: if there is no attack, or an attack refuses the model, images or labels.

    Example:
        >>> evaluation = evaluate(classifier, dataset.test.take(1000), [FGSM(0.1), PGD(0.1)])
        >>> evaluation.robust_accuracy, evaluation.interval95()
    """
    if not attacks:
        raise UserError("no attack was given; robust accuracy without one says nothing")
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UserError(f"the data has {len(data)} parts; pass (images, labels) or a split")
        images, labels = data
    else:
        images, labels = data.scaled(), data.labels

    rounds = [attack.rounds for attack in attacks]
    results: list[AttackResult] = []
    for position, attack in enumerate(attacks):
        results.append(
            attack(model, images, labels, progress=_part_of_all(progress, rounds, position))
        )
    return Evaluation(tuple(results))


def _part_of_all(
    progress: Callable[[int, int], None] | None, rounds: list[int], position: int
) -> Callable[[int, int], None] | None:
    """One attack's progress as progress through all of them, each as long as its rounds."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        each = total // rounds[position]
        progress(each * sum(rounds[:position]) + done, each * sum(rounds))

    return report
