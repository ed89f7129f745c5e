"""The result of one attack on examples, and of its parts together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bcgan_tf.attacks.passes import NONE, Passes
from bcgan_tf.lazy_images import joined_images

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
