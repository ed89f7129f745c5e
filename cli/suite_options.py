"""The options of ``bcgan-tf attack``: a suite, its threat model, and what is measured besides."""

from __future__ import annotations

import math
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf.assessment_settings import DEFAULT_EPS, NORMS, SUITES, UNITS, parse_shard

from .options import RECIPE_HELP, Decorator, first_given, number, stack


class _FiniteNumber(click.ParamType):
    """A number, or a fraction such as 8/255."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            found = number(str(value))
        except (ValueError, ZeroDivisionError):
            found = math.nan
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number such as 0.3 or 8/255", param, ctx)
        return found


class _Shard(click.ParamType):
    """``i/n``, the i-th of n."""

    name = "i/n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            return parse_shard(str(value))
        except ValueError:
            self.fail(f"{value!r} is no shard such as 2/8", param, ctx)


FIRST_LOOK = "first-look"
# Options that belong to the first look, and those that belong to the suites.
FIRST_LOOK_OPTIONS = ("preset", *RECIPE_HELP["attack"])
_SUITE_OPTIONS = (
    "eps", "eps_unit", "norm", "n", "samples", "shard", "diagnose", "minimum_perturbation",
    "surrogate", "control", "batch_size", "skip_certified",
)  # fmt: skip


def suite_options() -> Decorator:
    """``--suite`` and what a suite of attacks can be told."""
    defaults = ", ".join(f"{name} {_fraction(eps)}" for name, eps in DEFAULT_EPS.items())
    return stack(
        [
            click.option(
                "--suite",
                type=click.Choice([*SUITES, FIRST_LOOK]),
                default="standard",
                help="standard: AutoAttack's; plus: its larger one; rand: for models that draw "
                "random numbers; paper: FGSM, PGD and CW as in the paper, eps in both units; "
                "first-look: FGSM and PGD at several eps, and CW, as in `bcgan-tf run`.",
            ),
            click.option(
                "--eps",
                type=_FiniteNumber(),
                default=None,
                help=f"Radius, a number or a fraction.  [default, for Linf: {defaults}]",
            ),
            click.option(
                "--eps-unit",
                type=click.Choice(UNITS),
                default="01",
                help="Of --eps: pixels in [0, 1], or in [-1, 1] as in the paper.",
            ),
            click.option("--norm", type=click.Choice(NORMS), default="linf", help="Of --eps."),
            click.option(
                "--n",
                type=click.IntRange(min=0),
                default=1000,
                help="Test images, the same for every model; 0: all.",
            ),
            batch_size_option(),
            click.option(
                "--samples",
                type=click.IntRange(min=1),
                help="Calls of a model to average.  [default: 20 if it draws random numbers]",
            ),
            click.option(
                "--shard",
                type=_Shard(),
                help="Attack every n-th image from the i-th on only; `attack merge` joins them.",
            ),
            click.option(
                "--skip-certified",
                is_flag=True,
                help="Do not attack images that interval bounds prove: the same accuracy, sooner.",
            ),
            _measuring_options(diagnose=True, minimum_perturbation=False),
        ]
    )


def finishing_options_as_before() -> Decorator:
    """What a merge is to do after it; what is not given is as the shards were told."""
    return _measuring_options(diagnose=None, minimum_perturbation=None)


def _measuring_options(*, diagnose: bool | None, minimum_perturbation: bool | None) -> Decorator:
    after = "" if diagnose is not None else "  [default: as the shards were told]"
    return stack(
        [
            click.option(
                "--surrogate",
                metavar="MODEL",
                help=f"Try adversarial examples of this model too.{after}",
            ),
            click.option(
                "--control",
                metavar="MODEL",
                help=f"An undefended model, which attacks must break.{after}",
            ),
            click.option(
                "--diagnose/--no-diagnose",
                default=diagnose,
                help=f"Look for gradient masking, and give a verdict.{after}",
            ),
            click.option(
                "--minimum-perturbation/--no-minimum-perturbation",
                default=minimum_perturbation,
                help=f"Search the smallest perturbation of each image; takes minutes.{after}",
            ),
        ]
    )


def batch_size_option() -> Any:
    """``--batch-size``."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=250,
        help="Most images at once: bounds memory, changes no result.",
    )


def _fraction(eps: float) -> str:
    return f"{eps:g}" if round(eps, 3) == eps else f"{round(255 * eps)}/255"


def check_suite_options(ctx: click.Context) -> None:
    """Refuses options, given as such, that the chosen suite does not have.

    Raises:
        click.UsageError: one of the other kind was given.
    """
    first_look = ctx.params["suite"] == FIRST_LOOK
    others = _SUITE_OPTIONS if first_look else FIRST_LOOK_OPTIONS
    if flag := first_given(ctx, others, {ParameterSource.COMMANDLINE}):
        other = "the other suites have" if first_look else f"--suite {FIRST_LOOK} has"
        raise click.UsageError(f"--suite {ctx.params['suite']} has no {flag}; {other} it", ctx)


def chosen_eps(dataset: str, eps: float | None, norm: str) -> float:
    """The given eps, else the data set's.

    Raises:
        click.UsageError: it has none.
    """
    if eps is not None:
        return eps
    if norm != "linf" or dataset not in DEFAULT_EPS:
        what = f"the data set {dataset}" if norm == "linf" else "the L2 norm"
        raise click.UsageError(f"{what} has no usual eps; give --eps")
    return DEFAULT_EPS[dataset]
