"""The card beside an export, what an evaluation adds to it, and exports that are refused."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import bcgan_tf
from bcgan_tf.errors import UserError
from bcgan_tf.loading.digest import model_digest
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import card as model_card
from bcgan_tf.serving.export import export, verify
from bcgan_tf.settings.attack import EvaluationConfig
from helpers.exports import NAMES


def test_the_card_says_it_all(exported):
    card = json.loads((exported / "export.json").read_text())
    versions = card.pop("versions")
    assert versions == {
        "bcgan_tf": bcgan_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": sys.version.split()[0],
    }
    file = exported / "assets.extra" / "classifier.keras"
    assert card.pop("keras_file") == {
        "path": "assets.extra/classifier.keras",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "model_sha256": model_digest(file),
    }
    assert card == {
        "model": "digits",
        "classes": ["a", "b", "c", "d"],
        "input": {"shape": [8, 8, 1], "dtype": "float32", "range": [0.0, 1.0]},
        "signatures": ["serving_default", "serve_bytes"],
        "checks": {"pixels": True, "max_megapixels": 64.0},
        "parameters": 26 * 32 + (25 * 32 + 1) * 64 + (4 * 64 + 1) * 4,
        "defense": {"name": "bcgan", "beta": 0.3},
        "clean_accuracy": 0.97,
        "robust_accuracy": [
            {"attack": "pgd", "eps": 0.1, "n": 200, "accuracy": 0.31},
            {"attack": "cw-l2", "eps": None, "n": 100, "accuracy": 0.0},
        ],
        "run": "20260101-120000-run-digits",
    }


def test_what_was_not_measured_is_null(classifier, tmp_path):
    path = export(classifier, tmp_path / "m", class_names=NAMES, card={"note": "as trained"})
    card = json.loads((path / "export.json").read_text())
    assert card["robust_accuracy"] is card["clean_accuracy"] is card["defense"] is None
    assert card["note"] == "as trained"


def test_an_evaluation_of_the_very_model_is_on_the_card(classifier, tmp_path):
    images = np.random.RandomState(0).rand(12, 8, 8, 1).astype(np.float32)
    labels = np.asarray(classifier(images)).argmax(-1)
    found = bcgan_tf.evaluate(classifier, images, labels, eps=0.01, diagnose=False)
    path = export(classifier, tmp_path / "m", evaluation=found, card={"run": "mine"})
    card = json.loads((path / "export.json").read_text())
    assert card["classes"] == ["0", "1", "2", "3"] and card["run"] == "mine"
    assert card["clean_accuracy"] == 1
    (entry,) = card["robust_accuracy"]
    assert (entry["eps"], entry["n"]) == (0.01, 12)
    assert entry["accuracy"] == found.robust_accuracy
    assert entry["interval95"] == list(found.interval95())
    other = keras.models.clone_model(classifier)
    other.set_weights([2 * weight for weight in classifier.get_weights()])
    with pytest.raises(UserError, match="the evaluation is of another model"):
        export(other, tmp_path / "m", evaluation=found)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"classes": []}, "classes is filled in"),
        ({"keras_file": None}, "keras_file is filled in"),
        ({"robust_accuracy": [{"attack": "pgd", "accuracy": 0.5}]}, "lacks eps, n"),
        ({"robust_accuracy": [0.5]}, "lacks accuracy, attack, eps, n"),
    ],
)
def test_a_card_that_claims_too_much_is_refused(classifier, tmp_path, card, message):
    with pytest.raises(UserError, match=message):
        export(classifier, tmp_path / "m", class_names=NAMES, card=card)
    assert not (tmp_path / "m").exists()


def test_every_weight_is_stored_once_and_no_path_of_this_machine(classifier, exported):
    stored = sum(file.stat().st_size for file in exported.glob("variables/*"))
    assert 0 <= stored - 4 * classifier.count_params() < 5000  # no optimizer either
    kept = keras.models.load_model(exported / "assets.extra" / "classifier.keras")
    assert getattr(kept, "optimizer", None) is None and classifier.optimizer is not None
    for ours, theirs in zip(kept.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for file in exported.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for folder in (exported.parent, Path(bcgan_tf.__file__).parent, Path.home()):
                assert str(folder).encode() not in content, file


def test_the_keras_file_can_be_left_out(classifier, tmp_path):
    path = export(classifier, tmp_path / "m", class_names=NAMES, card={}, keras_file=False)
    assert not (path / "assets.extra" / "classifier.keras").exists()
    assert "keras_file" not in json.loads((path / "export.json").read_text())


def test_a_model_that_keras_cannot_read_back_has_no_keras_file(tmp_path):
    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    image = keras.Input((4, 4, 1))
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(Doubled()(image)))
    path = export(keras.Model(image, logits), tmp_path / "m", class_names=NAMES, card={})
    assert not (path / "assets.extra" / "classifier.keras").exists()
    assert json.loads((path / "export.json").read_text())["keras_file"] is None
    assert verify(path) == 0.0


def test_a_full_disk_is_no_reason_for_a_version_without_its_keras_file(
    classifier, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(classifier), "save", full)
    with pytest.raises(UserError, match="m is full; make room on it"):
        export(classifier, tmp_path / "m", class_names=NAMES, card={})
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize(
    ("told", "is_disk"),
    [
        ("variables/variables.data-00000-of-00001; No space left on device", True),
        ("variables/variables.index; Disk quota exceeded", True),
        ("OOM when allocating tensor with shape[4096,4096]", False),
    ],
)
def test_a_full_disk_is_not_taken_for_a_full_memory(
    classifier, tmp_path, monkeypatch, told, is_disk
):
    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, told)

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", exhausted)
    expected = UserError if is_disk else tf.errors.ResourceExhaustedError
    with pytest.raises(expected, match="m is full; make room on it" if is_disk else "OOM"):
        export(classifier, tmp_path / "m", class_names=NAMES, card={})
    assert list((tmp_path / "m").iterdir()) == []


def visible(directory: Path) -> list[str]:
    """The versions a server would load."""
    return sorted(entry.name for entry in directory.iterdir() if entry.name.isdigit())


def test_mistakes_before_anything_is_written(classifier, tmp_path):
    with pytest.raises(UserError, match="4 outputs, but there are 3 classes"):
        export(classifier, tmp_path / "m", class_names="abc", card={})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(classifier, tmp_path / "file", class_names=NAMES, card={})
    assert visible(tmp_path) == []
    assert not (tmp_path / "m").exists()


def test_verify_finds_what_differs(classifier, exported, tmp_path):
    assert verify(exported, classifier) <= 1e-5
    assert verify(exported.parent) == 0.0  # the newest version, with nothing to compare it with
    other = small_cnn((8, 8, 1), 4, seed=0)
    kernel, bias = other.layers[-1].get_weights()
    other.layers[-1].set_weights([kernel, bias + np.float32([0, 0, 0, 1e-3])])
    with pytest.raises(UserError, match=r"differ by up to 0\.001"):
        verify(exported, other)
    with pytest.raises(UserError, match="has 4 classes, not 3"):
        verify(exported, small_cnn((8, 8, 1), 3))
    with pytest.raises(UserError, match="holds no exported model"):
        verify(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    with pytest.raises(UserError, match="no model exported by bcgan_tf"):
        verify(tmp_path / "foreign")


ENTRY = {
    "suite": "standard",
    "norm": "linf",
    "eps": 0.3,
    "n": 1000,
    "clean_accuracy": 0.98,
    "robust_accuracy": 0.9,
    "robust_interval95": [0.88, 0.92],
    "verdict": {"kind": "robust"},
    "certified": {"accuracy": 0.85, "interval95": [0.83, 0.87], "n": 1000, "method": "proof"},
}
PGD = {"attack": "PGD-40", "eps": 0.3, "n": 200, "accuracy": 0.93}


def test_the_worst_case_stands_before_single_attacks(tmp_path: Path) -> None:
    config = {"dataset": "mnist", "models_sha256": {"a": "1", "b": "2", "c": "2"}}
    with RunDirectory.create(tmp_path / "run", "attack", config, command_line="again") as run:
        other = {"evaluations": [{**ENTRY, "clean_accuracy": 0.5}]}
        run.write_metrics({"models": {"a": other, "b": {"evaluations": [ENTRY]}}})
    before = {"clean_accuracy": 0.97, "robust_accuracy": [PGD], "defense": {"name": "pgd-at"}}
    card = model_card.with_evaluation(before, run, "2")
    worst, single = card["robust_accuracy"]
    assert (worst["accuracy"], worst["eps"], worst["verdict"]) == (0.9, 0.3, "robust")
    assert single == PGD and card["defense"] == {"name": "pgd-at"}
    assert card["clean_accuracy"] == 0.98
    assert card["certified_accuracy"] == [{"eps": 0.3, **ENTRY["certified"]}]
    assert card["evaluation"] == {"run": "run", "command": "again"}
    assert before["robust_accuracy"] == [PGD] and before["clean_accuracy"] == 0.97


def test_merged_shards_are_repeated_by_one_command(tmp_path: Path) -> None:
    settings = EvaluationConfig(eps=8 / 255, n=0, norm="l2", diagnose=False)
    config = {
        "dataset": "cifar10",
        **settings.to_dict(),
        "models": {"net": "my net.keras"},
        "models_sha256": {"net": "1"},
        "surrogate": None,
        "control": "plain.keras",
        "runs_merged": ["s1", "s2"],
    }
    with RunDirectory.create(tmp_path / "m", "merge", config, command_line="attack merge") as run:
        run.write_metrics({"models": {"net": {"evaluations": [ENTRY]}}})
    command = model_card.with_evaluation({}, run, "1")["evaluation"]["command"]
    assert command == (
        "bcgan-tf attack 'my net.keras' --dataset cifar10 --eps 0.03137254901960784 --norm l2 "
        "--n 0 --no-diagnose --control plain.keras"
    )
