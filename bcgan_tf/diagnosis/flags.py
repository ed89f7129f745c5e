"""A red flag of gradient masking: one check, its number, its threshold."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Grade = Literal["evidence", "notice"]

# A notice decides the verdict beyond this share of the images: 5 points.
DECISIVE = 0.05


@dataclasses.dataclass(frozen=True)
class Flag:
    """The outcome of one check.

    Attributes:
        check: its name, such as ``"logit scale"``.
        grade: ``"evidence"`` decides the verdict when raised; a ``"notice"`` does so only where
            its value is above 5 points.
        ran: whether the check could be run; if not, ``text`` says what it lacks.
        raised: whether the flag is up.
        value: what was measured, mostly a share of the images in [0, 1].
        threshold: what ``value`` was compared with.
        text: one line for people, with the numbers.
        in_points: whether ``value`` is a difference of accuracies, so that a notice can decide.
    """

    check: str
    grade: Grade
    ran: bool
    raised: bool
    value: float | None
    threshold: float | None
    text: str
    in_points: bool = True

    @property
    def decides(self) -> bool:
        """Whether this flag alone denies a verdict of robustness."""
        large = self.in_points and self.value is not None and above(self.value, DECISIVE)
        return self.raised and (self.grade == "evidence" or large)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"decides": self.decides}


def not_run(check: str, grade: Grade, reason: str) -> Flag:
    """The flag of a check that could not be run."""
    return Flag(check, grade, False, False, None, None, f"not run: {reason}")


def above(value: float, threshold: float) -> bool:
    """``value > threshold`` for shares, which are sums of fractions and miss by rounding."""
    return value - threshold > 1e-9


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of shares in percentage points with one decimal."""
    return f"{100 * difference:.1f} points"
