"""Options that several commands have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf.recipes import DEFAULT_DEFENSE, DEFENSES, PRESETS, Recipe, recipe

from .command import config_option, take_up_run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# The recipe's fields by stage, with their help; an option that is not given keeps the preset's.
RECIPE_HELP: dict[str, dict[str, str]] = {
    "train": {
        "architecture": "Network: small_cnn, strided_cnn, deep_cnn or resnet18.",
        "architecture_width": "Factor on the channels; small_cnn has none.",
        "threshold": "Of strided_cnn and deep_cnn: pixels this near to 0 or 1 are cut off to it.",
        "classifier_epochs": "Epochs on clean data.",
        "classifier_batch_size": "Global batch.",
        "classifier_learning_rate": "Adam's, decayed by a cosine.",
    },
    "harden": {
        "beta": "Weight of KL(uniform || P(y|x)) in the generator's loss; 0 is a plain ACGAN.",
        "delay_epochs": "GAN epochs before beta rises from 0.",
        "warmup_epochs": "GAN epochs over which beta rises.",
        "boundary_loss": "What beta weighs: uniform (the paper's), top2 or margin.",
        "pull_away": "Weight of the pull-away term, which keeps generated images apart.",
        "gan_epochs": "Epochs of GAN training.",
        "gan_batch_size": "Global batch of the GAN.",
        "gan_learning_rate": "Of both Adams.",
        "generator_width": "Factor on the generator's channels.",
        "discriminator_width": "Factor on the discriminator's channels.",
        "latent_dim": "Size of the noise.",
        "dropout": "The discriminator's.",
        "real_target": "The discriminator's target for real images.",
        "instance_noise": "Noise on the discriminator's inputs, in [0, 1] pixels.",
        "spectral_norm": "Spectral normalisation of the discriminator.",
        "ema": "Decay of the generator's moving average; 0 is off.",
        "dtype": "Dtype policy, such as mixed_bfloat16.",
        "oracle_epochs": "Epochs of the oracle, which judges the samples.",
        "generated_samples": "Samples that are measured.",
        "harden_epochs": "Epochs of refinement.",
        "harden_batch_size": "Global number of clean images in a batch.",
        "harden_learning_rate": "Of the refinement's Adam.",
        "clean_ratio": "Share of clean images, in (0, 1].",
        "fixed_samples": "Boundary samples of a fixed set; 0: fresh ones at every step.",
    },
    "attack": {
        "attack_eps": "Linf radii in [0, 1] pixel units, separated by commas.",
        "attack_samples": "Test images that are attacked; 0: all.",
        "pgd_steps": "Steps of PGD.",
        "pgd_restarts": "Random starts of PGD.",
        "cw_samples": "Test images for Carlini-Wagner L2; 0: none.",
        "cw_steps": "Its iterations in each search step.",
        "cw_learning_rate": "Of its Adam.",
        "cw_binary_search_steps": "Its search steps for the constant.",
    },
}


class _Numbers(click.ParamType):
    """Numbers separated by commas; a fraction such as 8/255 is one."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(number(part) for part in str(value).split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no list of numbers such as 0.1,0.3 or 8/255", param, ctx)
        return numbers


def number(text: str) -> float:
    """A number, or a fraction of two."""
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(text)


def stack(options: list[Any]) -> Decorator:
    """Several options as one decorator, in their order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def recipe_options(*stages: str) -> Decorator:
    """The options of the given stages: ``"train"``, ``"harden"``, ``"attack"``."""
    types = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    options: list[Any] = [
        click.option(
            "--preset", type=click.Choice(PRESETS), default="quick", help="Named settings."
        )
    ]
    for stage in stages:
        for name, text in RECIPE_HELP[stage].items():
            flag = "--" + name.replace("_", "-")
            shared: dict[str, Any] = {"default": None, "help": f"{text}  [default: the preset's]"}
            kind = types[name]
            if kind == "bool":
                options.append(click.option(f"{flag}/--no-{flag[2:]}", **shared))
            else:
                options.append(click.option(flag, type=_TYPES[kind], **shared))
    return stack(options)


_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "str | None": str,
    "tuple[float, ...]": _Numbers(),
}


def settings_options(table: Mapping[str, tuple[Any, Any, str]]) -> Decorator:
    """Options from rows of name, (type, default, help); numbers separated by commas for a tuple."""
    return stack(
        [
            click.option(
                "--" + name.replace("_", "-"),
                type=_Numbers() if kind is tuple else kind,
                default=default,
                help=text,
            )
            for name, (kind, default, text) in table.items()
        ]
    )


def chosen_recipe(dataset: str, options: dict[str, Any]) -> Recipe:
    """The preset's recipe with the options that were given; they are taken out of ``options``."""
    base = recipe(dataset, options.pop("preset"))
    names = {field.name for field in dataclasses.fields(Recipe)} - {"dataset", "preset"}
    changes = {name: options.pop(name) for name in list(options) if name in names}
    return dataclasses.replace(base, **{k: v for k, v in changes.items() if v is not None})


def dataset_options() -> Decorator:
    """``--dataset`` and ``--data-dir``."""
    dataset = click.option(
        "--dataset",
        required=True,
        metavar="NAME",
        help="mnist, fashion_mnist, cifar10, digits, or folder:PATH.",
    )
    return stack([dataset, data_dir_option()])


def data_dir_option() -> Any:
    """``--data-dir``."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Where tensorflow-datasets keeps prepared data sets.  "
        "[default: TFDS_DATA_DIR, or ~/tensorflow_datasets]",
    )


def run_dir_options() -> Decorator:
    """``--run-dir`` and ``--resume``."""
    return stack(
        [
            click.option(
                "--run-dir",
                type=click.Path(path_type=Path),
                is_eager=True,
                callback=take_up_run,
                help="Folder of the run.  [default: runs/<stamp>-<command>-<dataset>]",
            ),
            click.option(
                "--resume",
                is_flag=True,
                is_eager=True,
                callback=take_up_run,
                help="Go on with the run in --run-dir, with its settings (or start it).",
            ),
        ]
    )


def run_options() -> Decorator:
    """``--run-dir``, ``--resume``, ``--seed``, and the options of every command."""
    return stack(
        [
            run_dir_options(),
            seed_option(),
            click.option(
                "--deterministic", is_flag=True, help="Bit-equal repeats, somewhat slower."
            ),
            common_options(),
        ]
    )


def seed_option() -> Any:
    """``--seed``, as far as NumPy's seeds go."""
    return click.option(
        "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of all draws."
    )


def devices_option() -> Any:
    """``--devices``."""
    return click.option(
        "--devices",
        type=click.IntRange(min=1),
        help="GPUs to train on, MirroredStrategy for several.  [default: all]",
    )


def common_options() -> Decorator:
    """``--json``, ``--debug`` and ``--config``."""
    return stack(
        [
            click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout."),
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
            config_option,
        ]
    )


def defense_options() -> Decorator:
    """``--defense`` and ``--option``."""
    return stack(
        [
            click.option(
                "--defense",
                type=click.Choice(DEFENSES),
                default=DEFAULT_DEFENSE,
                help="How to harden; bcgan is the paper's.",
            ),
            click.option(
                "-o",
                "--option",
                "defense_options",
                multiple=True,
                metavar="NAME=VALUE",
                help="A setting of the defence, such as `-o eps=8/255`; several may be given.",
            ),
        ]
    )


def settings_that_count(recipe: Recipe, defense: str) -> dict[str, Any]:
    """The recipe's settings but for those of the paper's defence, where it is another."""
    left_out = set() if defense == "bcgan" else set(RECIPE_HELP["harden"])
    return {name: value for name, value in recipe.to_dict().items() if name not in left_out}


def check_belongs(defense: str) -> None:
    """Refuses options of the paper's defence beside another one, which would not read them.

    Raises:
        click.UsageError: names the first.
    """
    if defense == "bcgan":
        return
    anywhere = set(ParameterSource) - {ParameterSource.DEFAULT}
    if flag := first_given(click.get_current_context(), RECIPE_HELP["harden"], anywhere):
        raise click.UsageError(
            f"{flag} belongs to the defense bcgan; add --defense bcgan, or give {defense} "
            "settings of its own as -o NAME=VALUE"
        )


def first_given(
    context: click.Context, names: Iterable[str], sources: Collection[ParameterSource]
) -> str | None:
    """The flag of the first of these options whose value is from one of ``sources``."""
    for name in names:
        if context.get_parameter_source(name) in sources:
            return "--" + name.replace("_", "-")
    return None


def named_values(given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` options as a dict; dashes in a name are underscores."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--option {text!r} is no NAME=VALUE, such as eps=0.3")
        found[name.strip().replace("-", "_")] = value.strip()
    return found
