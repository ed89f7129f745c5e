"""Short attacks and a planned diagnosis in place of the long ones, and a run undisturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from bcgan_tf import files
from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.diagnosis.diagnostics import Diagnosis
from bcgan_tf.evaluation import runner, suite_run
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.networks import classifiers
from bcgan_tf.report import evaluation_figures
from bcgan_tf.training import fit
from helpers.classifiers import linear_digits
from helpers.evaluations import attack_toy
from helpers.suites import plan_diagnosis, planned_diagnosis


def _shorten(monkeypatch: pytest.MonkeyPatch, classes: int = 4) -> None:
    def attacks(
        name: str, eps: float, *, norm: str, num_classes: int, precision: str, **shared: Any
    ):
        assert num_classes == classes
        return FGSM(eps, norm=norm, **shared), PGD(eps, norm=norm, steps=4, **shared)

    def draw(images: np.ndarray, adversarials: np.ndarray, path: Path, **_: Any) -> Path:
        assert images.shape == adversarials.shape
        return files.replace_file(path, b"a picture, which takes longer than all the rest")

    monkeypatch.setattr(suite_run, "suite", attacks)
    monkeypatch.setattr(runner, "_CHUNK", 25)
    monkeypatch.setattr(evaluation_figures, "example_images", draw)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short attacks in place of every suite, and in chunks, so that there is what to kill."""
    _shorten(monkeypatch)


@pytest.fixture(scope="module")
def quick_on_digits() -> Iterator[None]:
    """Short attacks, a planned diagnosis and linear networks for all tests of a module."""

    def network(*_: Any, seed: int, **_options: Any) -> keras.Model:
        return linear_digits(seed)

    with pytest.MonkeyPatch.context() as monkeypatch:
        _shorten(monkeypatch, classes=10)
        plan_diagnosis(monkeypatch)
        monkeypatch.setattr(classifiers, "classifier", network)
        monkeypatch.setattr(fit, "build_oracle", network)
        yield


@pytest.fixture
def diagnosed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the diagnosis was asked; it raises a flag for a model that is called masked.

    Both it and the loss curves take seconds; what they measure is tested with them.
    """
    asked: list[dict[str, Any]] = []

    def diagnose(task: EvaluationTask, evaluation: Evaluation, **options: Any) -> Diagnosis:
        asked.append({"task": task, "evaluation": evaluation, **options})
        return planned_diagnosis(raised=getattr(task.model, "masked", False))

    plan_diagnosis(monkeypatch, diagnose)
    return asked


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing disturbed, without a diagnosis: its folder and its metrics."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _shorten(monkeypatch)
        return folder, attack_toy(folder)
