"""The defences by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bcgan_tf import defenses
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.settings.presets import defense_settings

DEFENSES: dict[str, type[Defense]] = {
    kind.name: kind
    for kind in (getattr(defenses, name) for name in defenses.__all__)
    if issubclass(kind, Defense) and kind.name
}


def defense(
    name: str,
    dataset: str,
    preset: str = "quick",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    devices: int | None = None,
) -> Defense:
    """A defence with a preset's settings; see :func:`bcgan_tf.settings.presets.defense_settings`.

    Raises:
        UserError: no such defence or setting, or a value that is none.
    """
    settings = defense_settings(name, dataset, preset, options=options, seed=seed, devices=devices)
    fields = dataclasses.fields(settings)
    return DEFENSES[name](**{field.name: getattr(settings, field.name) for field in fields})
