"""The curve over radii falls where the images' known distance lies, and meets the evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM
from bcgan_tf.evaluation.radii import measure_radii
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.linear_task import images_at


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_fall_at_their_distance(norm):
    model, images, labels = images_at(0.06, norm, 2)
    task = EvaluationTask(model, images, labels, eps=0.1, norm=norm)
    told = []
    found = measure_radii(
        task,
        run_suite(task, [FGSM(0.1, norm=norm)]),
        progress=lambda done, to_do, text: told.append((done, to_do)),
    )
    assert [point["eps"] for point in found["points"]] == pytest.approx(
        [0, 0.0125, 0.025, 0.05, 0.075, 0.1, 0.125]
    )
    assert [point["accuracy"] for point in found["points"]] == [1, 1, 1, 1, 0, 0, 0]
    assert found["points"][0]["interval95"] == pytest.approx([0.7575, 1.0], abs=5e-5)  # Wilson, 12
    assert (found["n"], found["norm"], told[-1]) == (12, norm, (7, 7))


def test_mean_l2_is_that_of_the_boundary_and_wrong_images_do_not_count():
    model, images, labels = images_at(0.3, "l2", 2)
    labels = np.where(np.arange(len(labels)) == 0, 1 - labels, labels)
    task = EvaluationTask(model, images, labels, eps=0.5, norm="l2")
    found = measure_radii(task, run_suite(task, [FGSM(0.5, norm="l2")]))
    assert found["mean_distance"]["l2"] == pytest.approx(0.3, rel=0.05)
    assert found["mean_distance"]["n"] == 11
    assert found["points"][0]["accuracy"] == pytest.approx(11 / 12)


def test_what_the_suite_found_counts_from_its_distance_on():
    """PGD has no gradient here; the evaluation's own finds are the curve."""
    model, images, labels = images_at(0.06, "linf", 2)
    evaluation = run_suite(EvaluationTask(model, images, labels, eps=0.1), [FGSM(0.1)])
    flat = EvaluationTask(lambda x: tf.stop_gradient(model(x)), images, labels, eps=0.1)
    found = measure_radii(flat, evaluation)
    left = {round(point["eps"], 4): point["accuracy"] for point in found["points"]}
    assert left[0.075] == 1
    assert left[0.1] == evaluation.robust_accuracy == 0
