"""What is measured of each row of the paper's tables, at which eps, on how many images.

Loads no TensorFlow, so that the command line can ask it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bcgan_tf.assessment_settings import DEFAULT_EPS
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper

# The names of bcgan_tf.reproduction.rows.ROWS, for those who do not load TensorFlow.
ROWS = (*paper.ROWS, "trades")
PRESETS = ("quick", "paper")
DATASETS = (*paper.FGSM_EPS, "digits")
# The paper has no digits: eps that leave a trained network something to lose.
_FGSM_EPS = {**paper.FGSM_EPS, "digits": (0.1, 0.2)}
_PGD_STEPS = {**paper.PGD_STEPS, "digits": 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """The evaluations of a table, and their sizes; 0 images are all of the test set.

    Attributes:
        fgsm_eps: the paper's two radii of FGSM, in its own pixel unit, which it does not state.
        pgd_steps: of PGD, from one random start, at the larger of the two radii: the paper says
            how many steps, and neither eps, step size nor restarts.
        eps: of the suite ``standard``, Linf in [0, 1] pixels: where published results are.
        n: images for clean accuracy, FGSM and PGD.
        cw_n: images for Carlini-Wagner L2, drawn with seed 0, as those of all smaller sets.
        cw_steps: its steps, for each constant tried.
        cw_search_steps: constants tried.
        cw_learning_rate: of its Adam.
        standard_n: images for the suite and its diagnosis.
        rho_n: images for Table 2.
        defended_n: images for Defense-GAN, the same number of each class.
        defended_cw_n: of these, for Carlini-Wagner.
        white_box_n: of these, for the attack through Defense-GAN's search (BPDA).
        white_box_steps: PGD's steps in it.
        white_box_draws: searches that each of its gradients is averaged over.
        answers: fresh searches that each adversarial example must survive.
        defended_rho_n: of these, for Table 2, through a search with fixed starts; 0: not run.
    """

    fgsm_eps: tuple[float, float]
    pgd_steps: int
    eps: float
    n: int = 0
    cw_n: int = 1000
    cw_steps: int = 200
    cw_search_steps: int = 9
    cw_learning_rate: float = 0.05
    standard_n: int = 1000
    rho_n: int = 1000
    defended_n: int = 200
    defended_cw_n: int = 100
    white_box_n: int = 50
    white_box_steps: int = 20
    white_box_draws: int = 3
    answers: int = 3
    defended_rho_n: int = 10

    def __post_init__(self) -> None:
        least = {"n": 0, "cw_n": 0, "standard_n": 0, "rho_n": 0, "defended_rho_n": 0, "answers": 2}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < least.get(field.name, 1):
                raise UserError(
                    f"{field.name} is {value}; it must be at least {least.get(field.name, 1)}"
                )
            if field.type == "float" and not 0 < value <= 1:
                raise UserError(f"{field.name} is {value}; choose a number above 0, at most 1")

    def radii(self) -> dict[str, dict[str, float]]:
        """Pixel unit to column (``"fgsm-1"``, ``"fgsm-2"``, ``"pgd"``) to eps in [0, 1] pixels."""
        small, large = self.fgsm_eps
        return {
            unit: {"fgsm-1": small * worth, "fgsm-2": large * worth, "pgd": large * worth}
            for unit, worth in paper.UNITS.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        return {**dataclasses.asdict(self), "fgsm_eps": list(self.fgsm_eps)}


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
    "white_box_draws": 20,
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
    types = {field.name: str(field.type) for field in dataclasses.fields(Protocol)}
    del types["fgsm_eps"]
    settings |= named_numbers("the protocol", types, options or {})
    defaults = {
        "fgsm_eps": _FGSM_EPS[dataset],
        "pgd_steps": _PGD_STEPS[dataset],
        "eps": DEFAULT_EPS[dataset],
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


def named_numbers(owner: str, types: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, as numbers or as text such as ``8/255``.

    Args:
        owner: whose settings they are, for the message.
        types: the names there are, to ``"int"`` or ``"float"``.
        given: the ones to set.

    Raises:
        UserError: no such setting, or a value that is no number of its type.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in types:
            raise UserError(f"{owner} has no setting {name!r}; it has {', '.join(types)}")
        try:
            found[name] = _number(value, whole=types[name] == "int")
        except (ValueError, ZeroDivisionError):
            raise UserError(f"{name}={value} is no {types[name]}") from None
    return found


def _number(value: Any, *, whole: bool) -> float:
    if not isinstance(value, str):
        return value
    if whole:
        return int(value)
    above, slash, below = value.partition("/")
    return float(above) / float(below) if slash else float(value)
