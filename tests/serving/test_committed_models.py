"""The models in saved_models/ are what their cards say: measured on the real test images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.classifier_io import load_classifier
from bcgan_tf.data import load
from bcgan_tf.data.tfds_source import prepared_version
from bcgan_tf.files import file_digest, read_json

MODELS = Path(__file__).parents[2] / "saved_models"
VERSIONS = sorted(card.parent for card in MODELS.glob("*/*/export.json"))
ATTACKED = 200
# Images near a boundary fall to the other side on another processor.
ROUNDING = 3e-4


def test_the_hardened_models_of_the_readme_are_there() -> None:
    names = {version.parent.name for version in VERSIONS}
    assert names >= {"mnist-pgd-at", "fashion_mnist-trades"}


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.parent.name)
def published(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], Any]:
    """A version's folder, its card, and its test images."""
    dataset = request.param.parent.name.partition("-")[0]
    if prepared_version(dataset) is None:
        pytest.skip(f"no prepared {dataset} (set TFDS_DATA_DIR)")
    return request.param, read_json(request.param / "export.json"), load(dataset).test


@pytest.mark.real_data
def test_clean_accuracy_is_that_of_the_card(published: tuple[Path, dict[str, Any], Any]) -> None:
    folder, card, test = published
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    images = test.scaled()
    classes = [
        serve(images=tf.constant(images[i : i + 1000]))["classes"].numpy()
        for i in range(0, len(test), 1000)
    ]
    accuracy = np.mean(np.concatenate(classes) == test.labels)
    assert accuracy == pytest.approx(card["clean_accuracy"], abs=ROUNDING)


@pytest.mark.real_data
def test_a_short_attack_breaks_no_more_than_the_long_ones(
    published: tuple[Path, dict[str, Any], Any],
) -> None:
    folder, card, test = published
    robust = card["robust_accuracy"] or []
    worst = next((e for e in robust if e["attack"].startswith("worst case")), None)
    if worst is None or "keras_file" not in card:
        pytest.skip("no worst case on the card, or no Keras file beside it")
    file = folder / card["keras_file"]["path"]
    assert file_digest(file) == card["keras_file"]["sha256"]
    part = test.take(ATTACKED, seed=0)
    attack = PGD(worst["eps"], steps=20)
    found = attack(load_classifier(file), part.scaled(), part.labels).robust_accuracy
    deviation = math.sqrt(worst["accuracy"] * (1 - worst["accuracy"]) / ATTACKED)
    assert found > worst["accuracy"] - 3 * deviation
