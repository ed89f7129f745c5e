"""Times PGD against cleverhans, Foolbox, ART and torchattacks on the same weights and images.

    python benchmarks/attacks.py --n 500 --steps 40 --repeats 3

One process, one contender at a time, the repeats interleaved so that drift of the machine falls on
all alike; each contender runs once before the clock starts. Tracing is inside our time, because it
happens in every call. All attack the same correctly classified MNIST test images in the same
batches, with the true labels, the same eps, step size and random start; the PyTorch contenders get
the Keras weights, checked on the logits. On a machine that is not idle, compare the CPU time.

Three radii, because our PGD stops an example at its first misclassified iterate: 0.3 breaks an
undefended network within a few steps, which the others do not use; 0.1 breaks about half of it;
and 0.02 breaks next to nothing, so that every library takes all steps.

Needs prepared MNIST (TFDS_DATA_DIR) and, for each contender, its library (the `crosscheck` extra,
and torchattacks); those missing are named and left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from torch_twin import torch_twin

from bcgan_tf.attacks import PGD
from bcgan_tf.data import load_dataset
from bcgan_tf.networks.classifiers import small_cnn

PACKAGES = "tensorflow keras cleverhans torch foolbox adversarial-robustness-toolbox torchattacks"
OURS = "bcgan_tf"
Contender = Callable[[float, float], np.ndarray]  # (eps, step size) -> adversarial images


def trained_classifier(train_images: int) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """The paper's small CNN after one epoch, and the test images that it classifies right."""
    data = load_dataset("mnist")
    model = small_cnn(data.image_shape, data.num_classes, seed=0)
    model.compile(
        keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = data.train.scaled(0, train_images), data.train.labels[:train_images]
    model.fit(images, labels, batch_size=64, epochs=1, verbose=0)
    images, labels = data.test.scaled(), data.test.labels
    right = model.predict(images, batch_size=500, verbose=0).argmax(-1) == labels
    return model, images[right], labels[right]


def contenders(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, steps: int, batch_size: int
) -> dict[str, Contender]:
    """Ours first, then every library that is installed."""
    batches = [slice(i, i + batch_size) for i in range(0, len(images), batch_size)]

    def logits(x: Any) -> Any:
        return model(x, training=False)

    def ours(eps: float, step: float) -> np.ndarray:
        attack = PGD(eps, step_size=step, steps=steps, batch_size=batch_size)
        return attack(model, images, labels).adversarials

    found: dict[str, Contender] = {OURS: ours}

    def cleverhans(eps: float, step: float) -> np.ndarray:
        from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

        def attack(part: slice) -> np.ndarray:
            return projected_gradient_descent(
                logits,
                tf.constant(images[part]),
                eps,
                step,
                steps,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=tf.constant(labels[part]),
                rand_init=True,
            ).numpy()

        return np.concatenate([attack(part) for part in batches])

    found["cleverhans"] = cleverhans
    try:
        import torch
    except ImportError:
        print("not installed: torch, so only cleverhans is compared")
        return found

    torch.set_num_threads(usable_cpus())
    twin = torch_twin(model, images)
    nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    inputs, targets = torch.from_numpy(nchw), torch.from_numpy(labels)

    def foolbox(build: str, target: Any, x: Any, y: Any) -> Contender:
        def contender(eps: float, step: float) -> np.ndarray:
            import foolbox as fb

            theirs = getattr(fb, build)(target, bounds=(0, 1))
            attack = fb.attacks.LinfPGD(steps=steps, abs_stepsize=step)
            parts = [attack(theirs, x[p], y[p], epsilons=eps)[1].numpy() for p in batches]
            found = np.concatenate(parts)
            return found if found.shape == images.shape else found.transpose(0, 2, 3, 1)

        return contender

    def art(eps: float, step: float) -> np.ndarray:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        theirs = PyTorchClassifier(
            twin,
            torch.nn.CrossEntropyLoss(),
            input_shape=(1, 28, 28),
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )
        attack = ProjectedGradientDescent(
            theirs,
            eps=eps,
            eps_step=step,
            max_iter=steps,
            num_random_init=1,
            batch_size=batch_size,
            verbose=False,
        )
        return attack.generate(nchw, labels).transpose(0, 2, 3, 1)

    def torchattacks(eps: float, step: float) -> np.ndarray:
        import torchattacks as ta

        attack = ta.PGD(twin, eps=eps, alpha=step, steps=steps, random_start=True)
        parts = [attack(inputs[p], targets[p]) for p in batches]
        return torch.cat(parts).numpy().transpose(0, 2, 3, 1)

    optional = {
        "foolbox (PyTorch)": ("foolbox", foolbox("PyTorchModel", twin, inputs, targets)),
        "foolbox (TensorFlow)": (
            "foolbox",
            foolbox("TensorFlowModel", tf.function(logits), *map(tf.constant, (images, labels))),
        ),
        "ART (PyTorch)": ("adversarial-robustness-toolbox", art),
        "torchattacks": ("torchattacks", torchattacks),
    }
    for name, (package, contender) in optional.items():
        if version(package) is None:
            print(f"not installed: {package}")
        else:
            found[name] = contender
    return found


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> str:
    """What a measurement ran on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras"))
    return f"{usable_cpus()} CPUs, load {os.getloadavg()[0]:.2f}, {packages}"


def compare(
    competing: dict[str, Contender],
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    steps: int,
    repeats: int,
) -> None:
    """Times all contenders at one radius and prints a table."""
    step = 2.5 * eps / steps
    seconds: dict[str, list[float]] = {name: [] for name in competing}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in competing}
    standing: dict[str, float] = {}
    for repeat in range(-1, repeats):  # the first is the warm-up
        for name, contender in competing.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            found = contender(eps, step)
            elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            if repeat >= 0:
                seconds[name].append(elapsed)
                cpu_seconds[name].append(cpu)
                continue
            assert np.abs(found - images).max() <= eps + 1e-5, name
            predicted = model.predict(found, batch_size=500, verbose=0).argmax(-1)
            standing[name] = float((predicted == labels).mean())

    wall = {name: statistics.median(times) for name, times in seconds.items()}
    cpu = {name: statistics.median(times) for name, times in cpu_seconds.items()}
    print(f"\neps {eps:g}: {steps} steps of {step:.5g}, {len(images)} images, {repeats} runs")
    header = ("median s", "min", "max", "times ours", "CPU s", "times ours", "still right")
    print(f"{'':22}" + "".join(f"{title:>12}" for title in header))
    for name, times in seconds.items():
        print(
            f"{name:22}{wall[name]:12.3f}{min(times):12.3f}{max(times):12.3f}"
            f"{wall[name] / wall[OURS]:12.2f}{cpu[name]:12.3f}{cpu[name] / cpu[OURS]:12.2f}"
            f"{100 * standing[name]:10.1f} %"
        )
    for unit, taken in (("wall", wall), ("CPU", cpu)):
        fastest = min((name for name in taken if name != OURS), key=taken.__getitem__)
        ratio = taken[fastest] / taken[OURS]
        print(f"ratio in {unit} time: the fastest other, {fastest}, takes {ratio:.2f} times ours")


def main() -> None:
    """Parses the arguments, trains the network, compares at each radius."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500, help="images (default 500)")
    parser.add_argument("--steps", type=int, default=40, help="PGD steps (default 40)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (default 3)")
    parser.add_argument("--batch-size", type=int, default=250, help="of everyone (default 250)")
    parser.add_argument(
        "--eps", type=float, nargs="+", default=[0.3, 0.1, 0.02], help="default 0.3 0.1 0.02"
    )
    parser.add_argument("--train-images", type=int, default=20_000, help="default 20000")
    options = parser.parse_args()

    logging.getLogger("art").setLevel(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    print(f"python {platform.python_version()}, {platform.machine()}, {usable_cpus()} CPUs")
    print(", ".join(f"{package} {version(package) or 'missing'}" for package in PACKAGES.split()))
    if hasattr(os, "getloadavg"):
        print(f"load before the start: {os.getloadavg()[0]:.2f}")
    model, images, labels = trained_classifier(options.train_images)
    images, labels = images[: options.n], labels[: options.n]
    competing = contenders(
        model, images, labels, steps=options.steps, batch_size=options.batch_size
    )
    for eps in options.eps:
        compare(
            competing,
            model,
            images,
            labels,
            eps=eps,
            steps=options.steps,
            repeats=options.repeats,
        )


if __name__ == "__main__":
    main()
