"""``compare``: evaluations of several models on the same images, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.settings.fields import refuse
from bcgan_tf.statistics import PairedComparison, compare_paired


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations by the models' names; ``print`` shows them as a table.

    Attributes:
        evaluations: at least two, on the same images and within the same threat model.
        paired: the robust accuracy of each model but the first against the first one's.
    """

    evaluations: Mapping[str, Evaluation]
    paired: Mapping[str, PairedComparison]

    def __str__(self) -> str:
        rows = [("model", "clean accuracy", "robust accuracy", "verdict")]
        for name, found in self.evaluations.items():
            verdict = getattr(found, "verdict", None)
            clean, robust = _share(found, found.clean_correct), _share(found, found.worst_case)
            rows.append((name, clean, robust, verdict.kind if verdict else "none"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        first = next(iter(self.evaluations))
        lines += [_difference(name, first, one) for name, one in self.paired.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: ``models`` and ``paired``, each by name."""
        return {
            "models": {name: found.to_dict() for name, found in self.evaluations.items()},
            "paired": {name: dataclasses.asdict(one) for name, one in self.paired.items()},
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Compares models by what each withstands, image by image.

    Args:
        evaluations: results of :func:`bcgan_tf.evaluate` by the models' names, of the same images,
            suite, norm and eps; the others are compared with the first.

    Returns:
        All accuracies with their 95 % intervals, and of each model but the first the difference of
        its robust accuracy with the 95 % interval and McNemar's exact p-value.

    Raises:
        UserError: fewer than two evaluations, or they differ in images or threat model; all
            differences are named.

    Example:
        >>> print(bcgan_tf.compare({"original": before, "hardened": after}))
    """
    if len(evaluations) < 2:
        raise UserError("there are fewer than two evaluations; give at least two, by name")
    (first_name, first), *others = evaluations.items()
    refuse(
        f"{name} and {first_name} differ in {', '.join(wrong)}; evaluate both alike"
        for name, other in others
        if (wrong := _differences(first, other))
    )
    paired = {name: compare_paired(first.worst_case, other.worst_case) for name, other in others}
    return Comparison(dict(evaluations), paired)


def _differences(one: Evaluation, other: Evaluation) -> list[str]:
    same_images = (
        one.identity.get("data") == other.identity.get("data")
        and np.array_equal(one.indices, other.indices)
        and np.array_equal(one.labels, other.labels)
    )
    return [
        *([] if same_images else ["their images"]),
        *(
            f"{name} ({a} and {b})"
            for name in ("eps", "norm", "suite")
            if (a := getattr(other, name)) != (b := getattr(one, name))
        ),
    ]


def _share(found: Evaluation, held: np.ndarray) -> str:
    low, high = found.interval95(held)
    return f"{100 * held.mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _difference(name: str, first: str, one: PairedComparison) -> str:
    low, high = one.interval
    return (
        f"{name} against {first}: robust accuracy {100 * one.difference:+.1f} points "
        f"({100 * low:+.1f} to {100 * high:+.1f}), p = {one.p_value:.2g} (McNemar's exact test, "
        f"{one.n:,} images: {one.gained:,} gained, {one.lost:,} lost)"
    )
