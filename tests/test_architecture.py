"""The rooms of the package: imports go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room is a folder or a module of the top floor. Each imports from rooms before it only.
ORDER = (
    "version", "errors", "lazy_images", "files", "array_files", "settings", "interruption",
    "progress", "statistics", "randomness", "distribute", "losses", "keras_graph", "data",
    "networks", "attacks", "certification", "models", "runs", "report", "loading", "evaluation",
    "diagnosis", "perturbation", "training", "defenses", "serving", "workflows", "reproduction",
    "cli",
)  # fmt: skip


def arrows(file: Path) -> Iterator[tuple[str, str]]:
    """From a file to the rooms that it imports: (where, room)."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0, module="bcgan_tf"):
                modules = [f"bcgan_tf.{alias.name}" for alias in node.names]
            case ast.ImportFrom(level=0):
                modules = [str(node.module)]
            case ast.ImportFrom(level=2):  # level 1 stays in its room
                modules = [f"bcgan_tf.{node.module}"]
            case _:
                continue
        for module in modules:
            if module.startswith("bcgan_tf."):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", module.split(".")[1]


@pytest.fixture(scope="module")
def rooms() -> dict[str, list[Path]]:
    """The files of each room."""
    found = {"cli": sorted((ROOT / "cli").rglob("*.py"))}
    for path in sorted((ROOT / "bcgan_tf").iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py":
            found[path.stem] = [path]
        elif (path / "__init__.py").is_file():
            found[path.name] = sorted(path.rglob("*.py"))
    return found


def test_every_room_has_its_place(rooms):
    assert sorted(rooms) == sorted(ORDER)


def test_no_import_goes_against_the_order(rooms):
    against = [
        f"{where}: {room} imports {imported}"
        for room, files in rooms.items()
        for file in files
        for where, imported in arrows(file)
        if imported != room and imported not in ORDER[: ORDER.index(room)]
    ]
    assert against == []


def test_only_the_command_line_imports_the_reproduction(rooms):
    importers = {
        room
        for room, files in rooms.items()
        for file in files
        for _, imported in arrows(file)
        if imported == "reproduction"
    }
    assert importers <= {"cli", "reproduction"}


def test_the_top_floor_is_small():
    assert len(list((ROOT / "bcgan_tf").glob("*.py"))) <= 12
