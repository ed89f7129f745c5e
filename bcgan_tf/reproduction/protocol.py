"""What is measured of each row of the paper's tables, at which eps, on how many images.

Loads no TensorFlow, so that the command line can ask it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper
from bcgan_tf.settings.fields import Checked, Range, parsed, setting, settings_of
from bcgan_tf.settings.kinds import (
    RADIUS,
    Dtype,
    Epochs,
    Images,
    LearningRate,
    Repeats,
    SomeImages,
    Steps,
    TrainingEps,
)

# The paper's rows, and the stronger baseline that it lacks.
ROWS = (*paper.ROWS, "trades")
# Adversarial training as the authors' code does it, and the row that it is a variant of: nothing
# clears the weights' gradients between the attack and the update, so that they add up.
ACCUMULATED = {f"{row}-accumulated": row for row in ("fgsm-at-1", "fgsm-at-2", "pgd-at")}
# The curves of a refinement: on the samples, and the control on as many steps without them.
WAYS = {"generated": "generated and real images", "real": "real images alone"}
PRESETS = ("quick", "paper")
# As many of each of the ten classes, so at least one.
ImagesOfEachClass = Annotated[int, Range(10, 100_000_000)]
DATASETS = (*paper.FGSM_EPS, "digits")
# The paper has no digits: eps that leave a trained network something to lose.
FGSM_EPS = {**paper.FGSM_EPS, "digits": (RADIUS["digits"], 2 * RADIUS["digits"])}
_PGD_STEPS = {**paper.PGD_STEPS, "digits": 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BothProtocols(Checked, abc.ABC):
    """The settings that both protocols have; 0 images are all of the test set.

    Smaller sets of images are drawn with seed 0.

    Attributes:
        name: of the kind of protocol.
        rows: of its tables.
        suffix: of the names of its tables.
        of_table2: the settings that its Table 2 reads.
    """

    name: ClassVar[str]
    rows: ClassVar[tuple[str, ...]] = ROWS
    suffix: ClassVar[str] = ""
    of_table2: ClassVar[tuple[str, ...]]

    fgsm_eps: tuple[TrainingEps, TrainingEps] = setting(
        help="The paper's two radii of FGSM, in its own pixel unit, which it does not state.",
        by_dataset=FGSM_EPS,
    )
    pgd_steps: Steps = setting(
        help="Steps of PGD, as the paper states them; its eps, step size and restarts it does not.",
        by_dataset=_PGD_STEPS,
    )
    n: Images = setting(0, "Images for FGSM and PGD; clean accuracy is of all.")
    cw_n: Images = setting(1000, "Images for Carlini-Wagner L2.")
    cw_steps: Steps = setting(200, "Steps of Carlini-Wagner for each constant.")
    cw_search_steps: Repeats = setting(9, "Constants tried.")
    rho_n: Images = setting(1000, "Images for Table 2.")
    defended_n: ImagesOfEachClass = setting(200, "Images for Defense-GAN, as many of each class.")
    defended_cw_n: SomeImages = setting(100, "How many of these images Carlini-Wagner attacks.")

    @abc.abstractmethod
    def radii(self) -> dict[str, dict[str, float]]:
        """Pixel unit to column (``"fgsm-1"``, ``"fgsm-2"``, ``"pgd"``) to eps in [0, 1] pixels."""

    def pgd(self) -> dict[str, Any]:
        """Options of :class:`bcgan_tf.attacks.PGD` beside eps and seed."""
        return {"steps": self.pgd_steps}

    def carlini_wagner(self) -> dict[str, Any]:
        """Options of :class:`bcgan_tf.attacks.CarliniWagnerL2` beside the seed."""
        return {"steps": self.cw_steps, "binary_search_steps": self.cw_search_steps}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol(BothProtocols):
    """The evaluations of a table, and their sizes; 0 images are all of the test set.

    PGD is from one random start, at the larger of the two radii. Smaller sets of images are drawn
    with seed 0.
    """

    name: ClassVar[str] = "strong"
    of_table2: ClassVar[tuple[str, ...]] = ("rho_n", "defended_rho_n")

    eps: TrainingEps = setting(
        help="Radius of the suite standard, Linf in [0, 1] pixel units.", by_dataset=RADIUS
    )
    cw_learning_rate: LearningRate = setting(0.05, "Rate of Carlini-Wagner's Adam.")
    standard_n: Images = setting(1000, "Images for the suite and its diagnosis.")
    white_box_n: ImagesOfEachClass = setting(
        50, "Images for the attack through Defense-GAN's search (BPDA)."
    )
    white_box_steps: Steps = setting(20, "PGD's steps in it.")
    eot_samples: Repeats = setting(3, "Searches that each of its gradients is averaged over.")
    answers: Annotated[int, Range(2, 10_000)] = setting(
        3, "Fresh searches that each adversarial example must survive."
    )
    defended_rho_n: Images = setting(
        10, "Images for Defense-GAN's Table 2, through a search with fixed starts; 0: not run."
    )

    def radii(self) -> dict[str, dict[str, float]]:
        """See :meth:`BothProtocols.radii`: the paper's eps in both units."""
        small, large = self.fgsm_eps
        return {
            unit: {"fgsm-1": small * worth, "fgsm-2": large * worth, "pgd": large * worth}
            for unit, worth in paper.UNITS.items()
        }

    def carlini_wagner(self) -> dict[str, Any]:
        """See :meth:`BothProtocols.carlini_wagner`."""
        return {**super().carlini_wagner(), "learning_rate": self.cw_learning_rate}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorsProtocol(BothProtocols):
    """The evaluations of the code that the paper's figures most likely come from.

    A public repository without an author's name has the paper's networks, data sets, numbers of
    steps and names of rows; docs/audit.md says what it adds to the paper. Every eps there is of
    [-1, 1] pixels. PGD has one radius on all data sets, no random start and short steps;
    Carlini-Wagner asks for a gap of 20 between logits and moves little; rho is measured on training
    images.
    """

    name: ClassVar[str] = "authors"
    rows: ClassVar[tuple[str, ...]] = (*ROWS, *ACCUMULATED)
    suffix: ClassVar[str] = "-authors"
    of_table2: ClassVar[tuple[str, ...]] = ("rho_n", "defended_n")

    cw_n: Images = setting(200, "Images for Carlini-Wagner L2.")
    cw_steps: Steps = setting(
        1000,
        "Steps of Carlini-Wagner for each constant.",
        by_dataset={"fashion_mnist": 1200, "cifar10": 50},
    )
    cw_search_steps: Repeats = setting(5, "Constants tried.", by_dataset={"fashion_mnist": 6})
    rho_n: Images = setting(1000, "Training images for Table 2.")

    def radii(self) -> dict[str, dict[str, float]]:
        """See :meth:`BothProtocols.radii`: one unit, and one radius of PGD."""
        small, large = (eps * paper.UNITS["[-1, 1]"] for eps in self.fgsm_eps)
        return {"[-1, 1]": {"fgsm-1": small, "fgsm-2": large, "pgd": 0.15}}

    def pgd(self) -> dict[str, Any]:
        """See :meth:`BothProtocols.pgd`."""
        return {**super().pgd(), "step_size": 0.005, "random_start": False}

    def carlini_wagner(self) -> dict[str, Any]:
        """See :meth:`BothProtocols.carlini_wagner`."""
        # There the first constant is 0.1, beside a distance of [-1, 1] pixels: four times ours.
        own = {"learning_rate": 5e-4, "initial_const": 0.025, "confidence": 20.0}
        return {**super().carlini_wagner(), **own}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinementSettings(Checked):
    """The sizes of the curve against the refinement's steps."""

    gan_epochs: Epochs = setting(10, "Epochs of the GAN; 200 in the authors' code.")
    epochs: Epochs = setting(
        480, "Epochs of refinement: generated batches, then one pass over the real images."
    )
    generated_batches: Steps = setting(1000, "Generated batches of each epoch.")
    dtype: Dtype | None = setting(None, "Keras dtype policy of the GAN; none: float32.")
    pgd_n: SomeImages = setting(1000, "Test images for PGD, gradients and logits.")
    suite_n: SomeImages = setting(200, "Test images for the suite fast.")


def refinement_settings(options: Mapping[str, Any]) -> RefinementSettings:
    """The sizes of a refinement, of which these, as numbers or as text, are changed.

    Raises:
        UserError: no such setting, or a value out of range.
    """
    known = settings_of(RefinementSettings)
    return RefinementSettings(**parsed("the refinement", known, options))


PROTOCOLS = {kind.name: kind for kind in (Protocol, AuthorsProtocol)}


# The residual network takes ten times as long as the small one, and CW and Table 2 need hundreds of
# gradients an image of every row (the suite does so of robust ones only).
_CIFAR_QUICK = {"cw_n": 200, "rho_n": 200}
_MORE_DEFENDED = {"defended_n": 1000, "defended_cw_n": 1000}
_PAPER: dict[str, dict[str, Any]] = {
    "strong": {
        **_MORE_DEFENDED,
        "cw_steps": 1000,
        "cw_learning_rate": 0.01,
        "white_box_n": 100,
        "white_box_steps": 100,
        "eot_samples": 20,
    },
    "authors": {**_MORE_DEFENDED, "cw_n": 1000, "rho_n": 0},
}


def protocol(
    dataset: str,
    preset: str = "quick",
    options: Mapping[str, Any] | None = None,
    *,
    name: str = Protocol.name,
    target: str = "",
) -> Any:
    """The protocol of a data set and a preset, of the kind that ``name`` says.

    Args:
        dataset: one of :data:`DATASETS`.
        preset: ``"quick"``: hours on two cores for a whole table; ``"paper"``: CW with 1,000
            steps of 0.01, and more images where quick has a part.
        options: settings to change, as numbers or as text; ``fgsm_eps`` cannot be.
        name: one of :data:`PROTOCOLS`.
        target: whose options they are: ``"table1"``, ``"table2"``, ``"audit"`` or ``"authors"``,
            which read some of the settings; none: all can be changed.

    Raises:
        UserError: no such data set or setting, one that the target does not read, or a value out of
            range.
    """
    if dataset not in DATASETS:
        raise UserError(
            f"the paper's tables have no data set {dataset!r}; choose one of {', '.join(DATASETS)}"
        )
    kind = PROTOCOLS[name]
    settings: dict[str, Any] = {
        key: entry.by_dataset[dataset]
        for key, entry in settings_of(kind).items()
        if dataset in entry.by_dataset
    }
    if preset == "paper":
        settings |= _PAPER[name]
    elif dataset == "cifar10":
        settings |= _CIFAR_QUICK
    known = {
        key: entry
        for key, entry in settings_of(kind).items()
        if not entry.many and _reads(target, kind, key)
    }
    owner = {"": "the protocol", "audit": "the audit"}.get(target, target)
    return kind(**settings | parsed(owner, known, options or {}))


def _reads(target: str, kind: type[BothProtocols], setting: str) -> bool:
    match target:
        case "table1":
            return setting not in ("rho_n", "defended_rho_n")
        case "table2":
            return setting in kind.of_table2
        case "audit":  # its numbers of images are its own
            return setting in ("pgd_steps", "cw_steps", "cw_search_steps", "cw_learning_rate")
        case "authors":
            return not setting.startswith("defended")
    return True


def check_rows(rows: Sequence[str], known: Sequence[str] = ROWS) -> tuple[str, ...]:
    """The rows in the order of those that are known; all of them where none is named.

    Raises:
        UserError: there is no such row.
    """
    if unknown := [repr(row) for row in rows if row not in known]:
        raise UserError(f"there is no row {', '.join(unknown)}; choose from {', '.join(known)}")
    return tuple(row for row in known if row in rows or not rows)
