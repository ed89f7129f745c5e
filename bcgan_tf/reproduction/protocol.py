"""What is measured of each row of the paper's tables, at which eps, on how many images.

Loads no TensorFlow, so that the command line can ask it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper
from bcgan_tf.settings.fields import Checked, Range, parsed, setting, settings_of
from bcgan_tf.settings.kinds import (
    RADIUS,
    Images,
    LearningRate,
    Repeats,
    SomeImages,
    Steps,
    TrainingEps,
)

# The paper's rows, and the stronger baseline that it lacks.
ROWS = (*paper.ROWS, "trades")
PRESETS = ("quick", "paper")
DATASETS = (*paper.FGSM_EPS, "digits")
# The paper has no digits: eps that leave a trained network something to lose.
FGSM_EPS = {**paper.FGSM_EPS, "digits": (RADIUS["digits"], 2 * RADIUS["digits"])}
_PGD_STEPS = {**paper.PGD_STEPS, "digits": 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol(Checked):
    """The evaluations of a table, and their sizes; 0 images are all of the test set.

    Smaller sets of images are drawn with seed 0.
    """

    fgsm_eps: tuple[TrainingEps, TrainingEps] = setting(
        help="The paper's two radii of FGSM, in its own pixel unit, which it does not state.",
        by_dataset=FGSM_EPS,
    )
    pgd_steps: Steps = setting(
        help="Of PGD, from one random start, at the larger of the two radii: the paper states "
        "the steps, and neither eps, step size nor restarts.",
        by_dataset=_PGD_STEPS,
    )
    eps: TrainingEps = setting(
        help="Radius of the suite standard, Linf in [0, 1] pixel units.", by_dataset=RADIUS
    )
    n: Images = setting(0, "Images for clean accuracy, FGSM and PGD.")
    cw_n: Images = setting(1000, "Images for Carlini-Wagner L2.")
    cw_steps: Steps = setting(200, "Its steps, for each constant tried.")
    cw_search_steps: Repeats = setting(9, "Constants tried.")
    cw_learning_rate: LearningRate = setting(0.05, "Of its Adam.")
    standard_n: Images = setting(1000, "Images for the suite and its diagnosis.")
    rho_n: Images = setting(1000, "Images for Table 2.")
    defended_n: SomeImages = setting(200, "Images for Defense-GAN, as many of each class.")
    defended_cw_n: SomeImages = setting(100, "Of these, for Carlini-Wagner.")
    white_box_n: SomeImages = setting(
        50, "Of these, for the attack through Defense-GAN's search (BPDA)."
    )
    white_box_steps: Steps = setting(20, "PGD's steps in it.")
    eot_samples: Repeats = setting(3, "Searches that each of its gradients is averaged over.")
    answers: Annotated[int, Range(2, 10_000)] = setting(
        3, "Fresh searches that each adversarial example must survive."
    )
    defended_rho_n: Images = setting(
        10, "Of these, for Table 2, through a search with fixed starts; 0: not run."
    )

    def radii(self) -> dict[str, dict[str, float]]:
        """Pixel unit to column (``"fgsm-1"``, ``"fgsm-2"``, ``"pgd"``) to eps in [0, 1] pixels."""
        small, large = self.fgsm_eps
        return {
            unit: {"fgsm-1": small * worth, "fgsm-2": large * worth, "pgd": large * worth}
            for unit, worth in paper.UNITS.items()
        }


# The residual network takes ten times as long as the small one, and CW and Table 2 need hundreds of
# gradients an image of every row (the suite does so of robust ones only).
_CIFAR_QUICK = {"cw_n": 200, "rho_n": 200}
_PAPER: dict[str, Any] = {
    "cw_steps": 1000,
    "cw_learning_rate": 0.01,
    "defended_n": 1000,
    "defended_cw_n": 1000,
    "white_box_n": 100,
    "white_box_steps": 100,
    "eot_samples": 20,
}


def protocol(
    dataset: str, preset: str = "quick", options: Mapping[str, Any] | None = None
) -> Protocol:
    """The protocol of a data set and a preset.

    Args:
        dataset: one of :data:`DATASETS`.
        preset: ``"quick"``: hours on two cores for a whole table; ``"paper"``: CW with 1,000
            steps of 0.01, and more images where quick has a part.
        options: settings to change, as numbers or as text; ``fgsm_eps`` cannot be.

    Raises:
        UserError: no such data set or setting, or a value out of range.
    """
    if dataset not in DATASETS:
        raise UserError(
            f"the paper's tables have no data set {dataset!r}; choose one of {', '.join(DATASETS)}"
        )
    settings: dict[str, Any] = {}
    if preset == "paper":
        settings = dict(_PAPER)
    elif dataset == "cifar10":
        settings = dict(_CIFAR_QUICK)
    known = {name: setting for name, setting in settings_of(Protocol).items() if not setting.many}
    settings |= parsed("the protocol", known, options or {})
    defaults = {
        name: entry.by_dataset[dataset]
        for name, entry in settings_of(Protocol).items()
        if entry.by_dataset
    }
    return Protocol(**{**defaults, **settings})


def check_rows(rows: Sequence[str]) -> tuple[str, ...]:
    """The rows in the table's order; all of them where none is named.

    Raises:
        UserError: there is no such row.
    """
    for row in rows:
        if row not in ROWS:
            raise UserError(f"there is no row {row!r}; choose from {', '.join(ROWS)}")
    return tuple(row for row in ROWS if row in rows or not rows)
