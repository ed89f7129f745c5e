"""A task is checked and wrapped once; parts of it know their places in the whole."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import task as module
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.linear_task import EPS, IMAGES, LABELS, linear


def _noisy(images: tf.Tensor) -> tf.Tensor:
    return linear(images) + tf.random.normal([1, 4], stddev=1e-3)


def test_the_model_is_wrapped_once_for_all_parts(monkeypatch):
    wrapped = []

    def guard(model, *_):
        wrapped.append(model)
        return model

    monkeypatch.setattr(module, "guard_gradient", guard)
    task = EvaluationTask(linear, IMAGES, LABELS, eps=EPS)
    assert task.correct.sum() == 55 and len(wrapped) == 1
    part = task.take(np.array([3, 40, 7])).take(np.array([2, 1]))
    assert part.attacked is task.attacked and len(wrapped) == 1
    np.testing.assert_array_equal(part.indices, [7, 40])
    np.testing.assert_array_equal(part.logits, task.logits[[7, 40]])
    assert task.averaged(1) is task and task.averaged(3).calls == 3


def test_a_part_is_attacked_as_it_is_in_the_whole():
    """Its draws follow from its places there."""
    task = EvaluationTask(linear, IMAGES, LABELS, eps=EPS, seed=4)
    rows, attack = np.array([50, 8, 23]), PGD(EPS, steps=2, seed=4)
    whole, part = task.attack(attack), task.take(rows).attack(attack)
    np.testing.assert_allclose(part.adversarials, whole.adversarials[rows], atol=1e-6)
    np.testing.assert_array_equal(part.success, whole.success[rows])


def test_a_model_that_draws_is_averaged():
    assert EvaluationTask(_noisy, IMAGES, LABELS).calls == 20
    assert EvaluationTask(_noisy, IMAGES, LABELS, eot_samples=3).calls == 3
    task = EvaluationTask(linear, IMAGES, LABELS)
    assert task.calls == 1 and task.differing == 0
    # Another model is called once.
    assert task.averaged(5).with_model(_noisy).calls == 1


def test_images_are_drawn_with_the_seed_in_their_order():
    task = EvaluationTask(linear, IMAGES, LABELS)
    rows = task.draw(20)
    assert len(set(rows)) == 20 and (np.diff(rows) > 0).all() and rows.max() >= 30
    np.testing.assert_array_equal(rows, task.draw(20))
    other = EvaluationTask(linear, IMAGES, LABELS, seed=1).draw(20)
    assert (rows != other).any()
    np.testing.assert_array_equal(task.draw(100), np.arange(60))


def test_whole_and_half_reach_every_image_and_the_gray_one():
    task = EvaluationTask(linear, IMAGES, LABELS, norm="l2")
    assert task.whole == 4 and task.half == 2  # 4 x 4 pixels
    assert EvaluationTask(linear, IMAGES, LABELS).whole == 1
    with pytest.raises(UserError, match="eps is None"):
        _ = task.radius


def test_all_that_is_wrong_is_one_message():
    with pytest.raises(UserError, match=r"(?s)norm is 'l1'.*batch_size is 0.*in \[0, 1\]"):
        EvaluationTask(linear, 255 * IMAGES, LABELS, norm="l1", batch_size=0)
    with pytest.raises(UserError, match="label 9 is no class"):
        EvaluationTask(linear, IMAGES, np.append(LABELS[:-1], 9))
    with pytest.raises(UserError, match="look like probabilities"):
        EvaluationTask(lambda images: tf.nn.softmax(linear(images)), IMAGES, LABELS)
