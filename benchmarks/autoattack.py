"""The suite `standard` against the reference AutoAttack in PyTorch, on the same weights.

    python benchmarks/autoattack.py MODEL.keras --n 500 --eps 0.3

The reference is torchattacks' port (on CPUs; the original's PyTorch code with another front). Both
attack the same test images with the true labels, all in one batch, each attack only what those
before it left. Prints the robust accuracy of both, on how many images they disagree, and the time
as a ratio, for the reference in PyTorch's default layout and with channels last.

MODEL is a chain of convolutions and dense layers, such as what `bcgan-tf harden --defense pgd-at`
makes. Needs prepared data (TFDS_DATA_DIR), torch and torchattacks.
"""

from __future__ import annotations

import argparse
import functools
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from attacks import PACKAGES, usable_cpus, version
from torch_twin import torch_twin

import bcgan_tf


def ours(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, eps: float, seed: int
) -> np.ndarray:
    """bool ``[N]``: right, and still so after the suite."""
    evaluation = bcgan_tf.evaluate(
        model, images, labels, eps=eps, seed=seed, batch_size=len(labels), diagnose=False
    )
    for attack in evaluation.to_dict()["attacks"]:
        print(f"    {attack['attack']:10} left {attack['left']:.4f}, {attack['seconds']:.1f} s")
    return evaluation.worst_case


def reference(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    seed: int,
    *,
    channels_last: bool = False,
) -> np.ndarray:
    """The same from torchattacks' AutoAttack."""
    import torch
    import torchattacks

    torch.set_num_threads(usable_cpus())
    twin = torch_twin(model, images, channels_last=channels_last)
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    targets = torch.from_numpy(labels.astype(np.int64))
    right = (twin(inputs).argmax(1) == targets).numpy()
    attack = torchattacks.AutoAttack(twin, norm="Linf", eps=eps, n_classes=10, seed=seed)
    survived = np.zeros(len(labels), bool)
    with torch.enable_grad():
        found = attack(inputs[right], targets[right])
    assert (found - inputs[right]).abs().max() <= eps + 1e-5
    survived[right] = (twin(found).argmax(1) == targets[right]).numpy()
    return survived


def main() -> None:
    """Parses the arguments, runs both, prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("--dataset", default="mnist", help="default mnist")
    parser.add_argument("--n", type=int, default=500, help="test images (default 500)")
    parser.add_argument("--eps", type=float, default=0.3, help="Linf radius (default 0.3)")
    parser.add_argument("--seed", type=int, default=0, help="of both (default 0)")
    options = parser.parse_args()

    print(f"{usable_cpus()} CPUs, load {os.getloadavg()[0]:.2f}")
    print(", ".join(f"{package} {version(package) or 'missing'}" for package in PACKAGES.split()))
    model = keras.models.load_model(options.model)
    test = bcgan_tf.load_dataset(options.dataset).test
    images, labels = test.scaled(0, options.n), test.labels[: options.n].astype(np.int64)
    found = {}
    contenders = {
        "bcgan_tf": ours,
        "torchattacks": reference,
        "torchattacks, channels last": functools.partial(reference, channels_last=True),
    }
    for name, attack in contenders.items():
        started, cpu = time.perf_counter(), time.process_time()
        found[name] = attack(model, images, labels, options.eps, options.seed)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"{name}: robust {found[name].mean():.4f}, {wall:.1f} s wall, {cpu:.1f} s CPU")
        found[name + " time"] = wall, cpu
    print(f"n {len(labels)}, eps {options.eps:g}")
    for name in list(contenders)[1:]:
        differing = int((found["bcgan_tf"] != found[name]).sum())
        pairs = zip(found[name + " time"], found["bcgan_tf time"], strict=True)
        wall, cpu = (theirs / ours for theirs, ours in pairs)
        print(f"{name}: {wall:.2f} times our wall time, {cpu:.2f} times our CPU time; ", end="")
        print(f"disagrees with ours on {differing} images")


if __name__ == "__main__":
    main()
