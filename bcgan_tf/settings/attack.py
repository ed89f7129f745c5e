"""What an evaluation is to measure. Loads no TensorFlow, so that the command line can ask it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from bcgan_tf.settings.fields import Checked, OneOf, setting
from bcgan_tf.settings.kinds import (
    RADIUS,
    AttackEps,
    Images,
    Norm,
    Precision,
    Repeats,
    Seed,
    Shard,
    Suite,
)


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


NO_SHARDS_OF_FAST = (
    "the suite fast decides by all images whether standard must follow; attack all images at once, "
    "or shards with standard"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Checked):
    """A suite, a threat model, and what else is to be measured."""

    eps: AttackEps = setting(
        help="Radius, a number or a fraction such as 8/255; by default for Linf.",
        by_dataset=RADIUS,
    )
    suite: Suite = setting(
        "standard",
        "standard: AutoAttack's; plus: its larger one; fast: few gradients, and standard where "
        "they mislead; rand: for models that draw random numbers; paper: FGSM, PGD and CW as in "
        "the paper, with eps in both pixel units, because the paper does not say which it means.",
    )
    eps_unit: Annotated[str, OneOf("01", "11")] = setting(
        "01", "Pixels that eps is of: in [0, 1], or in [-1, 1] as in the paper."
    )
    norm: Norm = setting("linf", "Norm that eps is of.")
    n: Images = setting(1000, "Test images, drawn with seed 0, the same for every model; 0: all.")
    samples: Repeats | None = setting(
        None, "Calls of a model to average; none: 20 if it draws random numbers, else 1."
    )
    shard: Shard | None = setting(
        None, "Attack every n-th image from the i-th on only; `attack merge` joins the shards."
    )
    diagnose: bool = setting(True, "Look for gradient masking, and give a verdict.")
    minimum_perturbation: bool = setting(
        False, "Search the smallest perturbation of each image; takes minutes."
    )
    skip_certified: bool = setting(
        False, "Do not attack images that interval bounds prove (Linf): the same accuracy, sooner."
    )
    precision: Precision | None = setting(
        None,
        "Number format in which the attacks search. auto: bfloat16 where it is faster here, for "
        "200 images or "
        "more, and float32 after it where it misled. None: auto, for a shard float32. The model "
        "itself decides every success.",
    )
    seed: Seed = setting(0, "Seed of all draws.")

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
        if self.suite == "fast" and not self.whole:
            yield NO_SHARDS_OF_FAST
        if self.skip_certified and self.norm != "linf":
            yield "interval bounds are proved for the norm linf; leave out skip_certified"

    @property
    def whole(self) -> bool:
        """Whether all images are evaluated at once, not one shard of them."""
        return self.shard is None or self.shard.shards == 1

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
