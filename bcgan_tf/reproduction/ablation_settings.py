"""What the ablation compares, and its sizes. Loads no TensorFlow, as the command line asks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import Checked, Range, parsed, settings_of
from bcgan_tf.settings.kinds import Epochs, OptionalEpochs, SomeImages, Threshold, Width

# The defences with boundary samples inside robust training.
DEFENSES = ("bcgan-at", "bcgan-trades", "bcgan-ibp")
# What each arm changes of its defence. The first three are controls.
ARMS: dict[str, dict[str, Any]] = {
    "none": {"fakes": "none"},
    "duplicates": {"fakes": "duplicates"},
    "plain": {"fakes": "plain"},
    "boundary": {"fakes": "boundary"},
    "top2": {"fakes": "boundary", "gan.boundary_loss": "top2"},
    # The boundary of the network that is becoming robust, instead of that of the clean one.
    "refreshed": {"fakes": "boundary", "refresh_epochs": 3},
}
# The GAN's further epochs cost nearly as much again: one defence shows whether they are worth it.
_ONLY_OF = {"refreshed": ("bcgan-at",)}
CONTROLS = ("none", "duplicates", "plain")
MOST_SEEDS = 10
# Parts of a GAN's epochs, where those are not its preset's: until beta rises, and its rise.
_DELAY, _WARMUP = 0.4, 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationSettings(Checked):
    """The sizes of the ablation.

    Attributes:
        seeds: trainings of each arm, with one seed after the other; at least 2, for an interval.
        width: of the strided network that is trained.
        threshold: of its pixels; see :func:`bcgan_tf.networks.strided_cnn.strided_cnn`.
        classifier_epochs: of the training on clean data that comes first.
        epochs: of robust training with extra rows. Without them a step costs half, and there are
            twice as many; interval bounds cost a fraction of PGD, and IBP has twice as many.
        gan_epochs: of the GAN; 0: as many as its preset has.
        ramp_share: part of the epochs over which eps rises.
        n: test images for the suite ``standard``; clean and certified accuracy are of all.
    """

    seeds: Annotated[int, Range(2, MOST_SEEDS)] = 3
    width: Width = 1.0
    threshold: Threshold = 0.0
    classifier_epochs: Epochs = 2
    epochs: Epochs = 10
    gan_epochs: OptionalEpochs = 0
    ramp_share: Annotated[float, Range(0, 0.8)] = 0.3
    n: SomeImages = 1000

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        return dataclasses.asdict(self)

    def options(self, defense: str, arm: str) -> dict[str, Any]:
        """What an arm changes of the preset of its defence."""
        epochs = self.epochs * (2 if arm == "none" else 1) * (2 if defense == "bcgan-ibp" else 1)
        changes = {**ARMS[arm], "epochs": epochs, "ramp_epochs": self.ramp_share * epochs}
        if defense != "bcgan-ibp":  # whose bounds need float32
            changes["dtype"] = "mixed_bfloat16"
        if self.gan_epochs and ARMS[arm]["fakes"] in ("plain", "boundary"):
            changes["gan.gan_epochs"] = self.gan_epochs
        if self.gan_epochs and ARMS[arm]["fakes"] == "boundary":
            changes |= {
                "gan.delay_epochs": _DELAY * self.gan_epochs,
                "gan.warmup_epochs": _WARMUP * self.gan_epochs,
            }
        return changes


def arms_of(defense: str) -> tuple[str, ...]:
    """The arms that are compared of a defence."""
    return tuple(arm for arm in ARMS if defense in _ONLY_OF.get(arm, DEFENSES))


def ablation_settings(options: Mapping[str, Any] | None = None) -> AblationSettings:
    """The settings, some of them changed, as numbers or as text.

    Raises:
        UserError: no such setting, or a value out of range.
    """
    known = settings_of(AblationSettings)
    return AblationSettings(**parsed("the ablation", known, options or {}))


def check_defenses(names: Sequence[str]) -> tuple[str, ...]:
    """The defences in their order; all of them where none is named.

    Raises:
        UserError: one has no boundary samples inside its training.
    """
    for name in names:
        if name not in DEFENSES:
            raise UserError(
                f"the ablation has no defense {name!r}; choose from {', '.join(DEFENSES)}"
            )
    return tuple(name for name in DEFENSES if name in names or not names)
