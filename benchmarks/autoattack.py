"""The suite `standard` against AutoAttack in PyTorch, on the same weights.

    python benchmarks/autoattack.py MODEL.keras --n 500 --eps 0.3 --reference AUTO_ATTACK

Ours, searching in float32 and as this machine is fastest; the original code, of which AUTO_ATTACK
is a checkout (github.com/fra31/auto-attack); and torchattacks, if it is installed, whose own
`AutoAttack` takes 10 steps where AutoAttack takes 100: its attacks are given AutoAttack's budgets.
All attack the same test images with the true labels, all in one batch, each attack only what those
before it left; PyTorch with channels last, which is faster on a CPU. Prints the robust accuracies,
on how many images each disagrees with ours, and the times as ratios to both of ours.

MODEL is a chain of convolutions and dense layers, such as what `bcgan-tf harden --defense pgd-at`
makes. Needs prepared data (TFDS_DATA_DIR) and torch.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from attacks import PACKAGES, usable_cpus, version
from torch_twin import torch_twin

import bcgan_tf

OURS = {"bcgan_tf, float32": "float32", "bcgan_tf, auto": "auto"}
# The budgets of AutoAttack's version "standard".
STEPS, QUERIES = 100, 5000


def ours(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    seed: int,
    *,
    precision: str,
) -> np.ndarray:
    """bool ``[N]``: right, and still so after the suite."""
    evaluation = bcgan_tf.evaluate(
        model, images, labels, eps=eps, seed=seed, batch_size=len(labels), diagnose=False,
        precision=precision,
    )  # fmt: skip
    print(f"  searched in {evaluation.precision}")
    for attack in evaluation.to_dict()["attacks"]:
        print(f"    {attack['attack']:10} left {attack['left']:.4f}, {attack['seconds']:.1f} s")
    return evaluation.worst_case


def in_torch(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    seed: int,
    *,
    attack: Callable[..., Any],
) -> np.ndarray:
    """The same from an attack in PyTorch: ``(twin, images, labels, eps, seed)`` to images."""
    import torch

    torch.set_num_threads(usable_cpus())
    twin = torch_twin(model, images)
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels.astype(np.int64))
    right = (twin(inputs).argmax(1) == targets).numpy()
    survived = np.zeros(len(labels), bool)
    with torch.enable_grad():
        found = attack(twin, inputs[right], targets[right], eps, seed)
    assert (found - inputs[right]).abs().max() <= eps + 1e-5
    survived[right] = (twin(found).argmax(1) == targets[right]).numpy()
    return survived


def original(twin: Any, images: Any, labels: Any, eps: float, seed: int) -> Any:
    """The original code, which is on the path."""
    from autoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    attack = AutoAttack(twin, norm="Linf", eps=eps, seed=seed, version="standard", device="cpu")
    return attack.run_standard_evaluation(images, labels, bs=len(labels))


def torchattacks(twin: Any, images: Any, labels: Any, eps: float, seed: int) -> Any:
    """torchattacks' attacks with AutoAttack's budgets."""
    import torchattacks as ta

    shared: dict[str, Any] = {"norm": "Linf", "eps": eps, "seed": seed, "n_restarts": 1}
    attacks = [
        ta.APGD(twin, steps=STEPS, loss="ce", **shared),
        ta.APGDT(twin, steps=STEPS, n_classes=10, **shared),
        ta.FAB(twin, steps=STEPS, multi_targeted=True, n_classes=10, **shared),
        ta.Square(twin, n_queries=QUERIES, **shared),
    ]
    return ta.MultiAttack(attacks)(images, labels)


def main() -> None:
    """Parses the arguments, runs both, prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("--dataset", default="mnist", help="default mnist")
    parser.add_argument("--n", type=int, default=500, help="test images (default 500)")
    parser.add_argument("--eps", type=float, default=0.3, help="Linf radius (default 0.3)")
    parser.add_argument("--seed", type=int, default=0, help="of all (default 0)")
    parser.add_argument("--reference", help="a checkout of the original auto-attack")
    options = parser.parse_args()

    print(f"{usable_cpus()} CPUs, load {os.getloadavg()[0]:.2f}")
    print(", ".join(f"{package} {version(package) or 'missing'}" for package in PACKAGES.split()))
    model = keras.models.load_model(options.model)
    test = bcgan_tf.load_dataset(options.dataset).test
    images, labels = test.scaled(0, options.n), test.labels[: options.n].astype(np.int64)
    found = {}
    contenders: dict[str, Callable[..., np.ndarray]] = {
        name: functools.partial(ours, precision=precision) for name, precision in OURS.items()
    }
    if options.reference:
        sys.path.insert(0, options.reference)
        contenders["original"] = functools.partial(in_torch, attack=original)
    if version("torchattacks"):
        contenders["torchattacks"] = functools.partial(in_torch, attack=torchattacks)
    for name, attack in contenders.items():
        started, cpu = time.perf_counter(), time.process_time()
        found[name] = attack(model, images, labels, options.eps, options.seed)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"{name}: robust {found[name].mean():.4f}, {wall:.1f} s wall, {cpu:.1f} s CPU")
        found[name + " time"] = wall, cpu
    print(f"n {len(labels)}, eps {options.eps:g}")
    for mine in OURS:
        for name in (other for other in contenders if other not in OURS):
            alone = [int((found[a] & ~found[b]).sum()) for a, b in ((mine, name), (name, mine))]
            pairs = zip(found[name + " time"], found[mine + " time"], strict=True)
            wall, cpu = (theirs / own for theirs, own in pairs)
            print(
                f"{name} takes {wall:.2f} times the wall time of {mine} and {cpu:.2f} times its "
                f"CPU time; robust for ours alone: {alone[0]} images, for it alone: {alone[1]}"
            )


if __name__ == "__main__":
    main()
