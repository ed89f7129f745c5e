"""The suites `standard` and `fast` against AutoAttack in PyTorch, on the same weights.

    python benchmarks/autoattack.py MODEL.keras --n 500 --eps 0.3 --reference AUTO_ATTACK

`fast` and `standard` as this machine is fastest, and `standard` in float32; the original code, of
which AUTO_ATTACK is a checkout (github.com/fra31/auto-attack); and torchattacks, if it is
installed, whose own `AutoAttack` takes 10 steps where AutoAttack takes 100: its attacks are given
AutoAttack's budgets. All attack the same test images with the true labels, all in one batch, each
attack only what those before it left; PyTorch with channels last, which is faster on a CPU. Prints
the robust accuracies, on how many images each disagrees with ours, and the times as ratios to ours;
`--picture FILE` draws what is left against time.

MODEL is of the layers that torch_twin.py knows, such as what `bcgan-tf harden --defense pgd-at`
makes. Needs prepared data (TFDS_DATA_DIR) and torch.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from attacks import PACKAGES, usable_cpus, version
from torch_twin import torch_twin

import bcgan_tf
from bcgan_tf.report.style import SERIES, legend, new_figure, save, style_axes

# The budgets of AutoAttack's version "standard".
STEPS, QUERIES = 100, 5000
# Seconds since the start to the share of images left, and which are left in the end.
Found = tuple[list[tuple[float, float]], np.ndarray]
MINE = {
    "fast": {"suite": "fast"},
    "standard": {"suite": "standard"},
    "standard in float32": {"suite": "standard", "precision": "float32"},
}


def ours(
    path: str, images: np.ndarray, labels: np.ndarray, eps: float, seed: int, **options: Any
) -> Found:
    """A suite of ours; tracing is part of its time."""
    model = keras.models.load_model(path)  # nothing that another suite prepared
    started = time.perf_counter()
    evaluation = bcgan_tf.evaluate(
        model, images, labels, eps=eps, seed=seed, batch_size=len(labels), diagnose=False, **options
    )
    whole = time.perf_counter() - started
    told = evaluation.to_dict()["attacks"]
    print(
        f"  searched in {evaluation.precision}"
        + (f", {evaluation.fallback}" if evaluation.fallback else "")
    )
    for attack in told:
        print(f"    {attack['attack']:20} left {attack['left']:.4f}, {attack['seconds']:.1f} s")
    ends = np.cumsum(evaluation.seconds) + whole - sum(evaluation.seconds)
    left = [evaluation.clean_accuracy, *(attack["left"] for attack in told)]
    return list(zip([0.0, *ends], left, strict=True)), evaluation.worst_case


def in_torch(
    path: str,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    seed: int,
    *,
    made: Callable[..., Any],
) -> Found:
    """Attacks in PyTorch, one after the other, ``(images, labels)`` to images."""
    import torch

    torch.set_num_threads(usable_cpus())
    twin = torch_twin(keras.models.load_model(path), images)
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    targets = torch.from_numpy(labels.astype(np.int64))
    started = time.perf_counter()
    left = twin(inputs).argmax(1) == targets
    curve = [(0.0, float(left.float().mean()))]
    for name, attack in made(twin, eps, seed).items():
        with torch.enable_grad():
            found = attack(inputs[left], targets[left])
        assert (found - inputs[left]).abs().max() <= eps + 1e-5
        left[left.clone()] = twin(found).argmax(1) == targets[left]
        curve.append((time.perf_counter() - started, float(left.float().mean())))
        print(f"    {name:20} left {curve[-1][1]:.4f}, {curve[-1][0] - curve[-2][0]:.1f} s")
    return curve, left.numpy()


def original(twin: Any, eps: float, seed: int) -> dict[str, Callable[..., Any]]:
    """The original code, which is on the path."""
    from autoattack import AutoAttack  # pyright: ignore[reportMissingImports]

    whole = AutoAttack(
        twin, norm="Linf", eps=eps, seed=seed, version="standard", device="cpu", verbose=False
    )

    def run(name: str, images: Any, labels: Any) -> Any:
        whole.attacks_to_run = [name]
        return whole.run_standard_evaluation(images, labels, bs=len(labels))

    return {name: functools.partial(run, name) for name in list(whole.attacks_to_run)}


def torchattacks(twin: Any, eps: float, seed: int) -> dict[str, Callable[..., Any]]:
    """torchattacks' attacks with AutoAttack's budgets."""
    import torchattacks as ta

    shared: dict[str, Any] = {"norm": "Linf", "eps": eps, "seed": seed, "n_restarts": 1}
    return {
        "APGD": ta.APGD(twin, steps=STEPS, loss="ce", **shared),
        "APGDT": ta.APGDT(twin, steps=STEPS, n_classes=10, **shared),
        "FAB": ta.FAB(twin, steps=STEPS, multi_targeted=True, n_classes=10, **shared),
        "Square": ta.Square(twin, n_queries=QUERIES, **shared),
    }


def draw(curves: dict[str, list[tuple[float, float]]], path: Path, title: str) -> None:
    """What is left of the images against time."""
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot(1, 1, 1)
    for color, (name, curve) in zip(SERIES, curves.items(), strict=False):
        seconds, left = zip(*curve, strict=True)
        percent = [100 * one for one in left]
        axes.step(seconds, percent, where="post", color=color, label=name, linewidth=1.6)
        axes.plot(seconds[-1], percent[-1], "o", color=color, markersize=5)
    style_axes(axes, title=title, x="seconds", y="images left, percent")
    legend(axes, loc="upper right")
    save(figure, path)


def main() -> None:
    """Parses the arguments, runs all, prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("--dataset", default="mnist", help="default mnist")
    parser.add_argument("--n", type=int, default=500, help="test images (default 500)")
    parser.add_argument("--eps", type=float, default=0.3, help="Linf radius (default 0.3)")
    parser.add_argument("--seed", type=int, default=0, help="of all (default 0)")
    parser.add_argument("--reference", help="a checkout of the original auto-attack")
    parser.add_argument("--leave-out", default="", help="names of contenders, by commas")
    parser.add_argument("--picture", type=Path, help="a PNG of what is left against time")
    options = parser.parse_args()

    print(f"{usable_cpus()} CPUs, load {os.getloadavg()[0]:.2f}")
    print(", ".join(f"{package} {version(package) or 'missing'}" for package in PACKAGES.split()))
    test = bcgan_tf.load_dataset(options.dataset).test
    images, labels = test.scaled(0, options.n), test.labels[: options.n].astype(np.int64)
    contenders: dict[str, Callable[..., Found]] = {
        name: functools.partial(ours, **settings) for name, settings in MINE.items()
    }
    if options.reference:
        sys.path.insert(0, options.reference)
        contenders["AutoAttack's code"] = functools.partial(in_torch, made=original)
    if version("torchattacks"):
        contenders["torchattacks"] = functools.partial(in_torch, made=torchattacks)
    for name in options.leave_out.split(","):
        contenders.pop(name, None)
    curves, left, taken = {}, {}, {}
    for name, attack in contenders.items():
        print(name)
        started, cpu = time.perf_counter(), time.process_time()
        curves[name], left[name] = attack(options.model, images, labels, options.eps, options.seed)
        taken[name] = time.perf_counter() - started, time.process_time() - cpu
        wall, cpu = taken[name]
        print(f"  robust {left[name].mean():.4f}, {wall:.1f} s wall, {cpu:.1f} s CPU", flush=True)
    print(f"n {len(labels)}, eps {options.eps:g}")
    names = list(left)
    for place, mine in enumerate(name for name in names if name in MINE):
        for name in names[place + 1 :]:
            alone = [int((left[a] & ~left[b]).sum()) for a, b in ((mine, name), (name, mine))]
            wall, cpu = (a / b for a, b in zip(taken[name], taken[mine], strict=True))
            print(
                f"{name} takes {wall:.2f} times the wall time of {mine} and {cpu:.2f} times its "
                f"CPU time; robust for {mine} alone: {alone[0]} images, for it alone: {alone[1]}"
            )
    if options.picture:
        title = f"{len(labels)} images, Linf eps {options.eps:g}"
        draw(curves, options.picture, title)


if __name__ == "__main__":
    main()
