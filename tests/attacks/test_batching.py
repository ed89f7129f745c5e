"""One trace, few shapes, every row once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.batching import Batched
from bcgan_tf.distribute.workers import _processors


def test_it_is_traced_once_and_meets_at_most_eight_shapes():
    traces, shapes = [], set()

    def function(images, scale):
        traces.append(images.shape)
        tf.py_function(lambda n: shapes.add(int(n)), [tf.shape(images)[0]], [])
        return images * scale

    batched = Batched(function, 64)
    for count in range(1, 300, 7):
        images = np.full((count, 2), 2, np.float32)
        found = batched(images, constants=(np.float32(1.5),), total=300)
        np.testing.assert_array_equal(found, np.full((count, 2), 3))
    assert len(traces) == 1 and traces[0][0] is None
    assert len(shapes) <= 8 and max(shapes) == 64


def test_a_few_rows_are_not_blown_up_to_a_large_batch():
    shapes = []

    def function(images):
        tf.py_function(lambda n: shapes.append(int(n)), [tf.shape(images)[0]], [])
        return images

    Batched(function, 1000)(np.zeros(10, np.float32))
    assert shapes == [10]


@pytest.mark.parametrize(("count", "sizes"), [(263, [68] * 4), (37, [20] * 2), (9, [12])])
def test_each_thread_gets_as_many_batches(count, sizes):
    """250 rows are two batches of 125 at once, whose sizes are multiples of four."""
    shapes = []

    def function(images):
        tf.py_function(lambda n: shapes.append(int(n)), [tf.shape(images)[0]], [])
        return images

    rows = np.arange(count, dtype=np.float32)
    np.testing.assert_array_equal(Batched(function, 250)(rows, total=300), rows)
    assert shapes == sizes


# TensorFlow takes the second thread from the second processor.
@pytest.mark.skipif(len(_processors()) < 2, reason="needs two processors")
def test_two_batches_run_at_once_and_come_back_in_order():
    together = threading.Barrier(2, timeout=60)

    def meet(rows):
        together.wait()  # passes only when two batches are at work
        return rows

    def function(images):
        met = tf.numpy_function(meet, [images], tf.float32, stateful=True)
        return 2 * tf.ensure_shape(met, images.shape)

    rows, seen = np.arange(500, dtype=np.float32), []
    np.testing.assert_array_equal(Batched(function, 250)(rows, report=seen.append), 2 * rows)
    assert seen == sorted(set(seen)) and seen[-1] == 500


def test_an_error_in_one_batch_ends_all():
    def function(images):
        positive = tf.debugging.assert_positive(images, message="not positive")
        with tf.control_dependencies([positive]):
            return tf.identity(images)

    with pytest.raises(tf.errors.InvalidArgumentError, match="not positive"):
        Batched(function, 250)(np.arange(2000, dtype=np.float32))
