"""What a suite costs against images, classes, the side of the images and their robustness.

    python benchmarks/scaling.py --suite standard --n 200

A small strided network with random weights attacks random images, whose labels are its own answers,
at a radius of 1e-5, at which none breaks: each attack takes all its steps on all images, which is
what a robust image costs. Varied from 200 images of 32 x 32 x 3 and 10 classes, one at a time, and
once at a radius of 1, at which all break at once. Prints seconds, and passes an image.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from attacks import machine

from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask


def network(side: int, classes: int) -> keras.Model:
    """Two strided convolutions and a dense layer, with random weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0)),
        ]
    )


def main() -> None:
    """Parses the arguments, measures, prints a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="standard", help="default standard")
    parser.add_argument("--n", type=int, default=200, help="images (default 200)")
    options = parser.parse_args()
    print(machine())
    print(f"\n| {options.suite} | images | side | classes | s | s an image | forward | backward |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    n = options.n
    for what, count, side, classes, eps in (
        ("warm-up", n // 4, 32, 10, 1e-5),
        ("usual", n, 32, 10, 1e-5),
        ("images", 2 * n, 32, 10, 1e-5),
        ("images", 4 * n, 32, 10, 1e-5),
        ("classes", n, 32, 100, 1e-5),
        ("classes", n, 32, 1000, 1e-5),
        ("side", n, 64, 10, 1e-5),
        ("side", n, 128, 10, 1e-5),
        ("none robust", n, 32, 10, 1.0),
    ):
        model = network(side, classes)
        pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
        labels = model.predict(pixels.astype(np.float32) / 255, verbose=0).argmax(-1)
        task = EvaluationTask(model, pixels, labels, eps=eps, precision="float32")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = run_suite(task, options.suite, state=folder)
        seconds = time.perf_counter() - started
        forward, backward = (
            sum(getattr(result.passes, kind) for result in found.results) / count
            for kind in ("forward", "backward")
        )
        print(
            f"| {what} | {count:,} | {side} | {classes:,} | {seconds:.1f} | {seconds / count:.3f} "
            f"| {forward:,.0f} | {backward:,.0f} |",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak resident memory of all {peak:.2f} GiB")


if __name__ == "__main__":
    main()
