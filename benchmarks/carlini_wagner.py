"""CW-l2 against Foolbox's and ART's on the same weights: time, and how near the examples are.

    python benchmarks/carlini_wagner.py --n 200 --steps 1000

All search nine constants with up to `steps` iterations of Adam each, learning rate 0.01, first
constant 0.001, and stop a constant early where their own rule does. The network is the paper's
small CNN after one epoch on MNIST; all attack the same images that it classifies right. Ours runs
twice, in the precision that this machine is fastest in and in float32; ratios are of the first. A
faster attack that finds larger changes would be no gain, so the mean L2 distance stands beside the
time.

Needs prepared MNIST (TFDS_DATA_DIR), torch, foolbox and adversarial-robustness-toolbox.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from attacks import PACKAGES, trained_classifier, usable_cpus, version
from torch_twin import torch_twin

from bcgan_tf.attacks import CarliniWagnerL2

OURS = "bcgan_tf"
SEARCH_STEPS, LEARNING_RATE, FIRST_CONSTANT = 9, 1e-2, 1e-3


def contenders(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, steps: int, batch_size: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Name to a function that returns adversarial images ``[N, H, W, C]``; ours first."""
    import foolbox
    import torch
    from art.attacks.evasion import CarliniL2Method
    from art.estimators.classification import PyTorchClassifier

    torch.set_num_threads(usable_cpus())
    twin = torch_twin(model, images)
    nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def ours(precision: str) -> np.ndarray:
        attack = CarliniWagnerL2(
            steps=steps,
            binary_search_steps=SEARCH_STEPS,
            learning_rate=LEARNING_RATE,
            initial_const=FIRST_CONSTANT,
            batch_size=batch_size,
        )
        return attack(model, images, labels, precision=precision).adversarials

    def with_foolbox() -> np.ndarray:
        theirs = foolbox.PyTorchModel(twin, bounds=(0, 1))
        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=SEARCH_STEPS,
            steps=steps,
            stepsize=LEARNING_RATE,
            initial_const=FIRST_CONSTANT,
        )
        parts = []
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            inputs: Any = torch.from_numpy(nchw[rows])
            targets: Any = torch.from_numpy(labels[rows])
            parts.append(attack(theirs, inputs, targets, epsilons=None)[1].numpy())
        return np.concatenate(parts).transpose(0, 2, 3, 1)

    def with_art() -> np.ndarray:
        theirs = PyTorchClassifier(
            twin,
            torch.nn.CrossEntropyLoss(),
            input_shape=nchw.shape[1:],
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )
        attack = CarliniL2Method(
            theirs,
            binary_search_steps=SEARCH_STEPS,
            max_iter=steps,
            learning_rate=LEARNING_RATE,
            initial_const=FIRST_CONSTANT,
            batch_size=batch_size,
            verbose=False,
        )
        return attack.generate(nchw, np.eye(10, dtype=np.float32)[labels]).transpose(0, 2, 3, 1)

    return {
        OURS: lambda: ours("auto"),
        "in float32": lambda: ours("float32"),
        "foolbox": with_foolbox,
        "ART": with_art,
    }


def main() -> None:
    """Parses the arguments, attacks with each, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=200, help="images (default 200)")
    parser.add_argument("--leave-out", default="", help="names of contenders, by commas")
    parser.add_argument("--steps", type=int, default=1000, help="iterations (default 1000)")
    parser.add_argument("--batch-size", type=int, default=200, help="of everyone (default 200)")
    options = parser.parse_args()

    logging.getLogger("art").setLevel(logging.ERROR)
    print(f"{usable_cpus()} CPUs, load before the start {os.getloadavg()[0]:.2f}")
    print(", ".join(f"{package} {version(package) or 'missing'}" for package in PACKAGES.split()))
    model, images, labels = trained_classifier(20_000)
    images, labels = images[: options.n], labels[: options.n].astype(np.int64)
    competing = contenders(
        model, images, labels, steps=options.steps, batch_size=options.batch_size
    )
    taken: dict[str, tuple[float, float]] = {}
    print(f"{'':10}{'wall s':>10}{'CPU s':>10}{'broken':>10}{'mean L2':>10}{'median':>10}")
    for name in options.leave_out.split(","):
        competing.pop(name, None)
    for name, contender in competing.items():
        started, cpu = time.perf_counter(), time.process_time()
        found = contender()
        taken[name] = time.perf_counter() - started, time.process_time() - cpu
        broken = model.predict(found, batch_size=500, verbose=0).argmax(-1) != labels
        distance = np.sqrt(np.square(found.astype(np.float64) - images).sum(axis=(1, 2, 3)))
        print(
            f"{name:10}{taken[name][0]:10.1f}{taken[name][1]:10.1f}{100 * broken.mean():8.1f} %"
            f"{distance[broken].mean():10.4f}{np.median(distance[broken]):10.4f}",
            flush=True,
        )
    for name in list(taken)[1:]:
        ratios = [theirs / ours for theirs, ours in zip(taken[name], taken[OURS], strict=True)]
        print(
            f"{name} takes {ratios[0]:.2f} times our wall time, {ratios[1]:.2f} times our CPU time"
        )


if __name__ == "__main__":
    main()
