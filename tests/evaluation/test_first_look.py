"""The first look: worst cases from fabricated results, and a linear model through all of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import AttackResult
from bcgan_tf.data import Split
from bcgan_tf.evaluation.first_look import _examples, _worst_case, first_look
from bcgan_tf.settings.presets import recipe


def result(correct, success, linf, *, attack="PGD", **config):
    correct, success = np.array(correct, bool), np.array(success, bool)
    return AttackResult(
        attack=attack,
        config=config,
        adversarials=np.zeros((len(correct), 2), np.float32),
        clean_correct=correct,
        attacked=correct,
        success=success,
        linf=np.float32(linf),
        l2=np.float32(linf),
    )


FOUND = result([1, 1, 1, 1, 0], [1, 0, 0, 1, 0], [0.1, 0.1, 0.1, 0.2, 0], eps=0.2)


def robust(eps, *results):
    return _worst_case(list(results), eps, 5)["robust_accuracy"]


def test_an_example_counts_where_it_lies_within_eps():
    assert robust(0.05, FOUND) == 0.8  # the misclassified one is never robust
    assert robust(0.1, FOUND) == pytest.approx(0.6)
    assert robust(0.2, FOUND) == pytest.approx(0.4)


def test_rounding_does_not_save_an_image():
    rounded = result([1] * 5, [1] * 5, [0.1 + 1e-7] * 5, eps=0.1)
    assert robust(0.1, rounded) == 0
    assert robust(0.0999, rounded) == 1


def test_the_worst_case_is_over_all_attacks_and_radii_per_image():
    other = result([1, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0.05, 0, 0, 0], attack="FGSM", eps=0.05)
    assert robust(0.05, FOUND, other) == pytest.approx(0.6)
    assert robust(0.1, FOUND, other) == pytest.approx(0.4)
    assert robust(0.2, FOUND, other) == pytest.approx(0.2)


def test_an_attack_on_the_first_few_images_touches_only_those():
    few = result([1, 1], [0, 1], [0.3, 0.15], attack="CW")
    assert robust(0.1, FOUND, few) == pytest.approx(0.6)
    assert robust(0.2, FOUND, few) == pytest.approx(0.2)
    assert robust(0.5, few) == pytest.approx(0.8)


def test_a_failed_attack_breaks_nothing_wherever_its_images_lie():
    assert robust(1.0, result([1] * 5, [0] * 5, [0.5] * 5)) == 1


def test_the_interval_is_wilsons():
    found = _worst_case([FOUND], 0.2, 5)
    assert (found["eps"], found["n"]) == (0.2, 5)
    np.testing.assert_allclose(found["interval"], [0.1176, 0.7693], atol=1e-4)


def test_examples_leave_out_fgsm_and_are_as_many_as_all_attacks_have():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    images, labels = np.ones((5, 2), np.float32), np.arange(5)
    fgsm = result([1] * 5, [0] * 5, [0] * 5, attack="FGSM", eps=0.1)
    few = result([1, 1], [1, 1], [0.2, 0.2], attack="CW")
    found = _examples(model, images, labels, [FOUND, fgsm, few])
    assert list(found["adversarials"]) == ["PGD, eps 0.2", "CW"]
    assert {len(row) for row in found["adversarials"].values()} == {2}
    assert {len(row) for row in found["predictions"].values()} == {2}
    assert len(found["images"]) == len(found["labels"]) == 2


@pytest.fixture(scope="module")
def bright():
    """A linear model, and pixels so that brightness 0.5 +- m is broken at eps > m and no less.

    logits = (0, sum of (pixel - 0.5)); the margin of an image of constant brightness b is
    16 |b - 0.5|, and eps in Linf moves it by 16 eps.
    """
    image = keras.Input((4, 4, 1))
    layer = keras.layers.Dense(2)
    model = keras.Model(image, layer(keras.layers.Flatten()(image)))
    kernel = np.zeros((16, 2), np.float32)
    kernel[:, 1] = 1
    layer.set_weights([kernel, np.float32([0, -8])])
    levels = np.repeat([107, 117, 137, 147], 3)  # 0.5 -+ 0.08, 0.5 -+ 0.04 and so on
    images = np.tile(levels[:, None, None, None], (1, 4, 4, 1)).astype(np.uint8)
    labels = (levels > 127).astype(np.int64)
    labels[0] = 1  # misclassified
    return model, Split(images, labels)


def test_a_linear_model(bright):
    model, test = bright
    labels = []

    @contextlib.contextmanager
    def progress(label):
        labels.append(label)
        yield lambda done, total: None

    small = dataclasses.replace(
        recipe("digits"),
        attack_eps=(0.02, 0.06, 0.2),
        attack_samples=0,
        pgd_steps=5,
        cw_samples=4,
        cw_steps=60,
        cw_binary_search_steps=4,
    )
    found = first_look(model, test, small, seed=1, progress=progress)
    metrics = json.loads(json.dumps(found.metrics))
    assert metrics["clean_accuracy"] == pytest.approx(11 / 12)
    assert metrics["n"] == 12
    assert [v["attack"] for v in metrics["attacks"]] == ["FGSM", "PGD-5"] * 3 + ["CW-L2"]
    assert len(labels) == 7
    assert labels[0] == "FGSM eps 0.02"
    # Distances to the boundary: 20.5, 10.5, 9.5, 19.5 of 255, three images each.
    expected = {0.02: 11 / 12, 0.06: 5 / 12, 0.2: 0}
    for entry in metrics["attacks"][:6]:
        assert entry["robust_accuracy"] == pytest.approx(expected[entry["config"]["eps"]])
        assert entry["n"] == 12
    carlini = metrics["attacks"][-1]
    assert (carlini["n"], carlini["success_rate"]) == (4, 1.0)
    assert [v["eps"] for v in metrics["worst_case"]] == [0.02, 0.06, 0.2]
    for entry in metrics["worst_case"]:
        assert entry["robust_accuracy"] == pytest.approx(expected[entry["eps"]])
        low, high = entry["interval"]
        assert low <= entry["robust_accuracy"] <= high


def test_a_part_of_the_test_set_is_attacked_and_all_of_it_measured(bright):
    model, test = bright
    small = dataclasses.replace(
        recipe("digits"), attack_eps=(0.06,), attack_samples=5, pgd_steps=2, cw_samples=0
    )
    metrics = first_look(model, test, small).metrics
    assert metrics["n"] == 12
    assert metrics["clean_accuracy"] == pytest.approx(11 / 12)
    assert {entry["n"] for entry in metrics["attacks"]} == {5}
    assert [entry["n"] for entry in metrics["worst_case"]] == [5]
