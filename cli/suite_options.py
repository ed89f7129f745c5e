"""The options of ``bcgan-tf attack``: a suite, its threat model, and what is measured besides."""

from __future__ import annotations

from typing import Any

import click

from bcgan_tf.errors import UserError
from bcgan_tf.settings.attack import DEFAULT_EPS, EvaluationConfig, parse_shard
from bcgan_tf.settings.fields import Setting, settings_of
from bcgan_tf.settings.kinds import SUITES, Batch

from .command import FAULTS
from .options import Decorator, setting_option, stack


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
        except UserError as error:
            if ctx is None:
                self.fail(str(error), param, ctx)
            ctx.meta.setdefault(FAULTS, []).append(str(error))
            return 1, 1


def suite_options() -> Decorator:
    """``--suite`` and what a suite of attacks can be told."""
    known = settings_of(EvaluationConfig)
    defaults = ", ".join(f"{name} {_fraction(eps)}" for name, eps in DEFAULT_EPS.items())
    return stack(
        [
            click.option(
                "--suite",
                type=click.Choice(SUITES),
                default="standard",
                help="standard: AutoAttack's; plus: its larger one; rand: for models that draw "
                "random numbers; paper: FGSM, PGD and CW as in the paper, eps in both units.",
            ),
            setting_option(
                known["eps"], f"Radius, a number or a fraction.  [default, for Linf: {defaults}]"
            ),
            setting_option(
                known["eps_unit"],
                "Of --eps: pixels in [0, 1], or in [-1, 1] as in the paper.",
                default="01",
            ),
            setting_option(known["norm"], "Of --eps.", default="linf"),
            setting_option(
                known["n"], "Test images, the same for every model; 0: all.", default=1000
            ),
            batch_size_option(),
            setting_option(
                known["samples"],
                "Calls of a model to average.  [default: 20 if it draws random numbers]",
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
    text = "Most images at once: bounds memory, changes no result."
    return setting_option(Setting.of("batch_size", Batch), text, default=250)


def _fraction(eps: float) -> str:
    return f"{eps:g}" if round(eps, 3) == eps else f"{round(255 * eps)}/255"


def chosen_eps(dataset: str, eps: float | None, norm: str = "linf") -> float:
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
