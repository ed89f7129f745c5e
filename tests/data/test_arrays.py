"""Images and labels as Keras users have them: every form gives the same arrays."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data import Dataset, Split
from bcgan_tf.data.arrays import as_dataset, as_images, as_labels, as_split
from bcgan_tf.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 4, 4, 1)).astype(np.uint8)
CLASSES = np.arange(40) % 4
FLOATS = PIXELS.astype(np.float32) * np.float32(1 / 255)
ONE_HOT = np.eye(4)[CLASSES]


class Batches(keras.utils.PyDataset):
    """Pairs in batches of 7, or whatever ``more`` adds to them."""

    def __init__(self, x, y, *more):
        super().__init__()
        self.parts = (x, y, *more)

    def __len__(self):
        return -(-len(self.parts[0]) // 7)

    def __getitem__(self, index):
        return tuple(part[7 * index : 7 * index + 7] for part in self.parts)


class Endless(Batches):
    @property
    def num_batches(self):
        return None


def _pipeline(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES.astype(np.uint8),
        CLASSES.astype(np.int32),
        CLASSES[:, None],
        CLASSES.astype(np.float64),
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.astype(np.float32),
        CLASSES.tolist(),
        tf.constant(CLASSES),
    ],
)
def test_labels_in_every_form_are_class_indices(labels):
    found = as_labels(labels, 40)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, CLASSES)


@pytest.mark.parametrize(
    "images", [PIXELS, FLOATS, FLOATS.astype(np.float64), list(FLOATS), tf.constant(FLOATS)]
)
def test_images_in_every_form_are_floats_in_the_unit_range(images):
    found = as_images(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, FLOATS)


@pytest.mark.parametrize(
    "given",
    [
        (PIXELS, CLASSES),
        (PIXELS[..., 0], ONE_HOT),
        ((PIXELS, CLASSES[:, None]),),
        (_pipeline(PIXELS, CLASSES),),
        (_pipeline(PIXELS, ONE_HOT),),
        (_pipeline(PIXELS, ONE_HOT).batch(7),),
        (_pipeline(PIXELS[..., 0], CLASSES).batch(8, drop_remainder=True),),
        (Split(PIXELS, CLASSES),),
        (Batches(PIXELS, ONE_HOT),),
        (Batches(PIXELS[..., 0], CLASSES[:, None]),),
    ],
    ids=range(10),
)
def test_a_split_keeps_uint8_and_gets_the_channel_that_the_model_asks_for(given):
    split = as_split(*given, image_shape=(None, 4, 1))
    np.testing.assert_array_equal(split.images, PIXELS)
    np.testing.assert_array_equal(split.labels, CLASSES)
    assert split.images.dtype == np.uint8


def test_without_a_model_that_asks_for_it_no_axis_is_added():
    assert as_split(PIXELS[..., 0], CLASSES).images.shape == (40, 4, 4)
    assert as_split(PIXELS[..., 0], CLASSES, image_shape=(4, 4)).images.shape == (40, 4, 4)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (255 * FLOATS, CLASSES, r"floats in \[0, 255\], not in \[0, 1\]; divide pixels of"),
        (PIXELS.astype(np.int64), CLASSES, "the images are int64; give uint8"),
        (np.full((40, 2), np.nan), CLASSES, "NaN or infinite"),
        ([FLOATS[0], FLOATS[1, :2]], [0, 0], "the images have different shapes"),
        (FLOATS, CLASSES[:3], r"40 images came with labels of shape \(3,\)"),
        (FLOATS, ONE_HOT + 1, "not one-hot"),
        (FLOATS, np.where(CLASSES == 3, np.nan, 0), "not all integers"),
        (FLOATS, CLASSES - 1, "label -1 is negative"),
        (FLOATS, [[1], [1, 2]], "the labels have different lengths"),
        (FLOATS, ["cat"] * 40, "the labels are <U3"),
        (FLOATS, None, "the labels are missing beside a ndarray"),
        ((FLOATS, CLASSES, CLASSES), None, "the labels are missing beside a tuple"),
        (tf.data.Dataset.from_tensor_slices(FLOATS), None, "other elements than"),
        (_pipeline(FLOATS, CLASSES).repeat(), None, "never ends"),
        (_pipeline(FLOATS, CLASSES).take(0), None, "is empty"),
        (_pipeline(FLOATS, CLASSES), CLASSES, "leave out y"),
    ],
)
def test_what_is_unfit_is_named_in_one_line(images, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        as_split(images, labels)
    assert "\n" not in str(caught.value)


def test_all_faults_of_both_parts_are_in_one_message():
    with pytest.raises(UserError) as caught:
        as_dataset(255 * FLOATS, CLASSES - 1, validation_data=(PIXELS, CLASSES[:3]))
    for fault in ("floats in [0, 255]", "label -1", "validation_data: 40 images"):
        assert fault in str(caught.value)


def test_a_share_of_each_class_is_set_aside():
    data = as_dataset(PIXELS, CLASSES, validation_split=0.2, seed=3)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [32, 8, 0]
    np.testing.assert_array_equal(np.bincount(data.validation.labels), [2, 2, 2, 2])
    assert data.num_classes == 4 and data.image_shape == (4, 4, 1)
    rows = {row.tobytes() for row in data.train.images}
    assert not rows & {row.tobytes() for row in data.validation.images}
    again = as_dataset(PIXELS, CLASSES, validation_split=0.2, seed=3)
    np.testing.assert_array_equal(again.validation.images, data.validation.images)


def test_validation_data_take_the_place_of_a_share():
    data = as_dataset(PIXELS, CLASSES, validation_data=(FLOATS[:4], ONE_HOT[:4]))
    assert len(data.train) == 40
    np.testing.assert_array_equal(data.validation.scaled(), FLOATS[:4])
    assert as_dataset(data) is data and isinstance(data, Dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.0}, "validation_split is 0.0"),
        ({"validation_data": (PIXELS[:, :2], CLASSES)}, "those of validation_data"),
    ],
)
def test_parts_that_do_not_go_together(options, message):
    with pytest.raises(UserError, match=message):
        as_dataset(PIXELS, CLASSES, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Batches(PIXELS, CLASSES, CLASSES), "the PyDataset gives other batches than"),
        (Endless(PIXELS, CLASSES), "the PyDataset never ends; give it a __len__"),
        (Batches(PIXELS[:0], CLASSES[:0]), "the PyDataset is empty"),
        (Batches(PIXELS * 1.0, CLASSES), r"floats in \[0, 255\], not in \[0, 1\]"),
    ],
)
def test_a_pydataset_that_is_none_of_images_and_labels(data, message):
    with pytest.raises(UserError, match=message):
        as_split(data)
    with pytest.raises(UserError, match="a PyDataset gives its labels itself; leave out y"):
        as_split(data, CLASSES)
