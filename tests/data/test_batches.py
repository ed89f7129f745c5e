"""The training stream: deterministic, resumable, complete, and the same over two replicas."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data import Split, evaluation_batches, steps_per_epoch, training_stream
from bcgan_tf.errors import UserError

SIZE = 50


@pytest.fixture(scope="module")
def numbered() -> Split:
    """Image i has the pixels i, i + 1 (of 255) and the label i."""
    pixels = np.arange(SIZE, dtype=np.uint8)[:, None, None, None] + np.uint8([[[0], [1]]])
    return Split(pixels, np.arange(SIZE, dtype=np.int64))


def _labels(stream: tf.data.Dataset, batches: int) -> np.ndarray:
    return np.stack([labels.numpy() for _, labels in itertools.islice(stream, batches)])


def test_batches_are_scaled_full_and_static(numbered):
    stream = training_stream(numbered, batch_size=8, seed=0)
    images, labels = stream.element_spec
    assert (images.shape, images.dtype) == ((8, 1, 2, 1), tf.float32)
    assert (labels.shape, labels.dtype) == ((8,), tf.int64)
    scaled = numbered.scaled()
    for batch, classes in itertools.islice(stream, 15):
        # Bit-equal to what evaluation sees, so that training and test share one scale.
        np.testing.assert_array_equal(batch.numpy(), scaled[classes.numpy()])


def test_an_epoch_is_the_whole_split_once_and_each_has_its_own_order(numbered):
    steps = steps_per_epoch(numbered, 10)
    assert steps == 5
    epochs = _labels(training_stream(numbered, batch_size=10, seed=3), 3 * steps).reshape(3, SIZE)
    for order in epochs:
        assert sorted(order) == list(range(SIZE))
    assert len({tuple(order) for order in epochs}) == 3
    # A shuffle moves nearly everything: the expected number of fixed points is 1.
    assert np.mean(epochs[0] == np.arange(SIZE)) < 0.2


def test_leftovers_differ_from_epoch_to_epoch(numbered):
    steps = steps_per_epoch(numbered, 16)
    assert steps == 3
    epochs = _labels(training_stream(numbered, batch_size=16, seed=3), 4 * steps).reshape(4, 48)
    assert all(len(set(order)) == 48 for order in epochs.tolist())
    left = [frozenset(range(SIZE)) - set(order) for order in epochs.tolist()]
    assert len(set(left)) > 1


def test_a_stream_resumed_at_epoch_k_repeats_the_uninterrupted_one(numbered):
    whole = _labels(training_stream(numbered, batch_size=16, seed=5), 12)
    for epoch in (1, 3):
        rest = training_stream(numbered, batch_size=16, seed=5, start_epoch=epoch)
        np.testing.assert_array_equal(_labels(rest, 12 - 3 * epoch), whole[3 * epoch :])


def test_the_order_is_a_function_of_the_seed(numbered):
    first, again, other, large = (
        _labels(training_stream(numbered, batch_size=10, seed=seed), 10)
        for seed in (1, 1, 2, 2**32 - 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.2
    assert np.mean(first == large) < 0.2


def test_the_order_does_not_change_between_versions(numbered):
    """Resuming an old run on a new installation must see the same batches."""
    order = _labels(training_stream(numbered, batch_size=10, seed=0), 1)[0]
    assert order.tolist() == [47, 34, 22, 32, 38, 13, 26, 10, 7, 49]


def test_keras_fit_keeps_epochs_aligned(numbered):
    """fit() with steps_per_epoch draws epoch e from the stream's epoch e."""

    class Seen(keras.Model):
        def __init__(self):
            super().__init__()
            self.seen = self.add_weight(shape=(SIZE,), initializer="zeros", trainable=False)

        def train_step(self, data):
            self.seen.assign_add(tf.reduce_sum(tf.one_hot(data[1], SIZE), axis=0))
            return {"seen": tf.reduce_sum(self.seen)}

    class Check(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            np.testing.assert_array_equal(self.model.seen.numpy(), np.full(SIZE, epoch + 1.0))

    model = Seen()
    model.compile(optimizer=None)
    stream = training_stream(numbered, batch_size=10, seed=0)
    model.fit(stream, epochs=3, steps_per_epoch=5, callbacks=[Check()], shuffle=False, verbose=0)


def test_two_replicas_share_the_batches_of_one(numbered, two_replicas):
    stream = training_stream(numbered, batch_size=10, seed=9)
    expected = _labels(stream, 7)
    distributed = two_replicas.experimental_distribute_dataset(stream)
    for want, (images, labels) in zip(expected, distributed, strict=False):
        parts = [part.numpy() for part in two_replicas.experimental_local_results(labels)]
        assert [len(part) for part in parts] == [5, 5]
        np.testing.assert_array_equal(np.concatenate(parts), want)
        pixels = [part.numpy() for part in two_replicas.experimental_local_results(images)]
        np.testing.assert_array_equal(np.concatenate(pixels), numbered.scaled()[want])


def test_evaluation_batches_are_in_order_with_the_remainder(numbered):
    batches = list(evaluation_batches(numbered, 16).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), range(SIZE))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), numbered.scaled())


def test_vectors_pass_unscaled():
    points = np.float32([[-3, 2], [5, 0.5], [7, 7]])
    split = Split(points, np.int64([0, 1, 2]))
    for batch, labels in itertools.islice(training_stream(split, batch_size=2, seed=0), 3):
        np.testing.assert_array_equal(batch, points[labels])
    (batch, _), *_ = evaluation_batches(split, 3)
    np.testing.assert_array_equal(batch, points)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (51, "batch size 51 is larger than the split of 50 examples; use a smaller batch size"),
        (0, "batch size 0 is not possible; use at least 1"),
    ],
)
def test_batch_sizes_that_do_not_fit_are_refused(numbered, size, message):
    with pytest.raises(UserError, match=message):
        training_stream(numbered, batch_size=size, seed=0)
    with pytest.raises(UserError, match=message):
        steps_per_epoch(numbered, size)
    if size < 1:
        with pytest.raises(UserError, match=message):
            evaluation_batches(numbered, size)
