"""Does the boundary help? Boundary samples inside robust training, against their controls."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.certification.certified import certified_accuracy
from bcgan_tf.defenses.boundary_adversarial import (
    BoundaryTraining,
    FilteredBoundaryTraining,
)
from bcgan_tf.defenses.presets import defense as defense_named
from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    PARTIAL_PREFIX,
    as_json,
    file_digest,
    move_into_place,
)
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.reproduction import measures
from bcgan_tf.reproduction.ablation_page import ablation_page
from bcgan_tf.reproduction.ablation_settings import (
    ARMS,
    DEFENSES,
    AblationSettings,
    arms_of,
    check_defenses,
)
from bcgan_tf.reproduction.measures import TableRow, stage
from bcgan_tf.reproduction.protocol import protocol
from bcgan_tf.reproduction.rows import lasting_settings, original_of
from bcgan_tf.reproduction.workspace import Workspace, digest
from bcgan_tf.runs.history import ELSEWHERE
from bcgan_tf.settings.defenses import GENERATED
from bcgan_tf.settings.kinds import RADIUS
from bcgan_tf.settings.presets import recipe
from bcgan_tf.workflows.harden import harden

_IDENTITY = ("dataset", "preset", "seed", "settings", "eps")
_NETWORK = "strided_cnn"


def ablation(
    workspace: Workspace,
    settings: AblationSettings,
    defenses: Sequence[str] = (),
    *,
    results: Path,
    command: str,
) -> Path:
    """Trains every arm of every defence with every seed, and measures each.

    What is finished is kept in the cache, and the pages are written after every training; what
    another call published with the same settings, before or meanwhile, stays on them.

    Args:
        workspace: the data, preset, first seed and cache.
        settings: the sizes.
        defenses: of :data:`bcgan_tf.reproduction.ablation_settings.DEFENSES`; none: all.
        results: where ``ablation-<dataset>.json`` and ``.md`` are written.
        command: a command line that repeats it, for the page.

    Returns:
        The page.

    Raises:
        UserError: no such defence, data without a radius to defend, or a training that failed.
    """
    chosen = check_defenses(defenses)
    data = workspace.data
    if data.name not in RADIUS:
        raise UserError(f"the ablation needs a radius, and {data.name} has none of its own")
    document: dict[str, Any] = {
        "dataset": data.name,
        "preset": workspace.preset,
        "seed": workspace.seed,
        "settings": as_json(settings.to_dict()),
        "eps": RADIUS[data.name],
        "command": command,
        "runs": {},
    }
    page = results / f"ablation-{data.name}.md"
    workspace.published(page, document, _IDENTITY)
    # Seeds outermost: after the first seed every arm has one figure.
    for seed in range(workspace.seed, workspace.seed + settings.seeds):
        for defense in chosen:
            for arm in arms_of(defense):
                print(f"ablation: {defense}, {arm}, seed {seed}", file=sys.stderr, flush=True)
                measured = _measured(workspace, settings, defense, arm, seed)
                found = document["runs"].setdefault(defense, {}).setdefault(arm, {})
                found[str(seed)] = as_json(measured)
                _publish(workspace, document, (defense, arm, str(seed)), page)
    return page


def _publish(
    workspace: Workspace, document: dict[str, Any], newest: tuple[str, str, str], page: Path
) -> None:
    """Writes both files, with the published runs of the same settings, in a fixed order.

    Of ``document``, which has the runs of this process alone, ``newest`` (defence, arm, seed) is
    new.
    """

    def joined(before: dict[str, Any]) -> dict[str, Any]:
        ours, theirs = document["runs"], before.get("runs", {})
        runs: dict[str, Any] = {}
        for defense, arm in itertools.product(DEFENSES, ARMS):
            own = ours.get(defense, {}).get(arm, {})
            seeds = {**own, **theirs.get(defense, {}).get(arm, {})}
            if (defense, arm) == newest[:2]:
                seeds[newest[2]] = own[newest[2]]
            if seeds:
                runs.setdefault(defense, {})[arm] = dict(sorted(seeds.items()))
        return {**document, "runs": runs}

    workspace.publish(page, document, _IDENTITY, joined, ablation_page)


def _measured(
    workspace: Workspace, settings: AblationSettings, defense: str, arm: str, seed: int
) -> dict[str, Any]:
    """``clean``, ``standard``, ``certified``, and how it was trained."""
    seeded = dataclasses.replace(workspace, seed=seed)
    original, file = _trained(seeded, settings, defense, arm)
    sizes = protocol(
        workspace.data.name,
        workspace.preset,
        {"standard_n": settings.n, "eps": RADIUS[workspace.data.name]},
    )
    # Measured with one seed: what differs between arms is the training.
    subject = TableRow(workspace, sizes, f"ablation-{defense}-{arm}", file, original)
    proved = _certified(subject)
    return {
        "clean": measures.clean(subject),
        "standard": measures.standard(subject, skip_certified=proved["accuracy"] > 0),
        "certified": proved,
        **measures.provenance(subject),
    }


def _certified(subject: TableRow) -> dict[str, Any]:
    test, eps = subject.workspace.data.test, subject.protocol.eps
    with subject.open("certified", {"eps": eps}) as run:

        def measure() -> dict[str, Any]:
            share = certified_accuracy(subject.model, test.scaled(), test.labels, eps)
            return {"accuracy": share, "n": len(test)}

        return stage(run, measures.SUMMARY, measure)


def _trained(
    workspace: Workspace, settings: AblationSettings, defense: str, arm: str
) -> tuple[Path, Path]:
    """The files of the original network and of the network that an arm hardens it to."""
    plan = dataclasses.replace(
        recipe(workspace.data.name, workspace.preset),
        architecture=_NETWORK,
        architecture_width=settings.width,
        threshold=settings.threshold,
        classifier_epochs=settings.classifier_epochs,
        dtype=None,
    )
    original = original_of(workspace, plan)
    options = settings.options(defense, arm)
    chosen = defense_named(
        defense,
        plan.dataset,
        plan.preset,
        options=options,
        seed=workspace.seed,
        devices=workspace.devices,
    )
    assert isinstance(chosen, BoundaryTraining)
    identity = {**lasting_settings(chosen), "original": file_digest(original)}
    with workspace.open_run("harden", f"ablation-{defense}-{arm}", identity) as run:
        shared_folders = _shared_folders(workspace, chosen, original)
        for name, folder in shared_folders.items():
            own = run.checkpoints / name
            if folder.exists() and not own.exists():
                _copy_folder(folder, own)
                (own / ELSEWHERE).touch()
        file = harden(run, workspace.data, load_classifier(original), chosen, plan)
        for name, folder in shared_folders.items():
            if name != "gan" or not chosen.refresh_epochs:  # as it was before the training
                _copy_folder(run.checkpoints / name, folder)
    return original, file


def _shared_folders(
    workspace: Workspace, defense: BoundaryTraining, original: Path
) -> dict[str, Path]:
    """Trainings that several arms share: checkpoint folder's name to its place in the cache."""
    if defense.fakes not in GENERATED:
        return {}
    known = {"dataset": workspace.data.name, "seed": workspace.seed}
    gan = {"gan": dataclasses.asdict(defense.gan_settings()), "original": file_digest(original)}
    found = {"gan": workspace.cache / f"ablation-gan-{digest(known | gan)}"}
    if isinstance(defense, FilteredBoundaryTraining) and defense.oracle_epochs:
        oracle = {"epochs": defense.oracle_epochs, "batch_size": defense.batch_size}
        found["oracle"] = workspace.cache / f"ablation-oracle-{digest(known | oracle)}"
    return found


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a folder atomically; does nothing where the target exists by then."""
    if target.exists():
        return
    partial = target.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, partial)
        move_into_place(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not (isinstance(error, OSError) and target.exists()):
            raise
