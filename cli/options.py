"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.defenses import DEFENSES
from bcgan_tf.settings.fields import OneOf, Setting, settings_of
from bcgan_tf.settings.images import ImageSettings
from bcgan_tf.settings.kinds import RADIUS, Batch, Devices, Seed, WorkerSpec
from bcgan_tf.settings.presets import (
    DEFAULT_DEFENSE,
    PRESETS,
    ClassifierSettings,
    Recipe,
    SampleSettings,
    recipe,
)

from .command import FAULTS, FilePath, config_option, from_run, take_up_run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ImageOptions(NamedTuple):
    """How images of a user's own are read, and where they are kept meanwhile."""

    settings: ImageSettings = ImageSettings()
    cache_dir: Path | None = None


class SettingType(click.ParamType):
    """The values of a :class:`Setting`; what is wrong is told with all else that is wrong.

    Such a value becomes None, and the message waits in the context until :class:`Command` has
    read the whole line.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        names = {int: "integer", float: "number", str: "text"}
        self.name = "numbers" if setting.many else names.get(setting.type, setting.type.__name__)

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


def setting_option(entry: Setting, *, unset: str = "") -> Any:
    """The option of a setting: its help, range and default.

    Args:
        entry: the setting.
        unset: what stands for its default where none is given; the value is then None.
    """
    flag = "--" + entry.name.replace("_", "-")
    default = None if unset or entry.by_dataset else entry.default
    unset = unset or ", ".join(f"{name} {number(of)}" for name, of in entry.by_dataset.items())
    text = f"{entry.help}  [default: {unset}]" if unset else entry.help
    if entry.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", default=default, help=text)
    if isinstance(entry.allowed, OneOf):
        return click.option(flag, type=click.Choice(entry.allowed), default=default, help=text)
    if allowed := entry.allowed or getattr(entry.type, "WANTED", ""):
        about, bracket, after = text.partition("  [default:")
        text = f"{about}  [{allowed}]{bracket}{after}"
    shown = default if default is None else entry.text(default)
    return click.option(flag, type=SettingType(entry), default=shown, help=text)


def settings_options(kind: type, *names: str, unset: str = "") -> Decorator:
    """The options of a dataclass of settings, or of those of the given names; not of its seed."""
    known = settings_of(kind)
    chosen = names or tuple(name for name in known if name != "seed")
    return stack([setting_option(known[name], unset=unset) for name in chosen])


def recipe_options(*kinds: type) -> Decorator:
    """``--preset``, and the options of parts of :class:`Recipe`."""
    preset = click.option(
        "--preset", type=click.Choice(PRESETS), default="quick", help="Named settings."
    )
    return stack([preset, *(settings_options(kind, unset="the preset's") for kind in kinds)])


def chosen_recipe(dataset: str, options: dict[str, Any]) -> Recipe:
    """The preset's recipe with the options that were given; they are taken out of ``options``."""
    base = recipe(dataset, options.pop("preset"))
    names = settings_of(Recipe)
    changes = {name: options.pop(name) for name in list(options) if name in names}
    return base.changed({name: value for name, value in changes.items() if value is not None})


def chosen_eps(dataset: str, eps: float | None, norm: str = "linf") -> float:
    """The given eps, else the data set's.

    Raises:
        click.UsageError: it has none.
    """
    if eps is not None:
        return eps
    if norm != "linf" or dataset not in RADIUS:
        what = f"the data set {dataset}" if norm == "linf" else "the L2 norm"
        raise click.UsageError(f"{what} has no usual eps; give --eps")
    return RADIUS[dataset]


def dataset_options() -> Decorator:
    """``--dataset``, ``--data-dir``, and how images of a user's own are read."""
    dataset = click.option(
        "--dataset",
        required=True,
        metavar="NAME",
        help="mnist, fashion_mnist, cifar10, digits, or images of your own: folder:PATH, csv:FILE, "
        "npz:FILE, tfds:NAME, keras:NAME.",
    )
    cache_dir = click.option(
        "--cache-dir",
        type=FilePath(file_okay=False),
        help="Keep images of your own here, decoded, and read them from here as they are needed.  "
        "[default: in memory; what is too much for it in ~/.cache/bcgan_tf]",
    )
    return stack([dataset, data_dir_option(), settings_options(ImageSettings), cache_dir])


def chosen_images(options: dict[str, Any]) -> ImageOptions:
    """How images are to be read; those options are taken out of ``options``."""
    settings = {name: options.pop(name) for name in settings_of(ImageSettings)}
    return ImageOptions(ImageSettings(**settings), options.pop("cache_dir"))


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


def seed_option(text: str = "Seed of all draws.") -> Any:
    """``--seed``."""
    return setting_option(Setting.of("seed", Seed, 0, text))


def devices_option() -> Any:
    """``--devices``."""
    text = "GPUs to train on, MirroredStrategy for several."
    return setting_option(Setting.of("devices", Devices, None, text), unset="all")


def model_options(unset: str = "") -> Decorator:
    """``--surrogate`` and ``--control``."""
    after = f"  [default: {unset}]" if unset else ""
    surrogate = f"Try adversarial examples of this model too.{after}"
    control = f"An undefended model, which attacks must break.{after}"
    return stack(
        [
            click.option("--surrogate", metavar="MODEL", help=surrogate),
            click.option("--control", metavar="MODEL", help=control),
        ]
    )


def convention_options() -> Decorator:
    """``--input-range``, ``--mean``, ``--std``, ``--output`` and ``--custom-objects``."""
    return stack([settings_options(Convention), custom_objects_option()])


def custom_objects_option() -> Any:
    """``--custom-objects``."""
    return click.option(
        "--custom-objects",
        type=FilePath(),
        metavar="FILE.py",
        help="Python code that defines the model's own layers; it is run.",
    )


def chosen_convention(options: dict[str, Any]) -> Convention:
    """The convention of the options, which are taken out of ``options``.

    Raises:
        UserError: options that do not go together.
    """
    return Convention(**{name: options.pop(name) for name in settings_of(Convention)})


def batch_size_option() -> Any:
    """``--batch-size``."""
    text = "Most images at once: bounds memory, changes no result."
    return setting_option(Setting.of("batch_size", Batch, 250, text))


def workers_option(text: str) -> Any:
    """``--workers``."""
    return setting_option(Setting.of("workers", WorkerSpec, None, text), unset="this process")


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
                type=click.Choice([*DEFENSES]),
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


def settings_that_count(recipe: Recipe, defense: str, *, trains: bool) -> dict[str, Any]:
    """The recipe's settings but for those that nobody reads.

    Args:
        recipe: of the run.
        defense: samples are measured of the paper's alone.
        trains: whether the classifier is trained, not given.
    """
    left_out = _unread(defense, trains=trains)
    return {name: value for name, value in recipe.to_dict().items() if name not in left_out}


def check_belongs(defense: str, *, trains: bool = True) -> None:
    """Refuses options that nobody would read.

    Args:
        defense: samples are measured of the paper's alone.
        trains: whether there is a classifier to be trained.

    Raises:
        click.UsageError: names all that were given.
    """
    context = click.get_current_context()
    unread = [name for name in _unread(defense, trains=trains) if name in context.params]
    if flags := given(context, unread, set(ParameterSource) - {ParameterSource.DEFAULT}):
        why = f"--defense {defense}" + ("" if trains else " of the given --classifier")
        raise click.UsageError(f"nothing reads {flags} with {why}; leave out one of them")


def _unread(defense: str, *, trains: bool) -> tuple[str, ...]:
    samples = () if defense == "bcgan" else tuple(settings_of(SampleSettings))
    return samples if trains else (*samples, *settings_of(ClassifierSettings))


def number(value: Any) -> str:
    """A number as people write it: 0.3, or 8/255."""
    if not isinstance(value, float):
        return str(value)
    above = round(255 * value)
    fraction = round(value, 3) != value and abs(above / 255 - value) < 1e-9
    return f"{above}/255" if fraction else f"{value:g}"


def exact_number(value: float) -> str:
    """Likewise, with all its digits where it needs them."""
    text = number(value)
    return text if "/" in text or float(text) == value else repr(value)


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
