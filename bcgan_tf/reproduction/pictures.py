"""The paper's Figures 2 and 4, drawn anew: pictures, and beside them a page with the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from bcgan_tf.defenses import DefenseGANTraining
from bcgan_tf.errors import UserError
from bcgan_tf.files import file_digest, replace_file
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.reproduction import rows as table_rows
from bcgan_tf.reproduction.picture_pages import figure2_page, figure4_page
from bcgan_tf.reproduction.toy import ToySettings, toy
from bcgan_tf.reproduction.workspace import Workspace, digest
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.kinds import RADIUS
from bcgan_tf.workflows.boundary import BoundarySettings, boundary

# What Figure 4 shows unless rows are named, and how many stay readable side by side.
FIGURE_4_ROWS = ("original", "bcgan", "pgd-at", "trades", "distillation")
MOST_MODELS = 5


def figure2(
    results: Path,
    cache: Path,
    seed: int = 0,
    *,
    command: str = "bcgan-tf reproduce figure2",
    **changes: Any,
) -> Path:
    """Draws Figure 2 and writes its numbers beside what is known about them without training.

    Args:
        results: the folder that takes ``figure2.png`` and ``figure2.md``.
        cache: the folder of runs; that of these settings is made, gone on with, or only read.
        seed: of all draws.
        command: printed on the page: what repeats it.
        **changes: settings of :class:`bcgan_tf.reproduction.toy.ToySettings`.

    Returns:
        The page.

    Raises:
        UserError: a setting is out of range, or a training failed.
    """
    settings = ToySettings(seed=seed, **changes)
    config = {"dataset": "gaussians", **settings.to_dict()}
    folder = cache / f"gaussians-toy-{digest(config)}"
    with RunDirectory.create(folder, "toy", config, resume=True, command_line=command) as run:
        metrics = run.metrics() or toy(run, settings)
        (picture,) = _copy_pictures({"figure2.png": run.figures / "toy.png"}, results)
        text = figure2_page(metrics, settings, picture, command, _made_with(run, seed))
    return replace_file(results / "figure2.md", text.encode())


def figure4(
    workspace: Workspace,
    results: Path,
    rows: Sequence[str] = FIGURE_4_ROWS,
    *,
    settings: BoundarySettings | None = None,
    command: str = "",
) -> Path:
    """Draws Figure 4 for rows of Table 1: the boundaries around one test image, side by side.

    The original network comes first, named or not: its directions are the shared ones. Rows
    without boundaries that could be drawn, such as Defense-GAN's, which answers differently at
    every call, are left out before anything is trained for them.

    Args:
        workspace: data, preset, seed and cache; what is missing is trained.
        results: the folder that takes ``figure4-<dataset>.md`` and its pictures.
        rows: of :data:`bcgan_tf.reproduction.rows.ROWS`.
        settings: of the planes; None: the defaults, with the data set's usual eps for PGD.
        command: printed on the page, with the rows after it if they are not the default ones.

    Returns:
        The page.

    Raises:
        UserError: no such row, too many of them, or no test image that all classify right.
    """
    drawn, left_out = _drawable(workspace, rows)
    name = workspace.data.name
    if settings is None:
        settings = BoundarySettings(eps=RADIUS.get(name, 0.3), seed=workspace.seed)
    command = command or (
        f"bcgan-tf reproduce figure4 --dataset {name} --preset {workspace.preset} "
        f"--seed {workspace.seed}"
    )
    if tuple(rows) != FIGURE_4_ROWS and "--rows" not in command:
        command += f" --rows {','.join(rows)}"
    files = {row: table_rows.trained(workspace, row) for row in drawn}
    config = {**settings.to_dict(), "models": {row: file_digest(f) for row, f in files.items()}}
    with workspace.open_run("boundary", "figure4", config) as run:
        metrics = run.metrics()
        if not metrics:
            metrics = boundary(run, workspace.data, _loaded(files, workspace), settings)
        prefix = "boundary_plane_"
        pictures = _copy_pictures(
            {
                f"figure4-{name}-{file.stem.removeprefix(prefix).replace('_', '-')}.png": file
                for file in sorted(run.figures.glob(f"{prefix}*.png"))
            },
            results,
        )
        made_with = f"Preset {workspace.preset}. {_made_with(run, workspace.seed)}"
    text = figure4_page(metrics, settings, pictures, left_out, command, made_with)
    return replace_file(results / f"figure4-{name}.md", text.encode())


def _drawable(workspace: Workspace, rows: Sequence[str]) -> tuple[list[str], list[str]]:
    """The rows to draw, the original first, and those that have no boundary to draw."""
    wanted = list(dict.fromkeys(["original", *rows]))
    left_out = [
        row
        for row in wanted
        if isinstance(
            table_rows.defense_of_row(row, workspace.data.name, workspace.preset),
            DefenseGANTraining,
        )
    ]
    drawn = [row for row in wanted if row not in left_out]
    if len(drawn) > MOST_MODELS:
        raise UserError(
            f"{len(drawn)} models do not stay readable side by side; choose at most "
            f"{MOST_MODELS} rows, the original among them"
        )
    return drawn, left_out


def _loaded(files: Mapping[str, Path], workspace: Workspace) -> dict[str, keras.Model]:
    data = workspace.data
    return {
        row: load_classifier(file, image_shape=data.image_shape, num_classes=data.num_classes)
        for row, file in files.items()
    }


def _copy_pictures(pictures: Mapping[str, Path], results: Path) -> list[str]:
    results.mkdir(parents=True, exist_ok=True)
    for name, file in pictures.items():
        replace_file(results / name, file.read_bytes())
    return list(pictures)


def _made_with(run: RunDirectory, seed: int) -> str:
    env = run.env()
    return (
        f"Seed {seed}, TensorFlow {env['tensorflow']}, Keras {env['keras']}, "
        f"Python {env['python']}, {env['cpu_count']} CPU cores."
    )
