"""Named sets of attacks, in the order in which they run."""

from __future__ import annotations

from typing import Any

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.constraint_relaxation import ConstraintRelaxation
from bcgan_tf.attacks.fab import FAB
from bcgan_tf.attacks.fgsm import FGSM
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.square import Square
from bcgan_tf.errors import UserError
from bcgan_tf.settings.kinds import SUITES

# What the names of attacks have that search in float32 after others in bfloat16, that get the first
# images alone, that are cut short, and that get what others brought near the boundary.
IN_FLOAT32, SAMPLE, SHORT, NEAR = " in float32", " (sample)", " (short)", " (near)"
SAMPLE_SIZE = 200
# Those that search in the precision of the task.
SEARCHED = ("standard", "plus", "fast")
_RESTARTS = 5
_TARGETS = 9
# Above so many classes untargeted FAB, each step of which takes a gradient for every class, is no
# part of a suite: for 1,000 classes half a million gradients an image.
_MANY_CLASSES = 100
_FAST_TARGETS, _SHORT_STEPS = 3, 20
_FAST_QUERIES = 500


class LastAPGD(APGD):
    """Targeted APGD of 20 steps, in float32: the end of a suite that searched in bfloat16."""

    lengths = APGD.lengths
    searched_in = "float32"

    @property
    def name(self) -> str:
        return super().name + IN_FLOAT32


class _Part(Attack):
    """An attack of a suite that gets only some of the images, which its name says."""

    @property
    def name(self) -> str:
        return super().name + (SAMPLE if self.near is None else NEAR)


class SampledAPGD(_Part, LastAPGD):
    """The same, on the first 200 images."""

    lengths = APGD.lengths
    first = SAMPLE_SIZE


class FirstRelaxation(ConstraintRelaxation):
    """Constraint relaxation, which leaves what it came near to the attacks after it."""

    lengths = ConstraintRelaxation.lengths
    again = None


class ShortSquare(Square):
    """Square with a tenth of its queries: whether gradients mislead, and what else comes near."""

    again = None

    @property
    def name(self) -> str:
        return super().name + SHORT


class NearRelaxation(_Part, ConstraintRelaxation):
    """Constraint relaxation again, from other points, on what came within a tenth."""

    lengths = ConstraintRelaxation.lengths
    near, again = 0.1, None

    def run(self, *arguments: Any) -> Any:
        """See :meth:`bcgan_tf.attacks.attack.Attack.run`."""
        return ConstraintRelaxation.run(self._changed({"seed": self.seed + 1}), *arguments)


class NearAPGD(_Part, APGD):
    """Targeted APGD, in float32, on what came within a twentieth of an image's unit of logits."""

    lengths = APGD.lengths
    near = 0.05
    searched_in = "float32"


class NearSquare(_Part, Square):
    """Square on what came within a quarter of a unit; again where rounding may have decided."""

    near, again = 0.25, 0.02


def suite(
    name: str,
    eps: float,
    *,
    norm: str = "linf",
    num_classes: int,
    seed: int = 0,
    batch_size: int = 250,
    precision: str = "float32",
) -> tuple[Attack, ...]:
    """The attacks of a suite.

    - ``standard``: AutoAttack's, each on the survivors of those before: APGD on the cross entropy,
      targeted APGD and targeted FAB towards the nine likeliest other classes, Square with 5,000
      queries. The field's yardstick; Linf and L2.
    - ``plus``: AutoAttack's larger one: five restarts of APGD on the cross entropy, of APGD on
      DLR and (up to 100 classes) of untargeted FAB, Square, and both targeted attacks.
    - ``fast``: constraint relaxation towards three classes; Square with 500 queries, which shows
      whether gradients mislead (:func:`bcgan_tf.evaluation.runner.run_suite` then goes on with
      ``standard``); and on what these brought near the boundary, constraint relaxation again and
      ``standard``'s targeted APGD and Square.
    - ``rand``: APGD on the cross entropy and on DLR, for models that draw random numbers: to be
      run through :func:`bcgan_tf.attacks.expectation.expectation`.
    - ``paper``: FGSM, PGD-40 and Carlini-Wagner L2, which are all that the paper reports. They
      bound robust accuracy from above only weakly: use them for comparison with the paper.

    Args:
        name: of the suite.
        eps: radius in [0, 1] pixel units.
        norm: ``"linf"`` or ``"l2"``.
        num_classes: of the model; targets are at most ``num_classes - 1``.
        seed: of all draws.
        batch_size: most examples at once.
        precision: that they search in. In ``"bfloat16"`` a short targeted APGD in float32
            (:class:`LastAPGD`) ends ``standard``, ``plus`` and, on the first 200 images, ``fast``.

    Raises:
        UserError: no such suite, or eps or norm out of range.

    Reference: Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble
    of diverse parameter-free attacks"; the budgets are those of its published code.
    """
    if name not in SUITES:
        raise UserError(f"there is no suite {name!r}; choose one of {', '.join(SUITES)}")
    shared: dict[str, Any] = {"norm": norm, "seed": seed, "batch_size": batch_size}
    targets = max(1, min(_TARGETS, num_classes - 1))
    attacks = _BUILDERS[name](eps, targets, shared)
    if num_classes > _MANY_CLASSES:
        attacks = [one for one in attacks if not isinstance(one, FAB) or one.targeted]
    if precision == "bfloat16" and name in SEARCHED:
        targeted = next(one for one in attacks if isinstance(one, APGD) and one.targeted)
        settings: dict[str, Any] = vars(targeted) | {"steps": _SHORT_STEPS}
        if name == "fast":
            attacks.append(SampledAPGD(**{**settings, "target_classes": 1}))
        else:
            attacks.append(LastAPGD(**settings))
    return tuple(attacks)


def _standard(eps: float, targets: int, shared: dict[str, Any]) -> list[Attack]:
    return [
        APGD(eps, **shared),
        APGD(eps, loss="dlr", targeted=True, target_classes=targets, **shared),
        FAB(eps, targeted=True, target_classes=targets, **shared),
        Square(eps, **shared),
    ]


def _plus(eps: float, targets: int, shared: dict[str, Any]) -> list[Attack]:
    return [
        APGD(eps, restarts=_RESTARTS, **shared),
        APGD(eps, loss="dlr", restarts=_RESTARTS, **shared),
        FAB(eps, targeted=False, restarts=_RESTARTS, **shared),
        Square(eps, **shared),
        APGD(eps, loss="dlr", targeted=True, target_classes=targets, **shared),
        FAB(eps, targeted=True, target_classes=targets, **shared),
    ]


def _fast(eps: float, targets: int, shared: dict[str, Any]) -> list[Attack]:
    few = {"targets": min(_FAST_TARGETS, targets)}
    return [
        FirstRelaxation(eps, restarts=0, **few, **shared),
        ShortSquare(eps, queries=_FAST_QUERIES, **shared),
        NearRelaxation(eps, **few, **shared),
        NearAPGD(eps, loss="dlr", targeted=True, target_classes=targets, **shared),
        NearSquare(eps, **shared),
    ]


def _rand(eps: float, targets: int, shared: dict[str, Any]) -> list[Attack]:
    del targets
    return [APGD(eps, **shared), APGD(eps, loss="dlr", **shared)]


def _paper(eps: float, targets: int, shared: dict[str, Any]) -> list[Attack]:
    del targets
    unbounded = {key: value for key, value in shared.items() if key != "norm"}
    return [FGSM(eps, **shared), PGD(eps, **shared), CarliniWagnerL2(**unbounded)]


_BUILDERS = dict(zip(SUITES, (_standard, _plus, _fast, _rand, _paper), strict=True))
