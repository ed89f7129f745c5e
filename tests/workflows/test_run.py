"""The stages of a run on real digits: done once, and interrupted anywhere, equal in the end."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from bcgan_tf.data import load_dataset
from bcgan_tf.defenses.presets import defense
from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.presets import recipe
from bcgan_tf.training.checkpoints import EpochCheckpoint
from bcgan_tf.workflows import attack as assessment
from bcgan_tf.workflows import run as pipeline

STAGES = (
    "train",
    "gan",
    "oracle",
    "generated_set",
    "harden",
    "evaluate-original",
    "certify-original",
    "diagnose-original",
    "losses-original",
    "radii-original",
    "evaluate-hardened",
    "certify-hardened",
    "diagnose-hardened",
    "losses-hardened",
    "radii-hardened",
    "export-begin",
    "export",
)
CONFIG = {"dataset": "digits", "seed": 3}

BCGAN = defense(
    "bcgan",
    "digits",
    options={
        "gan_epochs": 2,
        "generator_width": 0.1,
        "discriminator_width": 0.1,
        "latent_dim": 8,
        "delay_epochs": 0.0,
        "warmup_epochs": 1.0,
        "epochs": 2,
    },
    seed=3,
    devices=1,
)


@pytest.fixture(scope="module")
def data():
    digits = load_dataset("digits")
    return dataclasses.replace(
        digits,
        train=digits.train.take(256),
        validation=digits.validation.take(50),
        test=digits.test.take(60),
    )


@pytest.fixture(scope="module")
def tiny():
    return dataclasses.replace(
        recipe("digits"),
        classifier_epochs=2,
        oracle_epochs=1,
        generated_samples=50,
        n=30,
    )


def create(folder):
    return RunDirectory.create(folder, "run", CONFIG, resume=True)


def finish(folder, data, tiny):
    with create(folder / "run") as run:
        metrics = pipeline.run(
            run,
            data,
            BCGAN,
            tiny,
            eps=0.1,
            saved_models_dir=folder / "models",
        )
        return run, metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data, tiny, quick_on_digits):
    """An uninterrupted run: its folder, the run, the metrics."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *finish(folder, data, tiny)


def test_every_stage_leaves_what_it_makes(whole):
    folder, run, metrics = whole
    assert list(run.stage_seconds()) == list(STAGES)
    names = {path.name for path in run.path.iterdir()}
    assert {"classifier.keras", "hardened.keras", "oracle.keras", "gan.keras"} <= names
    assert {"report.html", "metrics.json", "history.csv"} <= names
    assert not [name for name in names if "partial" in name]
    figures = {path.name for path in run.figures.rglob("*.png")}
    expected = {"boundary_samples.png", "examples-original-fast-linf-0.1.png"}
    assert expected | {"samples_epoch_0001.png", "samples_epoch_0002.png"} <= figures
    history = run.history.read()
    assert {stage: len(next(iter(v.values()))) for stage, v in history.items()} == {
        "train": 2,
        "gan": 2,
        "oracle": 1,
        "harden": 2,
    }
    assert metrics["exported"] == str(folder / "models" / "digits-bcgan" / "1")
    assert json.loads((run.path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))


def test_the_metrics_are_those_of_the_saved_models(whole, data):
    _, run, metrics = whole
    for name, file in (("original", "classifier.keras"), ("hardened", "hardened.keras")):
        model = keras.models.load_model(run.path / file)
        part = data.test.take(30, seed=0)
        predicted = np.argmax(model(part.scaled(), training=False), -1)
        accuracy = np.mean(predicted == part.labels)
        assert metrics["models"][name]["clean_accuracy"] == pytest.approx(accuracy)
        assert metrics["models"][name]["n"] == 30
        (evaluation,) = metrics["models"][name]["evaluations"]
        assert evaluation["eps"] == 0.1 and evaluation["verdict"]["kind"]
    assert metrics["generated_set"]["n"] == 50
    assert metrics["generated_set"]["classes"] == 10
    original, hardened = (
        keras.models.load_model(run.path / file) for file in ("classifier.keras", "hardened.keras")
    )
    assert (original.get_weights()[0] != hardened.get_weights()[0]).any()


def test_the_card_says_what_was_measured(whole, tiny):
    folder, run, metrics = whole
    card = json.loads(next((folder / "models").rglob("export.json")).read_text())
    hardened = metrics["models"]["hardened"]
    assert card["clean_accuracy"] == hardened["clean_accuracy"]
    assert card["run"] == run.path.name
    assert card["defense"]["beta"] == BCGAN.beta
    (worst,) = card["robust_accuracy"]
    (evaluation,) = hardened["evaluations"]
    assert worst["attack"] == "worst case of the suite fast"
    assert (worst["eps"], worst["n"]) == (0.1, 30)
    assert worst["accuracy"] == evaluation["robust_accuracy"]
    assert worst["verdict"] == evaluation["verdict"]["kind"]


def test_a_finished_run_trains_attacks_and_exports_nothing(whole, data, tiny, monkeypatch):
    folder, _, metrics = whole

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished stage was done again")

    monkeypatch.setattr(keras.Model, "fit", forbidden)
    monkeypatch.setattr(assessment, "run_suite", forbidden)
    monkeypatch.setattr(assessment, "diagnose", forbidden)
    monkeypatch.setattr(pipeline.serving, "export", forbidden)
    _, again = finish(folder, data, tiny)
    assert again == metrics


def numbers(value, place=()):
    """Every leaf of nested results but times by its place, to compare with a tolerance."""
    if place[-1:] == ("seconds",):
        return {}
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in items for k, v in numbers(part, (*place, key)).items()}
    return {place: value}


def test_interrupted_after_every_stage_and_in_mid_training(
    whole, data, tiny, tmp_path, monkeypatch
):
    """Killed at each mark, after each first epoch, and right after publishing, then resumed."""
    _, run, metrics = whole
    finish_stage, save = RunDirectory.finish_stage, EpochCheckpoint.on_epoch_end
    stopped = set()

    def stop_once(place):
        if place not in stopped:
            stopped.add(place)
            raise KeyboardInterrupt

    def finish_and_stop(self, name, payload=None, files=()):
        finish_stage(self, name, payload, files)
        stop_once(name)

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        stop_once(f"{self.directory.name} epoch")

    publish = pipeline.serving.export

    def publish_and_stop(*args, **kwargs):
        path = publish(*args, **kwargs)
        stop_once("published")
        return path

    monkeypatch.setattr(pipeline.serving, "export", publish_and_stop)
    monkeypatch.setattr(RunDirectory, "finish_stage", finish_and_stop)
    monkeypatch.setattr(EpochCheckpoint, "on_epoch_end", save_and_stop)
    for _ in range(30):
        try:
            resumed, found = finish(tmp_path, data, tiny)
            break
        except KeyboardInterrupt:
            continue
    # In the middle of three of these, and at the end of the oracle's only epoch.
    epochs = {f"{stage} epoch" for stage in ("train", "gan", "oracle", "harden")}
    assert stopped == {*STAGES, *epochs, "published"}
    # Equal to the last bit with op determinism only; here up to the rounding of threads.
    found, expected = numbers(found), numbers(metrics)
    assert found.pop(("exported",)) == str(tmp_path / "models" / "digits-bcgan" / "1")
    expected.pop(("exported",))
    assert found == pytest.approx(expected, abs=1e-4)
    again, history = numbers(resumed.history.read()), numbers(run.history.read())
    assert again == pytest.approx(history, abs=1e-4)
    for file in ("classifier.keras", "hardened.keras", "gan.keras"):
        one, other = (
            keras.models.load_model(folder / file).weights for folder in (run.path, resumed.path)
        )
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(list((tmp_path / "models" / "digits-bcgan").iterdir())) == 1


def test_a_run_with_another_defence(whole, data, tiny, tmp_path):
    _, first, _ = whole
    classifier = adapted_classifier(first.path / "classifier.keras")
    options = {"epochs": 1, "steps": 2, "eps": 0.1, "batch_size": 64, "ramp_epochs": 0.0}
    with create(tmp_path / "run") as run:
        metrics = pipeline.run(
            run,
            data,
            defense("pgd-at", "digits", options=options),
            tiny,
            classifier=classifier,
            eps=0.1,
            saved_models_dir=tmp_path,
        )
    assert metrics["exported"] == str(tmp_path / "digits-pgd-at" / "1")
    card = json.loads((tmp_path / "digits-pgd-at" / "1" / "export.json").read_text())
    assert card["defense"]["defense"] == "pgd-at" and card["defense"]["steps"] == 2
    assert "generated_set" not in metrics and (run.path / "report.html").exists()


def test_a_batch_that_does_not_divide(data, tiny, tmp_path, two_replicas):
    odd = dataclasses.replace(tiny, classifier_batch_size=33)
    with create(tmp_path / "run") as run, pytest.raises(UserError, match="divide by 2"):
        pipeline.train(run, data, odd, devices=2)
