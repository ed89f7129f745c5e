"""The command line in this process, in an empty folder, with the long work recorded instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import keras
import pytest

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.cli import main
from bcgan_tf.diagnosis.diagnostics import Diagnosis
from bcgan_tf.evaluation import suite_run
from bcgan_tf.serving import export as serving
from bcgan_tf.workflows import run as pipeline
from helpers.classifiers import linear_digits
from helpers.suites import plan_diagnosis, planned_diagnosis

CLEAN = {"clean_accuracy": 0.9, "clean_interval95": [0.86, 0.93], "n": 360}
EVALUATION = {
    "suite": "standard",
    "eps": 0.1,
    "norm": "linf",
    "n": 360,
    "samples": 1,
    "clean_accuracy": 0.9,
    "clean_interval95": [0.86, 0.93],
    "robust_accuracy": 0.5,
    "robust_interval95": [0.45, 0.55],
    "attacks": [
        {
            "attack": "APGD-CE",
            "attacked": 324,
            "broken": 144,
            "left": 0.5,
            "left_interval95": [0.45, 0.55],
            "seconds": 12.34,
        }
    ],
}
MODEL = {**CLEAN, "evaluations": [EVALUATION]}
METRICS = {
    "dataset": "digits",
    "models": {
        "original": MODEL,
        "hardened": {
            **MODEL,
            "clean_accuracy": 0.88,
            "evaluations": [
                {**EVALUATION, "verdict": {"kind": "robust", "text": "robust: as recorded."}}
            ],
        },
    },
    "exported": "saved_models/digits-bcgan/1",
}

Cli = Callable[..., click.testing.Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("train", "--dataset", "digits")``, with stdout and stderr apart."""
    monkeypatch.chdir(tmp_path)
    runner = click.testing.CliRunner()

    def invoke(*arguments: str, **env: str) -> click.testing.Result:
        return runner.invoke(main, list(arguments), env=env, prog_name="bcgan-tf")

    return invoke


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an untrained classifier for digits."""
    path = tmp_path_factory.mktemp("untrained") / "classifier.keras"
    linear_digits().save(path)
    return path.read_bytes()


@pytest.fixture
def model_file(untrained: bytes, tmp_path: Path) -> Path:
    """An untrained classifier for digits, ``classifier.keras`` in the working directory."""
    path = tmp_path / "classifier.keras"
    path.write_bytes(untrained)
    return path


@pytest.fixture
def pipeline_calls(untrained: bytes, monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the commands asked of the pipeline; nothing is trained, attacked or exported."""
    calls: list[SimpleNamespace] = []

    def note(name: str, run: Any, **arguments: Any) -> None:
        calls.append(SimpleNamespace(name=name, run=run.path, config=run.config, **arguments))

    def save(run: Any, name: str) -> Path:
        path = run.path / name
        path.write_bytes(untrained)
        return path

    def train(run: Any, data: Any, recipe: Any, **options: Any) -> Path:
        note("train", run, data=data.name, recipe=recipe, **options)
        print("progress")
        path = save(run, "classifier.keras")
        run.finish_stage("train", {"classes": data.class_names}, files=[path])
        return path

    def harden(run: Any, data: Any, classifier: keras.Model, defense: Any, recipe: Any) -> Path:
        note("harden", run, data=data.name, recipe=recipe, classifier=classifier, defense=defense)
        run.add_metrics(generated_set={"n": 10, "oracle_accuracy": 0.5})
        path = save(run, "hardened.keras")
        run.finish_stage("harden", files=[path])
        return path

    def evaluate_models(
        run: Any, data: Any, models: Any, settings: Any, **options: Any
    ) -> dict[str, Any]:
        options.pop("progress")
        note("evaluate", run, data=data.name, models=list(models), settings=settings, **options)
        return run.add_metrics(
            dataset=data.name, models={name: MODEL for name in models}, unfinished=None
        )

    def whole(run: Any, data: Any, defense: Any, recipe: Any, **options: Any) -> dict[str, Any]:
        seeds = {"seed": defense.seed, "devices": defense.devices}
        note("run", run, data=data.name, defense=defense, recipe=recipe, **seeds, **options)
        run.finish_stage("harden", {"defense": {"beta": 0.1, **defense.config()}})
        run.write_metrics(METRICS)
        return METRICS

    for function in (train, harden, evaluate_models):
        monkeypatch.setattr(pipeline, function.__name__, function)

    def report(run: Any) -> Path:
        (run.path / "report.html").touch()
        return run.path / "report.html"

    monkeypatch.setattr(pipeline, "run", whole)
    monkeypatch.setattr(pipeline, "report", report)

    def export(classifier: keras.Model, directory: Path, **options: Any) -> Path:
        calls.append(SimpleNamespace(name="export", directory=directory, **options))
        return directory / "1"

    monkeypatch.setattr(serving, "export", export)
    return calls


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two short attacks in place of a suite; gives what each diagnosis, not done, was told."""
    told: list[dict[str, Any]] = []

    def attacks(
        name: str, eps: float, *, norm: str, num_classes: int, precision: str, **shared: Any
    ):
        return FGSM(eps, norm=norm, **shared), PGD(eps, norm=norm, steps=2, **shared)

    def diagnose(*_args: Any, **options: Any) -> Diagnosis:
        told.append(options)
        return planned_diagnosis()

    monkeypatch.setattr(suite_run, "suite", attacks)
    plan_diagnosis(monkeypatch, diagnose)
    return told
