"""Options that several commands have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from bcgan_tf.settings.fields import OneOf, Setting, settings_of
from bcgan_tf.settings.kinds import Devices, Seed
from bcgan_tf.settings.presets import DEFAULT_DEFENSE, DEFENSES, PRESETS, Recipe, recipe

from .command import FAULTS, FilePath, config_option, from_run, take_up_run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# The recipe's fields by stage, with their help; an option that is not given keeps the preset's.
RECIPE_HELP: dict[str, dict[str, str]] = {
    "train": {
        "architecture": "Network.",
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
        "boundary_loss": "What beta weighs; uniform is the paper's.",
        "gan_epochs": "Epochs of GAN training.",
        "gan_batch_size": "Global batch of the GAN.",
        "gan_learning_rate": "Of both Adams.",
        "generator_width": "Factor on the generator's channels.",
        "discriminator_width": "Factor on the discriminator's channels.",
        "latent_dim": "Size of the noise.",
        "dropout": "The discriminator's.",
        "real_target": "The discriminator's target for real images.",
        "dtype": "Dtype policy.",
        "oracle_epochs": "Epochs of the oracle, which judges the samples.",
        "generated_samples": "Samples that are measured.",
        "harden_epochs": "Epochs of refinement.",
        "harden_batch_size": "Global number of clean images in a batch.",
        "harden_learning_rate": "Of the refinement's Adam.",
        "clean_ratio": "Share of clean images.",
    },
    "attack": {
        "suite": "Of attacks on both models: standard, AutoAttack's; others as in `attack`.",
        "n": "Test images that are attacked; 0: all.",
    },
}


class SettingType(click.ParamType):
    """The values of a :class:`Setting`; what is wrong is told with all else that is wrong.

    Such a value becomes None, and the message waits in the context until :class:`Command` has
    read the whole line.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        names = {int: "integer", float: "number", str: "text"}
        self.name = "numbers" if setting.many else names[setting.type]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found, fault = self.setting.read(value, param.opts[-1] if param else None)
        if fault and ctx is None:
            self.fail(fault, param, ctx)
        if fault and ctx is not None:
            ctx.meta.setdefault(FAULTS, []).append(fault)
            return None
        return found


def stack(options: list[Any]) -> Decorator:
    """Several options as one decorator, in their order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def setting_option(setting: Setting, text: str, **given: Any) -> Any:
    """The option of a setting, with its range in the help; ``given`` goes to click."""
    flag = "--" + setting.name.replace("_", "-")
    if setting.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", help=text, **given)
    if isinstance(setting.allowed, OneOf):
        return click.option(flag, type=click.Choice(setting.allowed), help=text, **given)
    about, bracket, default = text.partition("  [default:")
    text = f"{about}  [{setting.allowed}]{bracket}{default}"
    return click.option(flag, type=SettingType(setting), help=text, **given)


def recipe_options(*stages: str) -> Decorator:
    """The options of the given stages: ``"train"``, ``"harden"``, ``"attack"``."""
    known = settings_of(Recipe)
    options: list[Any] = [
        click.option(
            "--preset", type=click.Choice(PRESETS), default="quick", help="Named settings."
        )
    ]
    for stage in stages:
        for name, text in RECIPE_HELP[stage].items():
            text = f"{text}  [default: the preset's]"
            options.append(setting_option(known[name], text, default=None))
    return stack(options)


def settings_options(kind: type, texts: Mapping[str, str]) -> Decorator:
    """The options of a dataclass of settings, with its defaults; ``texts`` are their help."""
    known = settings_of(kind)
    options = []
    for name, text in texts.items():
        default = known[name].default
        shown = ",".join(f"{value:g}" for value in default) if known[name].many else default
        options.append(setting_option(known[name], text, default=shown))
    return stack(options)


def chosen_recipe(dataset: str, options: dict[str, Any]) -> Recipe:
    """The preset's recipe with the options that were given; they are taken out of ``options``."""
    base = recipe(dataset, options.pop("preset"))
    names = {field.name for field in dataclasses.fields(Recipe)} - {"dataset", "preset"}
    changes = {name: options.pop(name) for name in list(options) if name in names}
    return base.changed({name: value for name, value in changes.items() if value is not None})


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
        type=FilePath(),
        help="Where tensorflow-datasets keeps prepared data sets.  "
        "[default: TFDS_DATA_DIR, or ~/tensorflow_datasets]",
    )


def run_dir_options() -> Decorator:
    """``--run-dir`` and ``--resume``."""
    return stack(
        [
            click.option(
                "--run-dir",
                type=FilePath(),
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


def seed_option(text: str = "Of all draws.") -> Any:
    """``--seed``."""
    return setting_option(Setting.of("seed", Seed), text, default=0)


def devices_option() -> Any:
    """``--devices``."""
    text = "GPUs to train on, MirroredStrategy for several.  [default: all]"
    return setting_option(Setting.of("devices", Devices), text)


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


# What nobody reads where the classifier is given.
OF_TRAINING = ("architecture", "architecture_width", "threshold", "classifier_epochs")


def settings_that_count(recipe: Recipe, defense: str, *, trains: bool) -> dict[str, Any]:
    """The recipe's settings but for those that nobody reads.

    Args:
        recipe: of the run.
        defense: the settings of the paper's are left out where it is another.
        trains: whether the classifier is trained, not given.
    """
    left_out = {
        *(() if defense == "bcgan" else RECIPE_HELP["harden"]),
        *(() if trains else OF_TRAINING),
    }
    return {name: value for name, value in recipe.to_dict().items() if name not in left_out}


def check_belongs(defense: str, *, trains: bool = True) -> None:
    """Refuses options that nobody would read.

    Args:
        defense: only the paper's reads the options of a GAN.
        trains: whether there is a classifier to be trained.

    Raises:
        click.UsageError: names all that were given.
    """
    anywhere = set(ParameterSource) - {ParameterSource.DEFAULT}
    context = click.get_current_context()
    if defense != "bcgan" and (flags := given(context, RECIPE_HELP["harden"], anywhere)):
        raise click.UsageError(
            f"only the defense bcgan has {flags}; add --defense bcgan, or give {defense} "
            "settings of its own as -o NAME=VALUE"
        )
    if not trains and (flags := given(context, OF_TRAINING, anywhere)):
        raise click.UsageError(
            f"--classifier gives a trained network, which needs no {flags}; leave out one of them"
        )


def given(
    context: click.Context, names: Iterable[str], sources: Collection[ParameterSource]
) -> str:
    """The flags of options whose value is from one of ``sources``, and not of a resumed run."""
    return ", ".join(
        "--" + name.replace("_", "-")
        for name in names
        if context.get_parameter_source(name) in sources and not from_run(context, name)
    )


def named_values(given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` options as a dict; dashes in a name are underscores.

    Raises:
        click.UsageError: some are no such thing, or name a setting twice; all are named.
    """
    found: dict[str, str] = {}
    faults = []
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and name and value.strip()):
            faults.append(f"--option {text!r} is no NAME=VALUE, such as eps=0.3")
        elif name in found:
            faults.append(f"--option {name} is given twice; leave one of them")
        found[name] = value.strip()
    if faults:
        raise click.UsageError(". ".join(faults))
    return found
