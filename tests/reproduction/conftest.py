"""Rows that are not trained: a linear classifier of the embedded digits, saved in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bcgan_tf
from bcgan_tf.data import Dataset
from bcgan_tf.files import lock_folder
from bcgan_tf.reproduction import tables
from bcgan_tf.reproduction import workspace as workspaces
from bcgan_tf.reproduction.workspace import Workspace


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return bcgan_tf.load_dataset("digits")


@pytest.fixture(scope="session")
def weights(digits: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``[64, 10]`` and bias of the least-squares classifier, some 93 % right."""
    flat = digits.train.scaled().reshape(-1, 64).astype(np.float64)
    wide = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    wanted = 4 * np.eye(10)[digits.train.labels]
    solved = np.linalg.solve(wide.T @ wide + 5 * np.eye(65), wide.T @ wanted)
    return solved[:64].astype(np.float32), solved[64].astype(np.float32)


@pytest.fixture(scope="session")
def linear(weights: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))
    model.set_weights(list(weights))
    return model


@pytest.fixture
def workspace(digits: Dataset, tmp_path: Path) -> Workspace:
    return Workspace(digits, "quick", 0, tmp_path / "cache")


@pytest.fixture
def trained(linear: keras.Model, monkeypatch: pytest.MonkeyPatch) -> dict[str, keras.Model]:
    """Row to the model that "training" gives in place of the linear one."""
    models: dict[str, keras.Model] = {}

    def train(workspace: Workspace, row: str) -> Path:
        with workspace.open_run("train", row, {"epochs": 3, "note": None}) as run:
            file = run.path / "classifier.keras"
            if not run.stage_done("train"):
                models.get(row, linear).save(file)
                run.finish_stage("train")
        return file

    monkeypatch.setattr(tables, "trained", train)
    return models


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[Any]]:
    """``counted(module, "function")``: the list of its calls from now on."""

    def count(module: Any, name: str) -> list[Any]:
        calls: list[Any] = []
        function = getattr(module, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            calls.append((arguments, options))
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, noted)
        return calls

    return count


@pytest.fixture
def publishing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Any]], list[Any]]:
    """``publishing(write)``: from now another process is at it; it writes at the second look.

    Returns the list of the looks.
    """

    def begin(write: Callable[[], Any]) -> list[Any]:
        workspace.cache.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(workspace.cache)
        looks: list[Any] = []

        def look(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 2:
                write()
                lock.release()

        monkeypatch.setattr(workspaces.time, "sleep", look)
        return looks

    return begin
