"""Clean and robust accuracy: the worst case over attacks, with its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.lazy_images import LazyImages
from bcgan_tf.statistics import wilson_interval

# Rounding of float32 images may exceed an eps by this much.
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A classifier under several attacks, on the same ``N`` images.

    Attributes:
        results: one per attack, in the order in which they ran.
        labels: int64 ``[N]``, the true classes.
        indices: int64 ``[N]``, each image's position in the set that was to be evaluated: one
            shard of an evaluation holds some of them.
        eps: radius of the threat model, in [0, 1] pixel units: an adversarial example counts only
            within it. None: whatever the attacks found counts.
        norm: ``"linf"`` or ``"l2"``, of ``eps``.
        suite: name of the suite, None for attacks of the caller's own.
        eot_samples: calls of the model that were averaged (expectation over transformation); 1 for
            a deterministic model.
        seconds: each attack's time, summed over resumed tries and shards.
        total: images of the whole set, of which this may be a shard.
        identity: of the model and of the whole data
            (:func:`bcgan_tf.evaluation.state.fingerprint`).
        precision: ``"float32"`` or ``"bfloat16"``: that the attacks of the suite searched in. What
            a search in bfloat16 came near to was searched again in float32, and a last attack is in
            float32. The model decided every success.
        fallback: with what a cheap search was followed, and why; None where it was not.
        certified: bool ``[N]``, images that were not attacked because it is proved that nothing
            within ``eps`` changes their right answer; None where all were to be attacked.
    """

    results: tuple[AttackResult, ...]
    labels: np.ndarray
    indices: np.ndarray
    eps: float | None = None
    norm: str = "linf"
    suite: str | None = None
    eot_samples: int = 1
    seconds: tuple[float, ...] = ()
    total: int | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    certified: np.ndarray | None = None
    precision: str = "float32"
    fallback: str | None = None

    @property
    def n(self) -> int:
        """Number of images, the misclassified ones included."""
        return self.results[0].n

    @property
    def clean_correct(self) -> np.ndarray:
        """bool ``[N]``: the clean image is classified right."""
        return np.logical_and.reduce([result.clean_correct for result in self.results])

    def broken_by(self, result: AttackResult, eps: float | None = None) -> np.ndarray:
        """bool ``[N]``: broken by one attack, within ``eps`` (None: within the threat model's)."""
        eps = self.eps if eps is None else eps
        if eps is None:
            return result.success
        length = result.linf if self.norm == "linf" else result.l2
        return result.success & (length <= eps * (1 + _TOLERANCE) + _TOLERANCE)

    def survivors(self, eps: float | None = None) -> np.ndarray:
        """bool ``[N]``: right, and not broken within ``eps`` (None: within the threat model's)."""
        broken = [self.broken_by(result, eps) for result in self.results]
        return self.clean_correct & ~np.logical_or.reduce(broken)

    @property
    def worst_case(self) -> np.ndarray:
        """bool ``[N]``: classified right, and still so after *every* attack."""
        return self.survivors()

    @property
    def clean_accuracy(self) -> float:
        """Share of the images that are classified right."""
        return float(self.clean_correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* images that are right and survive every attack (per-image worst case)."""
        return float(self.worst_case.mean())

    @property
    def adversarials(self) -> Any:
        """float32 ``[N, ...]``: for each broken image what broke it; the last candidate else.

        :class:`bcgan_tf.lazy_images.LazyImages` where those of the attacks are; they hold no
        candidates, but the image itself.
        """
        last = self.results[-1].adversarials

        def read(rows: np.ndarray) -> np.ndarray:
            best = np.array(last[rows])
            for result in reversed(self.results):
                broken = self.broken_by(result)[rows]
                if broken.any():
                    best[broken] = result.adversarials[rows[broken]]
            return best

        if isinstance(last, LazyImages):
            return LazyImages(read, last.shape)
        return read(np.arange(self.n))

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

    def by_class(self, class_names: Sequence[str] = ()) -> dict[str, list[Any]]:
        """The classes that occur: their ``names``, and how many images of each there are.

        Args:
            class_names: of all classes; without one, a class is called by its number.

        Returns:
            JSON-able lists, one entry a class: beside the names ``n``, of all images, ``clean``, of
            those that are right, and ``robust``, of those that stay right under every attack.
        """
        classes = np.unique(self.labels)

        def counts(rows: np.ndarray) -> list[int]:
            return np.bincount(self.labels[rows], minlength=classes[-1] + 1)[classes].tolist()

        return {
            "names": [
                str(class_names[i]) if i < len(class_names) else str(i) for i in classes.tolist()
            ],
            "n": counts(np.ones(self.n, bool)),
            "clean": counts(self.clean_correct),
            "robust": counts(self.worst_case),
        }

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able, without the arrays.

        Of each attack ``attacked`` and ``broken`` are counts, and ``left`` is the accuracy that
        the attacks up to it leave. ``not_attacked``, where certified images were left out, is
        their number.
        """
        left, attacks = self.clean_correct, []
        for position, result in enumerate(self.results):
            broken = self.broken_by(result)
            left = left & ~broken
            attacks.append(
                {
                    **result.to_dict(),
                    "broken": int(broken.sum()),
                    "interval95": list(self.interval95(result.clean_correct & ~broken)),
                    "left": float(left.mean()),
                    "left_interval95": list(self.interval95(left)),
                    "seconds": self.seconds[position] if self.seconds else None,
                }
            )
        return {
            "suite": self.suite,
            "eps": self.eps,
            "norm": self.norm,
            "n": self.n,
            "samples": self.eot_samples,
            "precision": self.precision,
            **({} if self.fallback is None else {"fallback": self.fallback}),
            "note": self.note,
            "clean_accuracy": self.clean_accuracy,
            "clean_interval95": list(self.interval95(self.clean_correct)),
            "robust_accuracy": self.robust_accuracy,
            "robust_interval95": list(self.interval95()),
            "attacks": attacks,
            **({} if self.certified is None else {"not_attacked": int(self.certified.sum())}),
        }
