"""The models in saved_models/ are what their cards say: measured on the real test images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.data import load_dataset
from bcgan_tf.data.tfds_source import prepared_version
from bcgan_tf.files import file_digest, read_json
from bcgan_tf.loading import exported
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.loading.digest import model_digest
from bcgan_tf.serving.export import verify
from helpers.requests import MALFORMED_SHAPES, answers_to_malformed_shapes

MODELS = Path(__file__).parents[2] / "saved_models"
VERSIONS = sorted(card.parent for card in MODELS.glob("*/*/export.json"))
ATTACKED = 200
REFUSED = "InvalidArgumentError: Shape of tensor images"
# Images near a boundary fall to the other side on another processor.
ROUNDING = 3e-4


def test_the_hardened_models_of_the_readme_are_there() -> None:
    names = {version.parent.name for version in VERSIONS}
    assert names >= {"mnist-pgd-at", "fashion_mnist-trades"}


def test_malformed_requests_are_errors_and_do_not_end_their_process() -> None:
    answers = answers_to_malformed_shapes(VERSIONS)
    for answer in answers:
        assert len(answer) == len(MALFORMED_SHAPES)
        wrong = {shape: told for shape, told in answer.items() if not told.startswith(REFUSED)}
        assert not wrong


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.parent.name)
def test_requests_are_checked_as_the_card_says(version: Path) -> None:
    card = read_json(version / "export.json")
    assert card["checks"] == {"pixels": True, "max_megapixels": 64.0}
    loaded = tf.saved_model.load(str(version))
    images, strings = (loaded.signatures[name] for name in card["signatures"])
    shape = card["input"]["shape"]
    assert images(images=tf.zeros([0, *shape]))["logits"].shape == (0, len(card["classes"]))
    for value in (np.nan, 255.0):
        with pytest.raises(tf.errors.InvalidArgumentError, match="1 of 2 rows refused"):
            images(
                images=tf.constant(np.stack([np.zeros(shape), np.full(shape, value)]), tf.float32)
            )
    for data in (b"", b"no image"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="1 of 1 rows refused"):
            strings(image_bytes=tf.constant([data]))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.parent.name)
def test_digests_and_classes_are_those_of_the_card(version: Path) -> None:
    card = read_json(version / "export.json")
    told = card.get("keras_file")
    assert (told is not None) == (version / exported.FILE).exists()
    if told is None:
        assert verify(version) == 0.0
        return
    file = version / told["path"]
    assert file_digest(file) == told["sha256"] and model_digest(file) == told["model_sha256"]
    classifier = load_classifier(file, num_classes=len(card["classes"]))
    assert verify(version, classifier) <= 1e-5
    assert classifier.count_params() == card["parameters"]


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.parent.name)
def published(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], Any]:
    """A version's folder, its card, and its test images."""
    dataset = request.param.parent.name.partition("-")[0]
    if prepared_version(dataset) is None:
        pytest.skip(f"no prepared {dataset} (set TFDS_DATA_DIR)")
    return request.param, read_json(request.param / "export.json"), load_dataset(dataset).test


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
    part = test.take(ATTACKED, seed=0)
    attack = PGD(worst["eps"], steps=20)
    found = attack(load_classifier(file), part.scaled(), part.labels).robust_accuracy
    deviation = math.sqrt(worst["accuracy"] * (1 - worst["accuracy"]) / ATTACKED)
    assert found > worst["accuracy"] - 3 * deviation
