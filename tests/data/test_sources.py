"""What `load` returns: real MNIST, digits, the Gaussians; and its error lines."""

from __future__ import annotations

import hashlib
import math
import shutil
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from bcgan_tf.data import datasets, gaussians, load_dataset, tfds_source
from bcgan_tf.data.dataset import Dataset, Split
from bcgan_tf.errors import UserError

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def _fingerprint(*splits: Split) -> str:
    """Of every image with its label, in whatever order a prepared copy holds them."""
    rows = [
        hashlib.md5(image.tobytes() + bytes([label])).digest()
        for split in splits
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def _as_set(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


@pytest.mark.real_data
def test_mnist_is_the_real_one(mnist: Dataset):
    assert (mnist.name, mnist.image_shape, mnist.num_classes) == ("mnist", (28, 28, 1), 10)
    assert mnist.class_names == tuple("0123456789")
    assert [len(s) for s in (mnist.train, mnist.validation, mnist.test)] == [55000, 5000, 10000]
    both = np.bincount(mnist.train.labels) + np.bincount(mnist.validation.labels)
    assert both.tolist() == MNIST_TRAIN
    assert np.bincount(mnist.test.labels).tolist() == MNIST_TEST
    total = mnist.train.images.sum(dtype=np.int64) + mnist.validation.images.sum(dtype=np.int64)
    assert total / (60000 * 784 * 255) == pytest.approx(0.1306604762738429, abs=1e-12)
    assert _fingerprint(mnist.train, mnist.validation).startswith("db4e1cca553c0b12")
    assert _fingerprint(mnist.test).startswith("6e83f9f3931ab860")


@pytest.mark.real_data
def test_mnist_validation_is_stratified_and_apart(mnist: Dataset):
    # 5,000 in proportion: each class within one image of its exact share.
    shares = np.array(MNIST_TRAIN) / 12
    assert np.abs(np.bincount(mnist.validation.labels) - shares).max() < 1
    validation = _as_set(mnist.validation)
    assert not validation & _as_set(mnist.train)
    assert not validation & _as_set(mnist.test)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "shape", "train_size", "first_class"),
    [
        ("fashion_mnist", (28, 28, 1), 60000, "T-shirt/top"),
        ("cifar10", (32, 32, 3), 50000, "airplane"),
    ],
)
def test_the_other_prepared_sets(name, shape, train_size, first_class):
    if tfds_source.prepared_version(name) is None:
        pytest.skip(f"no prepared {name} (set TFDS_DATA_DIR)")
    data = load_dataset(name)
    assert data.image_shape == shape
    assert len(data.train) + len(data.validation) == train_size
    assert (len(data.validation), len(data.test)) == (5000, 10000)
    assert data.class_names[0] == first_class
    # Both sets are balanced exactly, and so is a stratified tenth of them.
    assert set(np.bincount(data.test.labels)) == {1000}
    assert set(np.bincount(data.validation.labels)) == {500}
    assert set(np.bincount(data.train.labels)) == {train_size // 10 - 500}


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (data.name, data.image_shape, data.num_classes) == ("digits", (8, 8, 1), 10)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [1293, 144, 360]
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)
    # Undoing the scale gives back every original image, each exactly once.
    ours = np.concatenate([s.images for s in (data.train, data.validation, data.test)])
    back = np.round(ours[..., 0] / 255 * 16)
    assert sorted(map(bytes, back.astype(np.uint8).reshape(-1, 64))) == sorted(
        map(bytes, load_digits().data.astype(np.uint8))
    )
    every = np.bincount(load_digits().target)
    shares = every * 360 / 1797
    assert np.abs(np.bincount(data.test.labels) - shares).max() < 1


def test_the_seed_moves_validation_but_never_the_test_set():
    first, other = load_dataset("digits"), load_dataset("digits", seed=1)
    np.testing.assert_array_equal(first.test.images, other.test.images)
    assert _as_set(first.validation) != _as_set(other.validation)
    again = load_dataset("digits", seed=1)
    np.testing.assert_array_equal(again.validation.images, other.validation.images)
    np.testing.assert_array_equal(again.train.labels, other.train.labels)


def test_gaussians_have_the_known_bayes_error():
    data = load_dataset("gaussians")
    assert data.image_shape == (2,) and data.train.images.dtype == np.float32
    for split, per_class in ((data.train, 2000), (data.validation, 200), (data.test, 5000)):
        assert np.bincount(split.labels).tolist() == [per_class, per_class]
    assert pytest.approx(0.016947, abs=1e-6) == gaussians.BAYES_ERROR
    wrong = np.mean((data.test.images.sum(axis=1) > 0) != data.test.labels)
    spread = math.sqrt(gaussians.BAYES_ERROR * (1 - gaussians.BAYES_ERROR) / len(data.test))
    assert abs(wrong - gaussians.BAYES_ERROR) < 3 * spread
    for label, centre in ((0, -1.5), (1, 1.5)):
        points = data.train.images[data.train.labels == label]
        np.testing.assert_allclose(points.mean(axis=0), [centre, centre], atol=0.08)
        np.testing.assert_allclose(np.cov(points.T), np.eye(2), atol=0.1)


def test_an_unknown_name_lists_the_known_and_suggests():
    with pytest.raises(UserError) as caught:
        load_dataset("minst")
    assert str(caught.value) == (
        "unknown data set 'minst'; did you mean 'mnist'? "
        "use mnist, fashion_mnist, cifar10, digits, gaussians, folder:PATH, csv:FILE, npz:FILE, "
        "tfds:NAME or keras:NAME"
    )


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UserError, match=f"seed {seed} is out of range; use 0 to 4294967295"):
        load_dataset("digits", seed=seed)


def test_a_missing_copy_without_a_network_answers_at_once(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_dataset("mnist", data_dir=tmp_path)
    assert time.monotonic() - start < 1
    assert str(caught.value) == (
        f"no prepared copy of mnist in {tmp_path}, and storage.googleapis.com does not answer "
        "([Errno -2] Name or service not known); give a prepared copy with --data-dir or "
        "TFDS_DATA_DIR"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_swallows_everything_answers_within_five_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: time.sleep(30))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"does not answer \(no answer in 3 s\)"):
        load_dataset("cifar10", data_dir=tmp_path)
    assert time.monotonic() - start < 5


def _broken_copy(data_dir: Path, without: str) -> Path:
    """A copy of the prepared MNIST's layout, with one file missing and empty shards."""
    folder = data_dir / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(
        '{"splits": [{"name": "train", "shardLengths": ["6"]},'
        ' {"name": "test", "shardLengths": ["2"]}]}'
    )
    for file in ("features.json", "mnist-train.tfrecord-0", "mnist-test.tfrecord-0"):
        (folder / file).touch()
    (folder / without).unlink()
    return folder


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("dataset_info.json", "the prepared copy has no readable dataset_info.json"),
        ("mnist-train.tfrecord-0", r"the prepared copy is incomplete \(train\)"),
        ("mnist-test.tfrecord-0", r"the prepared copy is incomplete \(test\)"),
        ("features.json", "the prepared copy is incomplete"),
    ],
)
def test_an_incomplete_copy_is_named_and_left_alone(tmp_path, without, message):
    folder = _broken_copy(tmp_path, without)
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=f"{folder}: {message}.*--data-dir"):
        load_dataset("mnist", data_dir=tmp_path)
    assert sorted(folder.iterdir()) == before
    row = datasets(data_dir=tmp_path)[0]
    assert not row.prepared and str(folder) in row.location


@pytest.mark.real_data
def test_a_damaged_copy_is_named_and_left_alone(tmp_path):
    prepared = tfds_source.prepared_version("mnist")
    if prepared is None:
        pytest.skip("no prepared MNIST (set TFDS_DATA_DIR)")
    folder = tmp_path / "mnist" / prepared.name
    shutil.copytree(prepared, folder)
    (damaged,) = folder.glob("mnist-train.*")
    damaged.chmod(0o644)
    size = damaged.stat().st_size
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 1000)
    with pytest.raises(UserError, match=f"{folder}: cannot read the prepared copy of mnist"):
        load_dataset("mnist", data_dir=tmp_path)
    assert damaged.stat().st_size == size


def test_the_newest_version_wins_and_other_folders_are_ignored(tmp_path):
    for version in ("3.0.1", "3.0.10", "incomplete.3.0.20", "downloads"):
        folder = tmp_path / "mnist" / version
        folder.mkdir(parents=True)
        source = _broken_copy(tmp_path / version, "features.json")
        (source / "features.json").touch()
        shutil.copytree(source, folder, dirs_exist_ok=True)
    assert tfds_source.prepared_version("mnist", tmp_path) == tmp_path / "mnist" / "3.0.10"


def test_the_flag_goes_before_the_variable_before_the_default(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "variable")
    assert tfds_source.data_directory("flag") == Path("flag")
    assert tfds_source.data_directory() == Path("variable")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_source.data_directory() == Path.home() / "tensorflow_datasets"


def test_datasets_says_what_can_be_read_here(tmp_path):
    rows = {row.name: row for row in datasets(data_dir=tmp_path)}
    assert list(rows) == [
        "mnist",
        "fashion_mnist",
        "cifar10",
        "digits",
        "gaussians",
        "folder:PATH",
        "csv:FILE",
        "npz:FILE",
        "tfds:NAME",
        "keras:NAME",
    ]
    assert [row.prepared for row in rows.values()] == [False] * 3 + [True] * 7
    assert rows["mnist"].location == "downloaded on first use"
    assert rows["digits"].location == "embedded"
