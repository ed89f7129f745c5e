"""What an assessment is to measure. Loads no TensorFlow, so that the command line can ask it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bcgan_tf.errors import UserError

# The names of bcgan_tf.attacks.suites.SUITES, for those who do not load TensorFlow.
SUITES = ("standard", "plus", "rand", "paper")
# [0, 1] pixels, or the paper's [-1, 1] ones, of which an eps is worth half as much.
UNITS = ("01", "11")
NORMS = ("linf", "l2")
# The Linf radii that published results are at, [0, 1] pixel units; digits has none of its own.
DEFAULT_EPS = {"mnist": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255, "digits": 0.1}


@dataclasses.dataclass(frozen=True)
class Reading:
    """One threat model that the settings stand for.

    Attributes:
        name: the model's.
        label: the model's name, or with ``~11`` where it is the second reading of one eps: what
            stages and files are called.
        eps: radius in [0, 1] pixel units.
        text: which pixels the given eps was taken to be of; "" where it was [0, 1] all along.
    """

    name: str
    label: str
    eps: float
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssessmentSettings:
    """A suite, a threat model, and what else is to be measured.

    Args:
        eps: radius, in the pixels that ``eps_unit`` says.
        suite: one of :data:`SUITES`. ``"paper"`` is run with both readings of ``eps``, because
            the paper does not say which pixels its eps is of.
        eps_unit: ``"01"`` for pixels in [0, 1], ``"11"`` for [-1, 1].
        norm: ``"linf"`` or ``"l2"``.
        n: images, drawn from the test set with seed 0; 0: all, in their order.
        samples: calls of the model to average; None: 20 for one that draws random numbers.
        shard: ``(i, n)``: every n-th image from the i-th on. A shard is attacked and no more;
            what needs all images is done when the shards are merged.
        diagnose: look for gradient masking, and give a verdict.
        minimum_perturbation: search the smallest perturbation of each image.
        skip_certified: attack only what interval bounds do not prove (Linf).
        seed: of all draws.

    Raises:
        UserError: a setting is out of range.
    """

    eps: float
    suite: str = "standard"
    eps_unit: str = "01"
    norm: str = "linf"
    n: int = 1000
    samples: int | None = None
    shard: tuple[int, int] = (1, 1)
    diagnose: bool = True
    minimum_perturbation: bool = False
    skip_certified: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("suite", SUITES), ("eps_unit", UNITS), ("norm", NORMS)):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise UserError(f"eps is {self.eps!r}; it must be a number of at least 0")
        largest = max(reading.eps for reading in self.readings(""))
        if self.norm == "linf" and largest > 1:
            raise UserError(
                f"eps is {self.eps:g}, more than the whole range of the pixels; for 0 ... 255 "
                "write a fraction such as 8/255"
            )
        if self.eps == 0 and (self.diagnose and self.whole):
            raise UserError(
                "eps is 0, at which there is nothing to diagnose; choose a larger one, or measure "
                "without a diagnosis (--no-diagnose)"
            )
        if self.skip_certified and self.norm != "linf":
            raise UserError(
                "interval bounds are proved for the norm linf; leave out skip_certified"
            )
        if self.n < 0:
            raise UserError(f"n is {self.n}; give the number of images, or 0 for all")
        number, shards = self.shard
        if not 1 <= number <= shards:
            raise UserError(f"there is no shard {number}/{shards}; count from 1/{shards}")

    @property
    def whole(self) -> bool:
        """Whether all images are evaluated at once, not one shard of them."""
        return self.shard[1] == 1

    def readings(self, name: str) -> tuple[Reading, ...]:
        """The threat models of the model ``name``: one, or for the paper's suite two."""
        of_one = f"eps {self.eps:.4g} read as of [0, 1] pixels"
        of_two = f"eps {self.eps:.4g} read as of [-1, 1] pixels, {self.eps / 2:.4g} of [0, 1]"
        if self.suite == "paper":
            first = Reading(name, name, self.eps, of_one)
            return first, Reading(name, f"{name}~11", self.eps / 2, of_two)
        if self.eps_unit == "11":
            return (Reading(name, name, self.eps / 2, of_two),)
        return (Reading(name, name, self.eps, ""),)

    def to_dict(self) -> dict[str, Any]:
        """All settings, for JSON; ``shard`` as ``"i/n"``, None for no shard."""
        shard = None if self.whole else "{}/{}".format(*self.shard)
        settings = dataclasses.asdict(self) | {"shard": shard}
        if not self.skip_certified:  # runs from before it was known go on
            del settings["skip_certified"]
        return settings

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AssessmentSettings:
        """What :meth:`to_dict` wrote; other keys are left aside."""
        names = {field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {key: value for key, value in values.items() if key in names}
        found["shard"] = parse_shard(found.get("shard"))
        return cls(**found)


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"2/3"`` as ``(2, 3)``; None is ``(1, 1)``.

    Raises:
        ValueError: it is something else.
    """
    if text is None:
        return 1, 1
    number, slash, shards = text.partition("/")
    if not slash:
        raise ValueError(text)
    return int(number), int(shards)
