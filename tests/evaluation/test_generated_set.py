"""The measures of generated samples on sets small enough to know them."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest

from bcgan_tf.evaluation import generated_set
from bcgan_tf.evaluation.generated_set import intra_class_distance, measure_generated_set

# Three classes, one sample each, and their logits under classifier and oracle.
IMAGES = np.float32([[0, 0], [1, 0], [0, 1], [1, 1]])
LABELS = np.int64([0, 1, 2, 0])


def table(rows):
    """A model that gives image (a, b) the row 2b + a of a table of logits."""
    image = keras.Input((2,))
    weights = np.float32(rows)
    x = keras.ops.one_hot(keras.ops.cast(image[:, 0] + 2 * image[:, 1], "int32"), 4)
    layer = keras.layers.Dense(weights.shape[1], use_bias=False)
    model = keras.Model(image, layer(x))
    layer.set_weights([weights])
    return model


CLASSIFIER = table([[0, 0, 0], [0, math.log(98), 0], [math.log(8), 0, 0], [0, math.log(2), 0]])
ORACLE = table([[9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 9, 0]])


def measured():
    return measure_generated_set(
        IMAGES,
        LABELS,
        classifier=CLASSIFIER,
        oracle=ORACLE,
        real=(np.float32([[0, 0], [3, 4]]), np.int64([1, 1])),
    )


def entropy(*p):
    return -sum(v * math.log(v) for v in p)


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_known_values(monkeypatch, batch_size):
    monkeypatch.setattr(generated_set, "_BATCH", batch_size)
    found = measured()
    assert found.n == 4
    assert found.oracle_accuracy == 0.75  # the last is asked for 0 and looks like 1
    # argmax of equal logits is 0: right; 98 %: right; 80 % for 0 instead of 2; 50 % for 1
    assert found.classifier_accuracy == 0.5
    assert found.confidence == pytest.approx((1 / 3 + 0.98 + 0.8 + 0.5) / 4, abs=1e-5)
    assert found.entropy == pytest.approx(
        (
            math.log(3)
            + entropy(0.98, 0.01, 0.01)
            + entropy(0.8, 0.1, 0.1)
            + entropy(0.5, 0.25, 0.25)
        )
        / 4,
        abs=1e-5,
    )
    assert found.margin == pytest.approx((math.log(98) + math.log(8) + math.log(2)) / 4, abs=1e-5)
    assert found.useful == 0.5  # the first and the third: true labels, confidence below 0.9
    # Class 0 has (0, 0) and (1, 1); classes of one sample have no distance.
    assert found.diversity == pytest.approx(math.sqrt(2), abs=1e-6)
    assert found.real_diversity == pytest.approx(5, abs=1e-6)
    assert found.relative_diversity == pytest.approx(math.sqrt(2) / 5, abs=1e-6)


def test_it_is_json():
    content = json.loads(json.dumps(measured().to_dict()))
    assert content["useful"] == 0.5
    assert content["relative_diversity"] == pytest.approx(math.sqrt(2) / 5)


def test_the_distance_is_averaged_over_classes_not_examples():
    images = np.float32([[0]] + [[2]] * 1 + [[5]] * 50)
    labels = np.int64([0, 0] + [1] * 50)
    assert intra_class_distance(images, labels) == pytest.approx((2 + 0) / 2)


def test_a_collapsed_class_has_no_diversity():
    assert intra_class_distance(np.ones((20, 8, 8, 1), np.float32), np.zeros(20)) == 0


def test_pairs_are_of_two_different_examples_and_repeat():
    """The corners of a simplex are all equally far apart: one equal pair would lower the mean."""
    images = np.eye(6, dtype=np.float32)
    labels = np.zeros(6, np.int64)
    for seed in range(3):
        found = intra_class_distance(images, labels, seed=seed)
        assert found == pytest.approx(math.sqrt(2), abs=1e-6)
    many = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    labels = np.zeros(50)
    assert intra_class_distance(many, labels) == intra_class_distance(many, labels)
    everything = np.linalg.norm(many[:, None] - many[None], axis=-1)
    mean = everything.sum() / (50 * 49)
    assert intra_class_distance(many, labels, pairs=20_000) == pytest.approx(mean, rel=0.01)


def test_no_pairs_at_all():
    assert math.isnan(intra_class_distance(np.eye(3, dtype=np.float32), np.arange(3)))
