"""What the ablation compares, and its sizes. Loads no TensorFlow, as the command line asks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import Checked, Range, parsed, setting, settings_of
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
    """The sizes of the ablation."""

    seeds: Annotated[int, Range(2, MOST_SEEDS)] = setting(
        3, "Trainings of each arm, with one seed after the other; at least 2, for an interval."
    )
    width: Width = setting(1.0, "Width of the strided network that is trained.")
    threshold: Threshold = setting(0.0, "The network sets pixels this near to 0 or 1 to 0 or 1.")
    classifier_epochs: Epochs = setting(2, "Epochs of the training on clean data that comes first.")
    epochs: Epochs = setting(
        10,
        "Epochs of robust training with extra examples. Twice as many without them, where a "
        "step costs half; and twice as many with interval bounds, which cost a fraction of PGD.",
    )
    gan_epochs: OptionalEpochs = setting(0, "Epochs of the GAN; 0: as many as its preset has.")
    ramp_share: Annotated[float, Range(0, 0.8)] = setting(
        0.3, "Part of the epochs over which eps rises."
    )
    n: SomeImages = setting(
        1000, "Test images for the suite standard; clean and certified accuracy are of all."
    )

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
    if unknown := [repr(name) for name in names if name not in DEFENSES]:
        raise UserError(
            f"the ablation has no defense {', '.join(unknown)}; choose from {', '.join(DEFENSES)}"
        )
    return tuple(name for name in DEFENSES if name in names or not names)
