"""``bcgan-tf settings``: every setting, from its declaration. It prints docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from bcgan_tf.reproduction.ablation_settings import AblationSettings
from bcgan_tf.reproduction.protocol import AuthorsProtocol, Protocol, RefinementSettings
from bcgan_tf.settings import presets
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.defenses import (
    DEFENSES,
    FilteredExtraSettings,
    GANSettings,
    RobustSettings,
)
from bcgan_tf.settings.fields import Setting, settings_of
from bcgan_tf.settings.figures import BoundarySettings, ToySettings
from bcgan_tf.settings.images import ImageSettings
from bcgan_tf.settings.kinds import RADIUS

from .command import STDOUT, Command
from .options import number

_DATASETS = ("mnist", "fashion_mnist", "cifar10", "digits", "folder:PATH")
_INTRODUCTION = """# Settings

`bcgan-tf settings` prints this page from the declarations of the settings.

The option `--some-name` is also the environment variable `BCGAN_TF_SOME_NAME`, and `some-name` in
a TOML file (`--config FILE`). The flag wins over the variable, the variable over the file, the file
over the preset. A number may be a fraction, such as `8/255`. A setting of a defense is given as
`-o NAME=VALUE`."""


@click.command(cls=Command)
def command() -> None:
    """List every setting, its default, its range and what it does, as Markdown."""
    click.echo(page(), nl=False, file=click.get_current_context().meta[STDOUT])


def page() -> str:
    """docs/settings.md."""
    return "\n".join([_INTRODUCTION, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    yield from _section("`train`, `harden`, `run`", _known(presets.Recipe))
    yield from _changes(presets.recipe_changes)
    yield from _section(
        "Images of your own, in every command with `--dataset`", _known(ImageSettings)
    )
    yield from _section("`attack`", _known(EvaluationConfig))
    shared = {**_known(FilteredExtraSettings), **_prefixed(GANSettings)}
    radius = _known(RobustSettings)
    extra = {name: entry for name, entry in shared.items() if name not in radius}
    yield from _section(
        "Defenses that train for a radius: all but `bcgan`, `distillation` and `defense-gan`",
        radius,
    )
    yield from _section("Boundary samples in such a training: `bcgan-at`, `-trades`, `-ibp`", extra)
    for name, kind in DEFENSES.items():
        options = presets.options_of(kind)
        own = {key: entry for key, entry in options.items() if shared.get(key) != entry}
        yield from _section(f"Defense `{name}`", own)
        yield from _changes(lambda *of, name=name: presets.preset_changes(name, *of))
    yield from _section("`toy`", _known(ToySettings))
    yield from _section("`boundary`", _known(BoundarySettings))
    strong = _known(Protocol)
    yield from _section("`reproduce table1`, `table2` and `audit`", strong)
    authors = {
        key: entry for key, entry in _known(AuthorsProtocol).items() if strong.get(key) != entry
    }
    yield from _section(
        "What differs with `--protocol authors` and in `reproduce authors`", authors
    )
    yield from _section("`reproduce refinement`", _known(RefinementSettings))
    yield from _section("`reproduce ablation`", _known(AblationSettings))


def _known(kind: type) -> dict[str, Setting]:
    left_out = ("dataset", "preset", "seed", "devices", "gan")
    return {name: entry for name, entry in settings_of(kind).items() if name not in left_out}


def _prefixed(kind: type) -> dict[str, Setting]:
    return {f"gan.{name}": entry for name, entry in settings_of(kind).items()}


def _section(title: str, entries: Mapping[str, Setting]) -> Iterator[str]:
    yield from ["", f"## {title}"]
    if entries:
        yield from [
            "",
            "| setting | default | values | what it does |",
            "| --- | --- | --- | --- |",
        ]
    for name, entry in entries.items():
        yield f"| `{name}` | {_default(entry)} | {entry.wanted} | {_cell(entry.help)} |"


def _changes(of: Any) -> Iterator[str]:
    """What the presets change; ``of`` gives it for a data set and a preset."""
    rows: dict[str, list[str]] = {}
    for dataset in _DATASETS:
        for preset in presets.presets(dataset):
            changes = of(dataset, preset)
            if changes:
                text = ", ".join(f"`{name}` {_shown(value)}" for name, value in changes.items())
                rows.setdefault(text, []).append(f"{dataset} {preset}")
    if rows:
        yield from ["", "| data set and preset | what it changes |", "| --- | --- |"]
        yield from (f"| {', '.join(where)} | {text} |" for text, where in rows.items())


def _default(entry: Setting) -> str:
    texts = [f"{name} {_shown(value)}" for name, value in entry.by_dataset.items()]
    if not set(RADIUS) <= set(entry.by_dataset):
        texts.insert(0, "none" if entry.default is None else _shown(entry.default))
    return ", ".join(texts)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(number, value)) if isinstance(value, tuple) else number(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
