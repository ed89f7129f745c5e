"""MNIST, Fashion-MNIST and CIFAR-10 through tensorflow-datasets: a prepared copy comes first."""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bcgan_tf.data.dataset import Dataset, Split, stratified_split
from bcgan_tf.errors import UserError

_VALIDATION_SIZE = 5000
# Without a network tensorflow-datasets retries for 200 s; one request tells us in this time.
_PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class _Source:
    summary: str
    class_names: tuple[str, ...]
    url: str  # one of the files that tensorflow-datasets would download


SOURCES = {
    "mnist": _Source(
        "handwritten digits, 28x28x1, 60,000 + 10,000, 10 classes",
        tuple("0123456789"),
        "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
    ),
    "fashion_mnist": _Source(
        "clothes, 28x28x1, 60,000 + 10,000, 10 classes",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
    ),
    "cifar10": _Source(
        "colour photographs, 32x32x3, 50,000 + 10,000, 10 classes",
        (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ),
}


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where prepared copies lie: `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(chosen).expanduser()


def prepared_version(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Folder of the newest prepared copy of `name`, or None. Reads no data, imports no TensorFlow.

    Raises:
        UserError: when a copy is there but incomplete.
    """
    parent = data_directory(data_dir) / name
    versions = [
        folder
        for folder in (parent.iterdir() if parent.is_dir() else ())
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
    ]
    if not versions:
        return None
    newest = max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))))
    _check_complete(newest, name)
    return newest


def _check_complete(folder: Path, name: str) -> None:
    remedy = "delete this folder to download it again, or name another with --data-dir"
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        shards = {split["name"]: len(split["shardLengths"]) for split in info["splits"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: the prepared copy has no readable dataset_info.json; {remedy}"
        ) from error
    for split in ("train", "test"):
        present = len(list(folder.glob(f"{name}-{split}.*")))
        if present < shards.get(split, 1) or not (folder / "features.json").is_file():
            raise UserError(f"{folder}: the prepared copy is incomplete ({split}); {remedy}")


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> Dataset:
    """One of `SOURCES` from a prepared copy, or downloaded once where there is none.

    Args:
        name: a key of `SOURCES`.
        data_dir: folder of prepared copies; see `data_directory`.
        seed: chooses the 5,000 validation images, out of the training images.

    Raises:
        UserError: when the copy is incomplete or unreadable, or there is none and no network
            (within 5 seconds).
    """
    folder = prepared_version(name, data_dir) or _download(name, data_directory(data_dir))
    pool, test = _read(folder, name)
    train, validation = stratified_split(pool, _VALIDATION_SIZE, seed=seed)
    return Dataset(name, train, validation, test, SOURCES[name].class_names)


def _read(folder: Path, name: str) -> tuple[Split, Split]:
    import tensorflow_datasets as tfds

    splits = []
    try:
        builder = tfds.builder_from_directory(folder)
        for split in ("train", "test"):
            # One batch of everything: decoded in parallel, in the order of the files.
            whole = builder.as_dataset(split=split, batch_size=-1)
            raw = tfds.as_numpy(whole)
            splits.append(Split(raw["image"], raw["label"].astype(np.int64)))
    except UserError:
        raise
    except Exception as error:  # tfds and TensorFlow raise a dozen unrelated types here
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{folder}: cannot read the prepared copy of {name} ({reason[0]}); "
            "prepare it again in another folder, as TFRecord files"
        ) from error
    return splits[0], splits[1]


def _download(name: str, directory: Path) -> Path:
    """Downloads and prepares `name` with tensorflow-datasets, which renames a finished copy."""
    where = "give a prepared copy with --data-dir or TFDS_DATA_DIR"
    missing = f"no prepared copy of {name} in {directory}"
    reason = _unreachable(SOURCES[name].url)
    if reason:
        host = urlsplit(SOURCES[name].url).hostname
        raise UserError(f"{missing}, and {host} does not answer ({reason}); {where}")
    import tensorflow_datasets as tfds

    try:
        directory.mkdir(parents=True, exist_ok=True)
        # TFRecord whatever the default becomes: it is what as_dataset reads.
        builder = tfds.builder(name, data_dir=directory, file_format="tfrecord")
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums: tfds has no common base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{missing}, and downloading it failed ({lines[0]}); {where}") from error
    return Path(builder.data_path)


def _unreachable(url: str) -> str:
    """Why `url` cannot be fetched, in a few words; empty when it can.

    In a thread of its own: looking up a name has no time limit. Through urllib: it knows proxies.
    """
    outcome = [f"no answer in {_PROBE_SECONDS:g} s"]

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
                outcome[0] = ""
        except Exception as error:
            outcome[0] = str(getattr(error, "reason", error)) or type(error).__name__

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return outcome[0]
