"""What an evaluation is to measure. Loads no TensorFlow, so that the command line can ask it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import Checked, OneOf, Range
from bcgan_tf.settings.kinds import AttackEps, Images, Norm, Repeats, Seed, Suite

# [0, 1] pixels, or the paper's [-1, 1] ones, of which an eps is worth half as much.
UNITS = ("01", "11")
_MOST_SHARDS = 1_000_000
Shard = Annotated[int, Range(1, _MOST_SHARDS)]
# The Linf radii that published results are at, [0, 1] pixel units; digits has none of its own.
DEFAULT_EPS = {"mnist": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255, "digits": 0.1}


@dataclasses.dataclass(frozen=True)
class ThreatModel:
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
class EvaluationConfig(Checked):
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

    eps: AttackEps
    suite: Suite = "standard"
    eps_unit: Annotated[str, OneOf(*UNITS)] = "01"
    norm: Norm = "linf"
    n: Images = 1000
    samples: Repeats | None = None
    shard: tuple[Shard, Shard] = (1, 1)
    diagnose: bool = True
    minimum_perturbation: bool = False
    skip_certified: bool = False
    seed: Seed = 0

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if self.norm == "linf" and max(one.eps for one in self.threat_models("")) > 1:
            yield (
                f"eps is {self.eps:g}, more than the whole range of the pixels; for 0 ... 255 "
                "write a fraction such as 8/255"
            )
        if self.eps == 0 and (self.diagnose and self.whole):
            yield (
                "eps is 0, at which there is nothing to diagnose; choose a larger one, or measure "
                "without a diagnosis (--no-diagnose)"
            )
        if self.skip_certified and self.norm != "linf":
            yield "interval bounds are proved for the norm linf; leave out skip_certified"
        if len(self.shard) != 2 or self.shard[0] > self.shard[1]:
            yield _no_shard("/".join(map(str, self.shard)))

    @property
    def whole(self) -> bool:
        """Whether all images are evaluated at once, not one shard of them."""
        return self.shard[1] == 1

    def threat_models(self, name: str) -> tuple[ThreatModel, ...]:
        """The threat models of the model ``name``: one, or for the paper's suite two."""
        of_one = f"eps {self.eps:.4g} read as of [0, 1] pixels"
        of_two = f"eps {self.eps:.4g} read as of [-1, 1] pixels, {self.eps / 2:.4g} of [0, 1]"
        if self.suite == "paper":
            first = ThreatModel(name, name, self.eps, of_one)
            return first, ThreatModel(name, f"{name}~11", self.eps / 2, of_two)
        if self.eps_unit == "11":
            return (ThreatModel(name, name, self.eps / 2, of_two),)
        return (ThreatModel(name, name, self.eps, ""),)

    def to_dict(self) -> dict[str, Any]:
        """All settings, for JSON; ``shard`` as ``"i/n"``, None for no shard."""
        shard = None if self.whole else "{}/{}".format(*self.shard)
        return dataclasses.asdict(self) | {"shard": shard}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvaluationConfig:
        """What :meth:`to_dict` wrote; other keys are left aside."""
        names = {field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {key: value for key, value in values.items() if key in names}
        found["shard"] = parse_shard(found.get("shard"))
        return cls(**found)


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"2/3"`` as ``(2, 3)``; None is ``(1, 1)``.

    Raises:
        UserError: it is something else, or there is no such shard.
    """
    if text is None:
        return 1, 1
    number, _, shards = str(text).partition("/")
    try:
        found = int(number), int(shards)
    except ValueError:
        found = 0, 0
    if not 1 <= found[0] <= found[1] <= _MOST_SHARDS:
        raise UserError(_no_shard(text))
    return found


def _no_shard(text: str) -> str:
    return f"there is no shard {text[:30]!r}; choose i/n, i from 1 to n, such as 2/8"
