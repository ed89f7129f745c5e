"""The classifiers of the paper's rows; those that the cache lacks are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.presets import defense
from bcgan_tf.files import file_digest
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.reproduction import paper
from bcgan_tf.reproduction.protocol import (
    ACCUMULATED,
    FGSM_EPS,
    AuthorsProtocol,
    check_rows,
    protocol,
)
from bcgan_tf.reproduction.workspace import Workspace
from bcgan_tf.settings.presets import Recipe, recipe
from bcgan_tf.workflows.harden import harden
from bcgan_tf.workflows.train import train

ORIGINAL = "original"
_FGSM_ROWS = ("fgsm-at-1", "fgsm-at-2")
# Of the two ways to read the paper's eps the likelier one, in which its original network's figures
# are those of a plain network (docs/audit.md).
_LIKELIER_UNIT = "[-1, 1]"
# What the published tables were made with, where a preset has been shortened since.
_AS_PUBLISHED: dict[tuple[str, str, str], dict[str, Any]] = {
    ("pgd-at", "mnist", "quick"): {"epochs": 12, "ramp_epochs": 4.0, "dtype": None}
}


def defense_of_row(
    row: str, dataset: str, preset: str = "quick", *, seed: int = 0, devices: int | None = None
) -> Defense | None:
    """The defence that a row of Table 1 stands for, None for the original network.

    Raises:
        UserError: no such row, data set or preset.
    """
    check_rows([row], AuthorsProtocol.rows)
    if row == ORIGINAL:
        return None
    name, options = _named(row, dataset)
    options = {**_AS_PUBLISHED.get((name, dataset, preset), {}), **options}
    return defense(name, dataset, preset, options=options, seed=seed, devices=devices)


def trained(workspace: Workspace, row: str) -> Path:
    """The ``.keras`` file of a row's classifier.

    The original network is trained first, on clean data; every other row hardens it. Each has a
    run's folder of its own in the workspace's cache, named by all of its settings (and by the
    weights it started from): a repeated call trains nothing, one after a kill goes on.

    Raises:
        UserError: no such row, or the training failed.
    """
    chosen = recipe(workspace.data.name, workspace.preset)
    if row == ORIGINAL:
        return original_of(workspace, chosen)
    shared: dict[str, Any] = {"seed": workspace.seed, "devices": workspace.devices}
    hardening = defense_of_row(row, workspace.data.name, workspace.preset, **shared)
    assert hardening is not None
    original = trained(workspace, ORIGINAL)
    settings = lasting_settings(hardening)
    if row == "bcgan":
        settings |= {"oracle_epochs": chosen.oracle_epochs, "samples": chosen.generated_samples}
    with workspace.open_run("harden", row, {**settings, "original": file_digest(original)}) as run:
        return harden(run, workspace.data, load_classifier(original), hardening, chosen)


def original_of(workspace: Workspace, chosen: Recipe) -> Path:
    """The ``.keras`` file of a recipe's classifier, trained on clean data, as :func:`trained`."""
    settings = {key: value for key, value in chosen.to_dict().items() if _is_of_training(key)}
    with workspace.open_run("train", ORIGINAL, settings) as run:
        return train(run, workspace.data, chosen, seed=workspace.seed, devices=workspace.devices)


def lasting_settings(hardening: Defense) -> dict[str, Any]:
    """A defence's settings but for how many devices share the work, which changes no result."""
    return {key: value for key, value in hardening.config().items() if key != "devices"}


def _named(row: str, dataset: str) -> tuple[str, dict[str, Any]]:
    """The defence's name, and what the row changes of its preset."""
    plain = ACCUMULATED.get(row, row)
    accumulating = {} if plain == row else {"accumulate": True, "clean_weight": 0.0}
    if plain in _FGSM_ROWS:
        which = _FGSM_ROWS.index(plain)
        eps = FGSM_EPS[dataset][which] * paper.UNITS[_LIKELIER_UNIT]
        return "fgsm-at", {"eps": eps, **accumulating}
    if not accumulating:
        return row, {}
    authors = protocol(dataset, name="authors")
    (radii,), pgd = authors.radii().values(), authors.pgd()
    return plain, {"eps": min(radii["pgd"], pgd["steps"] * pgd["step_size"]), **accumulating}


def _is_of_training(setting: str) -> bool:
    return setting.startswith(("architecture", "classifier_", "threshold", "dtype"))
