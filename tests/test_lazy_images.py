"""Images that are read when they are asked for are those of an array."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import (
    LazyImages,
    ScaledImages,
    chunk_rows,
    file_images,
    in_chunks,
    joined_images,
    rows_of,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 2), np.uint8)


@pytest.fixture
def stored(tmp_path) -> LazyImages:
    path = tmp_path / "images.raw"
    path.write_bytes(b"12345" + PIXELS.tobytes())
    return file_images(path, PIXELS.shape, offset=5)


@pytest.mark.parametrize(
    "key", [3, -1, slice(None), slice(1, 6, 2), [5, 2, 2], [], np.arange(7) % 2 == 0]
)
def test_indexing_is_that_of_an_array(stored, key):
    np.testing.assert_array_equal(stored[key], PIXELS[key])
    scaled = ScaledImages(stored, np.float32(1 / 255))
    np.testing.assert_array_equal(scaled[key], PIXELS[key] * np.float32(1 / 255))
    assert scaled[key].dtype == scaled.dtype == np.float32


@pytest.mark.parametrize(
    "key",
    [
        None, ..., (3, 1), (slice(1, 4), 0), (slice(None), ..., 0), (..., 0), (None, 2),
        ([5, 2], [1, 0]), (-1, slice(None), 0), (np.arange(7) % 2 == 0, 1),
    ],
)  # fmt: skip
def test_several_indices_are_those_of_an_array(stored, key):
    np.testing.assert_array_equal(stored[key], PIXELS[key])


def test_all_else_is_done_as_with_an_array(stored):
    lazy = ScaledImages(stored, np.float32(1 / 255))
    array = PIXELS * np.float32(1 / 255)
    for one, other in (
        (lazy - 1.0, array - 1.0),
        (2 * lazy, 2 * array),
        (lazy > 0.5, array > 0.5),
        (np.clip(lazy, 0, 0.5), np.clip(array, 0, 0.5)),
        (lazy.mean(axis=0), array.mean(axis=0)),
        (lazy.reshape(7, -1), array.reshape(7, -1)),
        (lazy.copy(), array),
        (lazy.T, array.T),
        (np.concatenate([lazy, lazy]), np.concatenate([array, array])),
        (pickle.loads(pickle.dumps(lazy)), array),
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        getattr(lazy, "nothing_like_it")  # noqa: B009


def test_a_file_that_was_written_anew_is_not_read_as_the_one_before(stored, tmp_path):
    (tmp_path / "images.raw").write_bytes(bytes(5 + PIXELS.size + 1))
    with pytest.raises(UserError, match="was changed since its images were opened"):
        stored[0]
    (tmp_path / "images.raw").unlink()
    with pytest.raises(UserError, match="was changed"):
        stored[0]


def test_a_view_reads_nothing_and_is_of_its_rows():
    read = []

    def reading(rows):
        read.append(rows.tolist())
        return PIXELS[rows]

    view = LazyImages(reading, PIXELS.shape, np.uint8).of_rows([6, 0, 3]).of_rows(slice(1, None))
    assert (view.shape, len(view), view.ndim, view.size) == ((2, 4, 3, 2), 2, 4, 48)
    assert read == []
    np.testing.assert_array_equal(view[1], PIXELS[3])
    assert read == [[3]]
    np.testing.assert_array_equal(np.asarray(view), PIXELS[[0, 3]])
    np.testing.assert_array_equal(rows_of(PIXELS, [1]), PIXELS[[1]])


def test_images_in_a_file_travel_to_another_process(stored):
    found = pickle.loads(pickle.dumps(stored.of_rows([5, 2, 2])))
    np.testing.assert_array_equal(found[:], PIXELS[[5, 2, 2]])


def test_scaled_images_know_their_pixels(stored):
    scaled = ScaledImages(stored, np.float32(1 / 255)).of_rows([4, 1])
    np.testing.assert_array_equal(scaled.pixels[:], PIXELS[[4, 1]])


def test_parts_are_joined_in_any_order(stored):
    order = np.array([9, 0, 7, 2, 13, 6])
    both = np.concatenate([PIXELS, 255 - PIXELS])
    np.testing.assert_array_equal(joined_images([stored, 255 - PIXELS], order)[:], both[order])
    arrays = joined_images([PIXELS, 255 - PIXELS], order)
    assert isinstance(arrays, np.ndarray)
    np.testing.assert_array_equal(arrays, both[order])


def test_chunks_take_64_mebibytes():
    assert chunk_rows((9, 1024, 1024, 4), most=100) == 4
    assert chunk_rows((9, 1024, 1024, 4), most=100, itemsize=1) == 16
    assert chunk_rows((9, 8, 8, 1), most=100) == 100
    assert chunk_rows((9, 10_000, 10_000, 3), most=100) == 1  # larger than that
    large = LazyImages(lambda rows: np.zeros((len(rows), 1 << 24)), (9, 1 << 24), np.float32)
    assert [len(part) for part in in_chunks(large.of_rows(slice(0, 2)))] == [1, 1]
