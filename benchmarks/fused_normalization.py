"""Times training with TensorFlow's fused batch normalisation against Keras' own.

    python benchmarks/fused_normalization.py --steps 20 --repeats 5

The same ResNet-18, weights and batch, once within ``fused_normalization`` and once without, as
``fit`` trains it: a step of clean training (forward, backward, Adam), and the gradient step of an
attack inside adversarial training (inference, gradient of the image). They take turns, the order
turning from round to round; the losses must agree. Random images, CIFAR-10's shape.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bcgan_tf  # noqa: F401  (pins the Keras backend)

# isort: split
import keras
import tensorflow as tf
from attacks import usable_cpus

from bcgan_tf import losses
from bcgan_tf.networks.classifiers import resnet18
from bcgan_tf.runs.environment import environment
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fused_normalization import fused_normalization

SHAPE, CLASSES, BATCH = (32, 32, 3), 10, 128
# In bfloat16 both round every layer, the fused kernel once where Keras does so twice.
TOLERANCE = {"float32": 1e-3, "mixed_bfloat16": 2e-2}


def turns(
    width: float, dtype: str, *, fused: bool
) -> tuple[dict[str, Callable[[], float]], dict[str, float]]:
    """Name to a compiled step that returns its loss, and the loss of the first, traced here."""
    network = resnet18(SHAPE, CLASSES, width=width, seed=0, dtype=dtype)
    trainer = ClassifierTrainer(network, seed=0)
    trainer.compile(keras.optimizers.Adam(1e-3))
    images = tf.random.stateless_uniform((BATCH, *SHAPE), (1, 2))
    labels = tf.random.stateless_uniform((BATCH,), (3, 4), 0, CLASSES, tf.int32)

    @tf.function(autograph=False)
    def train() -> Any:
        trainer.reset_metrics()
        return trainer.train_step((images, labels))["loss"]

    @tf.function(autograph=False)
    def attack() -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = tf.reduce_mean(losses.cross_entropy(labels, network(images, training=False)))
        gradient: Any = tape.gradient(loss, images)
        # The gradient is used, so that it is computed.
        return loss + 0.0 * tf.reduce_sum(tf.sign(gradient))

    steps = {"attack step": lambda: float(attack()), "training step": lambda: float(train())}
    with fused_normalization(trainer) if fused else contextlib.nullcontext():
        return steps, {name: step() for name, step in steps.items()}


def timed(step: Callable[[], float], count: int) -> float:
    """Seconds a step."""
    started = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - started) / count


def main() -> None:
    """Reads the command line, times, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="mixed_bfloat16")
    chosen = parser.parse_args()
    both = {fused: turns(chosen.width, chosen.dtype, fused=fused) for fused in (True, False)}
    print(f"{environment()}, usable CPUs {usable_cpus()}, load {os.getloadavg()[0]:.1f}")
    print(f"resnet18, width {chosen.width:g}, {chosen.dtype}, batch {BATCH}")
    for name, loss in both[False][1].items():
        apart = abs(both[True][1][name] - loss) / abs(loss)
        if apart > TOLERANCE[chosen.dtype]:
            raise SystemExit(f"{name}: the losses differ by {apart:.1%}")
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(chosen.repeats):
            for fused in (True, False) if number % 2 else (False, True):
                seconds[fused].append(timed(both[fused][0][name], chosen.steps))
        ratio = statistics.median(
            own / fused for fused, own in zip(seconds[True], seconds[False], strict=True)
        )
        print(
            f"{name}: fused {1e3 * statistics.median(seconds[True]):.0f} ms, Keras' own "
            f"{1e3 * statistics.median(seconds[False]):.0f} ms; Keras' own takes {ratio:.2f} times "
            "the fused one's time (median of pairs)"
        )


if __name__ == "__main__":
    main()
