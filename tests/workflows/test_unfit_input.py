"""Hostile input and settings: one line, and nothing lost; extreme ones that are fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcgan_tf.data import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.settings.attack import EvaluationConfig, ThreatModel
from bcgan_tf.settings.kinds import Shard
from helpers.evaluations import (
    LABELS,
    PIXELS,
    SETTINGS,
    attack_toy,
    dataset,
)


def vectors(change: Callable[[np.ndarray], None]) -> Dataset:
    images = Split(PIXELS, LABELS).scaled().reshape(60, 16)
    change(images)
    return dataset(images, LABELS)


def _set(value: float) -> Callable[[np.ndarray], None]:
    def change(images: np.ndarray) -> None:
        images[3, 2] = value

    return change


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (vectors(_set(np.nan)), "contain NaN"),
        (vectors(_set(1.5)), r"floats in \[.*, 1.5\], not in \[0, 1\]"),
        (vectors(_set(-0.1)), r"floats in \[-0.1"),
        (dataset(PIXELS, LABELS + 4), "is no class of this model, which has 4"),
        (dataset(PIXELS, LABELS - 4), "is negative"),
        (dataset(PIXELS[:0], LABELS[:0]), "at least one example"),
    ],
)
def test_unfit_data_is_one_line(quick, tmp_path: Path, data: Dataset, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        attack_toy(tmp_path, dataclasses.replace(SETTINGS, n=0), data=data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.json").exists()


def test_images_of_another_shape(quick, tmp_path: Path) -> None:
    from bcgan_tf.networks.classifiers import mlp

    with pytest.raises(UserError, match=r"takes images of shape \(2,\)"):
        attack_toy(tmp_path, model=mlp(2, 4))


def test_one_class_is_not_called_robust(quick, diagnosed, tmp_path: Path) -> None:
    """A constant answer would get all of them."""
    rows = LABELS == 1
    settings = dataclasses.replace(SETTINGS, diagnose=True, minimum_perturbation=True)
    metrics = attack_toy(tmp_path, settings, data=dataset(PIXELS[rows], LABELS[rows]))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["verdict"]["kind"] == "not robust"
    assert "no more than a constant answer gets (100.0 %)" in found["verdict"]["text"]
    assert found["minimum_perturbation"]["rho_best"]["mean"] > 0


def test_eps_zero_leaves_the_clean_accuracy(quick, tmp_path: Path) -> None:
    metrics = attack_toy(tmp_path, dataclasses.replace(SETTINGS, eps=0.0))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["robust_accuracy"] == found["clean_accuracy"] == 55 / 60


def test_eps_one_leaves_nothing(quick, tmp_path: Path) -> None:
    metrics = attack_toy(tmp_path, dataclasses.replace(SETTINGS, eps=1.0))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["robust_accuracy"] == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": 8.0}, "write a fraction such as 8/255"),
        ({"eps": 0.0, "diagnose": True}, "nothing to diagnose"),
        ({"suite": "best"}, "suite is 'best'; choose standard"),
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"eps_unit": "255"}, "eps_unit is '255'"),
        ({"n": -1}, "n is -1"),
        ({"shard": Shard(3, 2)}, "shard is '3/2'; choose i/n"),
        ({"shard": Shard(0, 2)}, "shard is '0/2'"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SETTINGS, **changes)


def test_more_shards_than_images(quick, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="60 images cannot be cut into 90 shards"):
        attack_toy(tmp_path, dataclasses.replace(SETTINGS, shard=Shard(2, 90)))


def test_settings_survive_json() -> None:
    for shard in (None, Shard(2, 8)):
        settings = dataclasses.replace(SETTINGS, shard=shard, suite="plus")
        assert EvaluationConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert dataclasses.replace(SETTINGS, eps=2.0, eps_unit="11", norm="l2").threat_models("m") == (
        ThreatModel("m", "m", 1.0, "eps 2 read as of [-1, 1] pixels, 1 of [0, 1]"),
    )
