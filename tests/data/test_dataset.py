"""`Split`, `Dataset` and the stratified split: literal arrays."""

from __future__ import annotations

import numpy as np
import pytest

from bcgan_tf.data import Split
from bcgan_tf.data.dataset import stratified_split
from bcgan_tf.errors import UserError


def _numbered(sizes: list[int]) -> Split:
    """`sizes[k]` examples of class k, mixed; pixel 0 of each image is its index."""
    labels = np.random.RandomState(3).permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(images, labels.astype(np.int64))


def _ids(split: Split) -> list[int]:
    return split.images.ravel().tolist()


def test_scaled_pixels_run_from_exactly_0_to_exactly_1():
    split = Split(np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(256, np.int64))
    scaled = split.scaled()
    assert scaled.dtype == np.float32 and scaled.shape == (256, 1, 1, 1)
    assert scaled.min() == 0 and scaled.max() == 1
    np.testing.assert_allclose(scaled.ravel(), np.arange(256) / 255, rtol=1.2e-7)
    np.testing.assert_array_equal(split.scaled(10, 12).ravel(), scaled.ravel()[10:12])


def test_scaled_leaves_vectors_alone_and_hands_out_a_copy():
    points = np.float32([[-3, 2], [5, 0.5]])
    split = Split(points, np.int64([0, 1]))
    scaled = split.scaled()
    np.testing.assert_array_equal(scaled, points)
    scaled[:] = 0
    np.testing.assert_array_equal(split.images, np.float32([[-3, 2], [5, 0.5]]))


def test_take_is_random_nested_and_repeatable():
    split = _numbered([30, 70])
    ten, twenty = split.take(10, seed=4), split.take(20, seed=4)
    assert _ids(ten) == _ids(twenty)[:10] == _ids(split.take(10, seed=4))
    assert len(set(_ids(twenty))) == 20
    assert _ids(ten) != _ids(split.take(10, seed=5))
    np.testing.assert_array_equal(ten.labels, split.labels[_ids(ten)])
    assert sorted(_ids(split.take(1000))) == list(range(100))


def test_take_of_nothing_is_refused():
    with pytest.raises(UserError, match="cannot take 0 examples; ask for at least 1"):
        _numbered([3, 3]).take(0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 1), np.float64), np.zeros(2, np.int64), "images must be uint8"),
        (np.zeros(2, np.uint8), np.zeros(2, np.int64), "images must be uint8"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int64), r"labels must be int64 \[2\]"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), r"labels must be int64 \[2\]"),
    ],
)
def test_split_refuses_other_types_and_shapes(images, labels, message):
    with pytest.raises(UserError, match=message):
        Split(images, labels)


def test_stratified_split_is_proportional_disjoint_and_complete():
    split = _numbered([20, 60, 120])
    rest, carved = stratified_split(split, 40, seed=0)
    assert np.bincount(carved.labels).tolist() == [4, 12, 24]
    assert np.bincount(rest.labels).tolist() == [16, 48, 96]
    assert sorted(_ids(rest) + _ids(carved)) == list(range(200))
    for part in (rest, carved):
        assert _ids(part) == sorted(_ids(part))
        np.testing.assert_array_equal(part.labels, split.labels[_ids(part)])


def test_stratified_split_gives_the_rounding_to_the_largest_remainders():
    # 10 of 30 in classes of 7, 11, 12: shares 2.33, 3.67, 4.0.
    _, carved = stratified_split(_numbered([7, 11, 12]), 10, seed=0)
    assert np.bincount(carved.labels).tolist() == [2, 4, 4]


def test_stratified_split_takes_one_of_a_small_class_and_leaves_one():
    rest, carved = stratified_split(_numbered([2, 100]), 10, seed=0)
    assert np.bincount(carved.labels)[0] == 1 and np.bincount(rest.labels)[0] == 1


def test_stratified_split_leaves_a_class_that_does_not_occur_alone():
    rest, carved = stratified_split(_numbered([10, 0, 30]), 4, seed=0)
    assert np.bincount(carved.labels).tolist() == [1, 0, 3]
    assert np.bincount(rest.labels).tolist() == [9, 0, 27]


def test_stratified_split_depends_on_the_seed_alone():
    split = _numbered([50, 50])
    first, again, other = (stratified_split(split, 20, seed=s)[1] for s in (7, 7, 8))
    assert _ids(first) == _ids(again) != _ids(other)


@pytest.mark.parametrize(("sizes", "count"), [([1, 9], 2), ([5, 5], 10), ([0, 5, 1], 2)])
def test_stratified_split_refuses_to_empty_a_class(sizes, count):
    with pytest.raises(UserError, match="every class needs at least 2 and must keep one"):
        stratified_split(_numbered(sizes), count, seed=0)
