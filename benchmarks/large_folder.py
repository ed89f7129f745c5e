"""A data set that is larger than the memory it may take: seconds and peak memory of each command.

    python benchmarks/large_folder.py --images 20000 --side 256
    python benchmarks/large_folder.py --images 2000 --side 64 --n 20000

Writes a folder of JPEGs of two classes, for training and for testing, and a small classifier for
them; then hardens and attacks it with `bcgan-tf`, each in a process of its own, whose peak resident
memory (ru_maxrss, mapped pages of files included) is what counts. The decoded images are kept in a
cache folder (`--cache-dir`), because the memory of this machine may be large enough to hold all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageFilter

CLASSES = ("dark", "light")
SOME = 256


def write_images(folder: Path, count: int, side: int) -> None:
    """JPEGs of blurred noise; those of the second class are lighter."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    random = np.random.RandomState(0)
    for index in range(count):
        pixels = random.randint(0, 256, (side // 8, side // 8, 3)).astype(np.float32) * 0.8
        if index % 2:
            pixels += 50
        image = Image.fromarray(pixels.astype(np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        image = image.filter(ImageFilter.SHARPEN)
        image.save(folder / CLASSES[index % 2] / f"{index:06d}.jpg", quality=85)


def write_classifier(path: Path, images: Path, side: int) -> None:
    """A small strided network, trained on a few of the images."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Conv2D(8, 5, strides=4, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    files = [images / CLASSES[index % 2] / f"{index:06d}.jpg" for index in range(SOME)]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32) / 255
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    network.fit(pixels, np.arange(SOME) % 2, batch_size=32, epochs=8, verbose=2)
    network.save(path)


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and peak resident memory in GiB of a command."""
    start = time.monotonic()
    process = subprocess.Popen([Path(sys.executable).with_name("bcgan-tf"), *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with {status}")
    return time.monotonic() - start, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="Images to train on.")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--n", type=int, default=200, help="Images to attack.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "images" / "train", chosen.images, chosen.side)
        write_images(root / "images" / "test", chosen.n, chosen.side)
        # In a process of its own: TensorFlow in this one would count where memory is limited.
        trained = (root / "net.keras", root / "images" / "train", chosen.side)
        process = multiprocessing.get_context("spawn").Process(
            target=write_classifier, args=trained
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"the classifier's training ended with {process.exitcode}")
        size = sum(file.stat().st_size for file in (root / "images").rglob("*.jpg"))
        decoded = (chosen.images + chosen.n) * chosen.side**2 * 3
        print(f"{size / 2**30:.2f} GiB of JPEGs, {decoded / 2**30:.2f} GiB of pixels", flush=True)
        data = ["--dataset", f"folder:{root / 'images'}", "--cache-dir", str(root / "cache")]
        hardened = root / "hard" / "hardened.keras"
        for name, arguments in {
            "harden, one epoch of PGD training": [
                "harden", *data, "--classifier", str(root / "net.keras"), "--defense", "pgd-at",
                "-o", "eps=8/255", "-o", "epochs=1", "-o", "steps=1", "-o", "ramp_epochs=0",
                "--no-attack", "--run-dir", str(root / "hard"),
            ],
            f"attack {chosen.n:,} images, suite fast": [
                "attack", *data, str(hardened), "--eps", "8/255", "--suite", "fast", "--n", "0",
                "--run-dir", str(root / "attacked"),
            ],
        }.items():  # fmt: skip
            seconds, peak = run(*arguments)
            print(f"{name}: {seconds:.0f} s, peak resident memory {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
