"""What an evaluation measures and writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.certification.certified import certified
from bcgan_tf.diagnosis.loss_curves import loss_curves
from bcgan_tf.evaluation import archive
from bcgan_tf.report import evaluation_figures
from bcgan_tf.report.evaluation_figures import example_images
from bcgan_tf.statistics import wilson_interval
from bcgan_tf.workflows import attack as assessment
from helpers.evaluations import (
    EPS,
    LABELS,
    SETTINGS,
    WEIGHTS,
    arrays,
    attack_toy,
    dataset,
    linear,
)


def test_what_a_run_holds(quick, diagnosed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(assessment, "loss_curves", loss_curves)
    monkeypatch.setattr(evaluation_figures, "example_images", example_images)
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    metrics = attack_toy(tmp_path, settings, control=linear, surrogate=linear, batch_size=7)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    model = metrics["models"]["m"]
    assert model["clean_accuracy"] == 55 / 60 and model["n"] == 60
    (found,) = model["evaluations"]
    evaluation = archive.load(tmp_path / "evaluation-m.npz")
    assert found["robust_accuracy"] == evaluation.robust_accuracy
    assert [attack["attack"] for attack in found["attacks"]] == ["FGSM", "PGD-4"]
    assert found["attacks"][1]["attacked"] == round(60 * found["attacks"][0]["left"])
    assert 0.2 < found["robust_accuracy"] < 0.9
    assert found["verdict"]["kind"] == "robust"
    own = found["classes"]
    assert own["names"] == ["a", "b", "c", "d"] and sum(own["n"]) == 60
    np.testing.assert_array_equal(own["n"], np.bincount(LABELS))
    np.testing.assert_array_equal(own["robust"], np.bincount(LABELS[evaluation.worst_case]))
    assert sum(own["clean"]) == 55 and sum(own["robust"]) == 60 * found["robust_accuracy"]
    assert found["verdict"]["accuracy"] == found["robust_accuracy"]
    assert found["diagnosis"]["flags"][0]["text"] == "as planted"
    assert "causes" not in found and found["loss_curves"]["eps"] == EPS
    (asked,) = diagnosed
    assert (
        asked["control"] is linear
        and asked["surrogate"] is linear
        and asked["task"].batch_size == 7
    )
    assert asked["task"].eps == EPS and asked["evaluation"].n == 60
    (examples,) = (tmp_path / "figures").glob("examples-m-standard-linf-0.03*.png")
    assert examples.stat().st_size > 1000


def test_a_suspicious_clean_accuracy_stands_with_the_model(quick, tmp_path: Path) -> None:
    metrics = attack_toy(tmp_path / "a", validation={"m": 0.999})  # 91.7 %, up to 96.4 %
    assert "suspicion" not in metrics["models"]["m"]
    metrics = attack_toy(tmp_path / "b", model=lambda x: -linear(x), validation={"m": 0.999})
    model = metrics["models"]["m"]
    assert model["suspicion"] == model["evaluations"][0]["suspicion"]
    assert "far below the 99.9 % on validation images in its training" in model["suspicion"]


def test_a_masked_model_has_its_causes_measured(quick, diagnosed, tmp_path: Path) -> None:
    def masked(images: tf.Tensor) -> tf.Tensor:
        return 3000.0 * linear(images)

    masked.masked = True  # pyright: ignore[reportFunctionMemberAccess]
    metrics = attack_toy(tmp_path, dataclasses.replace(SETTINGS, diagnose=True), model=masked)
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["verdict"]["kind"] == "gradient masking"
    causes = {row["cause"]: row for row in found["causes"]["rows"]}
    assert causes["logit scale"]["reproduces"] and causes["transfer"]["inflation"] is None


def test_the_paper_is_read_in_both_units(quick, tmp_path: Path) -> None:
    metrics = attack_toy(tmp_path, dataclasses.replace(SETTINGS, suite="paper", eps=0.06))
    wide, narrow = metrics["models"]["m"]["evaluations"]
    assert (wide["eps"], narrow["eps"]) == (0.06, 0.03)
    assert wide["reading"] == "eps 0.06 read as of [0, 1] pixels"
    assert narrow["reading"] == "eps 0.06 read as of [-1, 1] pixels, 0.03 of [0, 1]"
    assert narrow["robust_accuracy"] > wide["robust_accuracy"]
    half = attack_toy(tmp_path / "half", dataclasses.replace(SETTINGS, eps=0.06, eps_unit="11"))
    (told,) = half["models"]["m"]["evaluations"]
    assert told["eps"] == 0.03 and told["reading"] == narrow["reading"]


def test_the_images_are_drawn_with_seed_0(quick, tmp_path: Path) -> None:
    attack_toy(tmp_path, dataclasses.replace(SETTINGS, n=20))
    found = arrays(tmp_path)
    np.testing.assert_array_equal(found["labels"], dataset().test.take(20, seed=0).labels)


def test_the_smallest_perturbations(quick, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, minimum_perturbation=True, n=30)
    metrics = attack_toy(tmp_path, settings)
    (found,) = metrics["models"]["m"]["evaluations"]
    with np.load(tmp_path / "evaluation-m.npz") as saved:
        fgsm, multi, best = (saved[f"minimum_{name}"] for name in ("fgsm", "multi", "best"))
        assert (best <= multi).all() and (multi <= fgsm).all()
        evaluation = archive.load(tmp_path / "evaluation-m.npz")
        broken = evaluation.clean_correct & ~evaluation.worst_case
        assert broken.any() and best[broken].max() <= EPS * (1 + 1e-4)
    assert found["curve"][0] == [0.0, found["clean_accuracy"]]
    assert dict(found["curve"])[0.03] <= found["robust_accuracy"]
    counted = found["distances"]["readings"]["best"]
    assert sum(counted["counts"]) + counted["misclassified"] + counted["not_found"] == 30


def _exact() -> keras.Model:
    """The linear classifier as a Keras model."""
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    model.set_weights([WEIGHTS, -0.5 * WEIGHTS.sum(axis=0)])
    return model


def test_what_is_proved_is_reported(quick, tmp_path: Path) -> None:
    """Of a linear model each distance to another class is known, and the bounds are exact."""
    metrics = attack_toy(tmp_path, model=_exact())
    (found,) = metrics["models"]["m"]["evaluations"]
    images = dataset().test.scaled().reshape(60, 16)
    gaps = (images - 0.5) @ WEIGHTS
    gaps = gaps[np.arange(60), LABELS][:, None] - gaps
    slopes = np.abs(WEIGHTS.T[LABELS][:, None] - WEIGHTS.T).sum(axis=-1)
    others = np.arange(4) != LABELS[:, None]
    safe = ((gaps > EPS * slopes) | ~others).all(axis=1)
    assert 10 < safe.sum() < 50
    assert found["certified"]["accuracy"] == safe.mean() <= found["robust_accuracy"]
    assert found["certified"]["interval95"] == list(wilson_interval(int(safe.sum()), 60))
    assert found["certified"]["n"] == 60


def test_what_is_proved_need_not_be_attacked(quick, tmp_path: Path) -> None:
    """Every image by itself ends as it would have, and the attacks see the others alone."""
    whole = attack_toy(tmp_path / "whole", model=_exact())["models"]["m"]["evaluations"][0]
    settings = dataclasses.replace(SETTINGS, skip_certified=True)
    (found,) = attack_toy(tmp_path / "m", settings, model=_exact())["models"]["m"]["evaluations"]
    proved = certified(_exact(), dataset().test.scaled(), LABELS, EPS)
    ours, theirs = arrays(tmp_path / "m"), arrays(tmp_path / "whole")
    np.testing.assert_array_equal(ours["certified"], proved)
    np.testing.assert_array_equal(ours["worst_case"], theirs["worst_case"])
    np.testing.assert_array_equal(ours["0_attacked"], theirs["0_attacked"] & ~proved)
    np.testing.assert_array_equal(ours["1_attacked"], theirs["1_attacked"] & ~proved)
    assert found["robust_accuracy"] == whole["robust_accuracy"]
    assert found["certified"] == whole["certified"]
    assert found["not_attacked"] == proved.sum() > 10 and "not_attacked" not in whole


def test_what_cannot_be_proved_is_left_out(quick, tmp_path: Path) -> None:
    image = keras.Input((4, 4, 1))
    layers = [keras.layers.LayerNormalization(), keras.layers.Flatten(), keras.layers.Dense(4)]
    unknown = keras.Sequential([image, *layers])
    (found,) = attack_toy(tmp_path, model=unknown)["models"]["m"]["evaluations"]
    assert found["certified"] is None
    settings = dataclasses.replace(SETTINGS, skip_certified=True)
    (asked,) = attack_toy(tmp_path / "s", settings, model=unknown)["models"]["m"]["evaluations"]
    assert asked["robust_accuracy"] == found["robust_accuracy"] and asked["not_attacked"] == 0
    (of_a_function,) = attack_toy(tmp_path / "f")["models"]["m"]["evaluations"]
    assert "certified" not in of_a_function
    settings = dataclasses.replace(SETTINGS, norm="l2", eps=0.05)
    (l2,) = attack_toy(tmp_path / "l2", settings, model=_exact())["models"]["m"]["evaluations"]
    assert "certified" not in l2
