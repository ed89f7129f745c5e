"""Images of a user's own that are no folder: tables, arrays, prepared and Keras' data sets."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from bcgan_tf.data import Dataset, datasets, load_dataset
from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import LazyImages


def _noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def _rows(data: Dataset, split: str) -> list[tuple[bytes, int]]:
    part = getattr(data, split)
    return [
        (image.tobytes(), int(label))
        for image, label in zip(part.images[:], part.labels, strict=True)
    ]


@pytest.fixture
def table(tmp_path) -> Path:
    """24 images in `pictures`, image i of class 2, 10 or 9 (by i % 3), with splits."""
    (tmp_path / "pictures").mkdir()
    lines = ["path,label,split"]
    for i in range(24):
        Image.fromarray(_noise(i, 4, 5, 3)).save(tmp_path / "pictures" / f"{i}.png")
        split = "test" if i < 6 else "val" if i < 9 else "train"
        lines.append(f"pictures/{i}.png,{(2, 10, 9)[i % 3]},{split}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "images.csv"


def test_a_table_names_images_classes_and_splits(table):
    data = load_dataset(f"csv:{table}")
    assert data.name == "csv-images" and data.class_names == ("2", "9", "10")
    for split, rows in (("test", range(6)), ("validation", range(6, 9)), ("train", range(9, 24))):
        expected = [(_noise(i, 4, 5, 3).tobytes(), (0, 2, 1)[i % 3]) for i in rows]
        assert sorted(_rows(data, split)) == sorted(expected)


def test_a_table_without_splits_has_them_drawn(table):
    text = table.read_text()
    table.write_text("".join(line.rpartition(",")[0] + "\n" for line in text.splitlines()))
    data = load_dataset(f"csv:{table}")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [15, 3, 6]
    assert data.summary["split"].startswith("drawn: 20% of each class for the test")


def test_all_that_is_wrong_with_a_table_is_in_one_message(table):
    lines = table.read_text().splitlines()
    lines[1], lines[2] = "gone.png,2,test", "pictures/1.png,,exam"
    table.write_text("\n".join(lines))
    with pytest.raises(UserError) as caught:
        load_dataset(f"csv:{table}")
    for part in ("no label in line 3", "split 'exam'; use train", "gone.png: no such file"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na.png,1\n", "no column path; its first line must be path,label or"),
        ("", "no column label and no column path"),
        ("path,label\n", "no row; its first line"),
        ("path,label\na.png,1\n", "1 label(s); a classifier needs at least 2"),
        ("path,label,split\na.png,1,train\nb.png,2,val\n", "no row has the split test; leave out"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        load_dataset(f"csv:{tmp_path}/a.csv")
    with pytest.raises(UserError, match=r"b\.csv: no such file; give a CSV file"):
        load_dataset(f"csv:{tmp_path}/b.csv")


X, Y = _noise(0, 40, 6, 6, 3), np.arange(40) % 4


def test_arrays_of_a_file(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=X, y_train=np.eye(4)[Y], x_test=X[:8], y_test=Y[:8, None])
    data = load_dataset(f"npz:{file}", seed=1)
    assert data.name == "npz-mine" and data.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(data.test.images, X[:8])
    both = sorted(_rows(data, "train") + _rows(data, "validation"))
    assert both == sorted((x.tobytes(), int(y)) for x, y in zip(X, Y, strict=True))
    assert len(data.validation) == 4
    np.savez(file, x_train=X, y_train=Y, x_test=X, y_test=Y, x_val=X[4:8], y_val=Y[4:8],
             class_names=np.array(list("abcd")))  # fmt: skip
    data = load_dataset(f"npz:{file}")
    np.testing.assert_array_equal(data.validation.images, X[4:8])
    np.testing.assert_array_equal(data.train.images, X)
    assert data.class_names == tuple("abcd")


def test_arrays_get_their_channel_the_size_and_the_colour(tmp_path):
    file = tmp_path / "gray.npz"
    np.savez(file, x_train=X[..., 0], y_train=Y, x_test=X[..., 0] / 255, y_test=Y)
    data = load_dataset(f"npz:{file}")
    assert data.image_shape == (6, 6, 1) and data.train.images.dtype == np.uint8
    data = load_dataset(f"npz:{file}", image_size=9, color="rgb")
    assert data.image_shape == (9, 9, 3)
    np.testing.assert_array_equal(data.train.images[..., 0], data.train.images[..., 2])
    expected = tf.image.resize(np.repeat(X[:, :, :, :1], 3, -1), (9, 9)).numpy()
    assert np.abs(data.test.images * 255 - expected).max() < 1e-3
    assert data.summary["converted"] == {"grey to colour": 80, "resized": 80}


def test_all_that_is_wrong_with_arrays_is_in_one_message(tmp_path):
    file = tmp_path / "bad.npz"
    np.savez(file, x_train=X, y_train=Y[:-1], x_test=X[:, :5] / 2, y_test=Y)
    with pytest.raises(UserError) as caught:
        load_dataset(f"npz:{file}")
    assert "train: 40 images came with labels" in str(caught.value)
    assert "test: the images are floats in [0, 127.5]" in str(caught.value)
    np.savez(file, x_train=X, y_train=Y)
    with pytest.raises(UserError, match=r"no array x_test, y_test \(it has x_train, y_train\)"):
        load_dataset(f"npz:{file}")
    file.write_text("x")
    with pytest.raises(UserError, match=r"no readable \.npz file of plain arrays"):
        load_dataset(f"npz:{file}")
    with pytest.raises(UserError, match=r"no such file; give an \.npz file"):
        load_dataset(f"npz:{tmp_path}/gone.npz")


def test_kerass_own_data_sets(monkeypatch):
    arrays = (X[..., 0], Y), (X[:8, ..., 0], Y[:8])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: arrays)
    data = load_dataset("keras:mnist")
    assert data.name == "keras-mnist" and data.image_shape == (6, 6, 1)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 4, 8]

    def fail():
        raise OSError("no network")

    monkeypatch.setattr(keras.datasets.cifar100, "load_data", fail)
    with pytest.raises(UserError, match=r"cifar100 is not here and cannot be downloaded \(no net"):
        load_dataset("keras:cifar100")
    with pytest.raises(UserError, match="no images called 'imdb'; choose mnist, fashion_mnist"):
        load_dataset("keras:imdb")


FEATURES = {
    "picture": tfds.features.Image(shape=(None, None, 3)),
    "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Folder of prepared sets; image i has the class i % 2, and 5 + i % 2 rows."""
    root = tmp_path_factory.mktemp("prepared")

    def examples(start: int, stop: int, hidden: bool = False) -> tf.data.Dataset:
        def generate():
            for i in range(start, stop):
                yield {"picture": _noise(i, 5 + i % 2, 4, 3), "kind": -1 if hidden else i % 2}

        spec = {
            "picture": tf.TensorSpec([None, None, 3], tf.uint8),
            "kind": tf.TensorSpec([], tf.int64),
        }
        return tf.data.Dataset.from_generator(generate, output_signature=spec)

    for name, splits in {
        "three": {"train": (0, 20), "validation": (20, 26), "test": (26, 30)},
        "two": {"train": (0, 20), "validation": (20, 26), "extra": (30, 33)},
        "one": {"train": (0, 40)},
        "unlabelled": {"train": (0, 20), "validation": (20, 26), "test": (26, 30)},
    }.items():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(FEATURES),
            split_datasets={
                split: examples(*rows, hidden=(name, split) == ("unlabelled", "test"))
                for split, rows in splits.items()
            },
            data_dir=root,
        )
    return root


def _expected(rows: range) -> list[tuple[bytes, int]]:
    resized = [np.rint(tf.image.resize(_noise(i, 5 + i % 2, 4, 3), (8, 8)).numpy()) for i in rows]
    return sorted(
        (image.astype(np.uint8).tobytes(), i % 2) for i, image in zip(rows, resized, strict=True)
    )


@pytest.mark.parametrize("cached", [False, True])
def test_a_prepared_set_of_images_of_any_size(prepared, tmp_path, cached):
    for _ in range(2):
        data = load_dataset(
            "tfds:three", data_dir=prepared, image_size=8, cache_dir=tmp_path if cached else None
        )
        assert isinstance(data.train.images, LazyImages) == cached
        assert data.name == "tfds-three" and data.class_names == ("cat", "dog")
        for split, rows in (("train", (0, 20)), ("validation", (20, 26)), ("test", (26, 30))):
            assert sorted(_rows(data, split)) == _expected(range(*rows))
        assert data.summary["split"] == "as given"


@pytest.mark.parametrize("name", ["two", "unlabelled"])
def test_without_test_images_the_validation_images_are_those(prepared, name):
    data = load_dataset(f"tfds:{name}", data_dir=prepared, image_size=8)
    assert sorted(_rows(data, "test")) == _expected(range(20, 26))
    both = sorted(_rows(data, "train") + _rows(data, "validation"))
    assert both == _expected(range(20))
    assert "the test images are its validation split" in data.summary["split"]
    skipped = {"two": {"of the split extra": 3}}
    without = {"of the test split, which has no labels": 4}
    assert data.summary["skipped"] == skipped.get(name, without)


def test_of_a_single_split_the_others_are_drawn(prepared):
    data = load_dataset("tfds:one", data_dir=prepared, image_size=8)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [28, 4, 8]
    everything = [row for split in ("train", "validation", "test") for row in _rows(data, split)]
    assert sorted(everything) == _expected(range(40))


def test_what_is_wrong_with_a_prepared_set(prepared):
    with pytest.raises(
        UserError, match=r"the images have several sizes, such as [56]x4 and [56]x4"
    ):
        load_dataset("tfds:one", data_dir=prepared)
    message = "no prepared copy of beans in .*; here are one, three, two, unlabelled; prepare it"
    with pytest.raises(UserError, match=message):
        load_dataset("tfds:beans", data_dir=prepared)
    with pytest.raises(UserError, match="cannot name a data set"):
        load_dataset("tfds:../one", data_dir=prepared)
    names = [row.name for row in datasets(data_dir=prepared)]
    assert {"tfds:one", "tfds:two", "tfds:three"} < set(names)
