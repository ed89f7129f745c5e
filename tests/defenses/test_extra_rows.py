"""Batches with extra rows: which rows, in which order, with which weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.defenses.extra_rows import (
    NO_EXTRA,
    ExtraExamples,
    batches,
    generated_rows,
    repeated_rows,
)
from bcgan_tf.training.augmentation import shifted_images

SEED = tf.constant([1, 2])


def real(rows):
    """Images of one value each, 1 upwards, and labels."""
    values = tf.reshape(tf.range(1.0, rows + 1.0), [rows, 1, 1, 1])
    return tf.tile(values, [1, 8, 8, 1]), tf.cast(tf.range(rows) % 10, tf.int64)


def counted(images, labels, count, seed):
    """Images -1, -2, ...; every third has weight 0."""
    del images, seed
    numbers = tf.range(1, count + 1)
    values = tf.reshape(-tf.cast(numbers, tf.float32), [-1, 1, 1, 1])
    return tf.tile(values, [1, 8, 8, 1]), numbers % 10, tf.cast(numbers % 3 > 0, tf.float32)


def built(rows, *, extra=counted, ratio=1.0, weight=0.5, clean_term=True, augment=None):
    build = batches(ExtraExamples(extra, ratio, weight), clean_term=clean_term, augment=augment)
    images, labels, weights = build(*real(rows), SEED)
    assert labels.dtype == tf.int64
    return images.numpy(), labels.numpy(), weights.numpy()


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 12), (0.5, 6), (2.0, 24), (0.3, 4)])
def test_every_row_is_there_once_with_its_label(ratio, count):
    images, labels, _ = built(12, ratio=ratio)
    values = images[:, 0, 0, 0].astype(int)
    assert sorted(values) == [*range(-count, 0), *range(1, 13)]
    np.testing.assert_array_equal(labels, np.where(values > 0, values - 1, -values) % 10)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0, 0.25])
@pytest.mark.parametrize("clean_term", [True, False])
def test_the_average_loss_is_the_sum_of_two_means(ratio, clean_term):
    """Mean over real rows, and lambda times the mean over extra rows, those of weight 0 as 0."""
    rows = 12
    images, _, weights = built(rows, ratio=ratio, weight=0.7, clean_term=clean_term)
    values = images[:, 0, 0, 0]
    loss = np.sin(values)  # any loss of each row
    kept = (values < 0) & (values % 3 != 0)
    of_real = loss[values > 0].mean()
    of_extra = 0.7 * loss[kept].sum() / (ratio * rows)
    found = [float(losses.average(column * loss)) for column in weights.T]
    expected = [of_real + of_extra * clean_term, of_real + of_extra]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_halves_of_the_order_are_the_orders_of_the_halves():
    for ratio in (1.0, 0.5, 2.0, 1.5):
        whole = built(8, ratio=ratio)[0][:, 0, 0, 0]
        half = built(4, ratio=ratio)[0][:, 0, 0, 0]
        count = round(4 * ratio)
        later = np.where(half > 0, half + 4, half - count)
        np.testing.assert_array_equal(whole, np.concatenate([half, later]))


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, [1, 2]), (1.0, [1, 2, 3, 4])])
def test_duplicates_are_the_batchs_own_images(ratio, expected):
    images, labels, weights = built(4, extra=repeated_rows, ratio=ratio, weight=1.0)
    values = sorted(images[:, 0, 0, 0].astype(int))
    assert values == sorted([1, 2, 3, 4, *expected])
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] - 1)
    assert weights.min() > 0


def test_more_duplicates_than_images_begin_anew():
    values = built(2, extra=repeated_rows, ratio=2.5)[0][:, 0, 0, 0]
    assert sorted(values) == [1, 1, 1, 1, 2, 2, 2]


def test_without_extra_rows_or_shifts_there_is_nothing_to_build():
    assert batches(NO_EXTRA, clean_term=True) is None


def test_shifts_move_real_and_extra_rows_and_each_copy_by_itself():
    build = batches(NO_EXTRA, clean_term=True, augment=shifted_images)
    images, _, weights = build(*real(40), SEED)
    empty = (images.numpy() == 0).any(axis=(1, 2, 3))
    assert 20 < empty.sum() < 40  # 8 of 9 offsets bring a border in
    np.testing.assert_array_equal(weights, np.ones(40))
    doubled, *_ = built(40, extra=repeated_rows, augment=shifted_images)
    copies = doubled.reshape(40, 2, 8, 8, 1)
    assert 20 < (copies[:, 0] != copies[:, 1]).any(axis=(1, 2, 3)).sum() < 40


class FakeGAN:
    """Draws images of one value, that of the class in tenths."""

    generator_average = None
    num_classes, latent_dim = 10, 3

    def draw_noise(self, seed, rows):
        return tf.zeros([rows, self.latent_dim])

    def generator(self, inputs, training):
        noise, classes = inputs
        assert not training and noise.shape[-1] == 3
        return tf.tile(tf.reshape(tf.cast(classes, tf.float32) / 10, [-1, 1, 1, 1]), [1, 8, 8, 1])


def test_the_oracle_drops_fakes_of_another_class():
    """An oracle that finds every class but calls 7, 8 and 9 a 6."""
    oracle = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    )
    # The largest of z_k = 2 k x - k^2 / 10 at x = c / 10 is k = c.
    classes = np.arange(10.0)
    bias = np.where(classes > 6, -99.0, -(classes**2) / 10)
    oracle.set_weights([2 * classes[None], bias])
    rows = generated_rows(FakeGAN(), oracle)
    images, labels, kept = rows(None, None, tf.constant(200), SEED)
    assert set(labels.numpy()) == set(range(10))
    np.testing.assert_allclose(images[:, 0, 0, 0], labels.numpy() / 10, atol=1e-6)
    np.testing.assert_array_equal(kept, labels.numpy() <= 6)
    _, _, all_kept = generated_rows(FakeGAN(), None)(None, None, tf.constant(200), SEED)
    np.testing.assert_array_equal(all_kept, np.ones(200))
