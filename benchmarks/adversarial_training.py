"""Times a step of PGD adversarial training against PyTorch and against a bare TensorFlow loop.

    python benchmarks/adversarial_training.py --steps 30 --repeats 7

Ours is what `bcgan-tf harden --defense pgd-at` runs: :class:`PGDTraining`'s trainer through the
package's ``fit``, with its metrics and the check for non-finite losses. Against it:

- PyTorch by hand, the same network with the same weights, in its default layout and with channels
  last, batches taken from a float32 tensor in memory (no DataLoader);
- TensorFlow by hand, one ``tf.function`` over the same stream without metrics or Keras' ``fit``,
  its attack unrolled and as a ``tf.while_loop``.

Ours runs a second time in mixed_bfloat16, which is the preset quick's dtype for MNIST; PyTorch a
third time under its autocast to bfloat16.

All do the same: 7 steps of PGD from a uniform start, eps 0.3, then one step of Adam on the result.
First each takes a few steps on the same batches from the same starts, and the losses must agree.
Then they take turns, each turn timed from the first batch asked for to the last update, the order
turning from round to round. Random images, MNIST's shape: what an image shows does not change what
a step costs. Against the bare loop, the CPU time is worth something on a busy machine too; against
PyTorch, whose threads spin while they wait for each other, nothing is: run it on an idle one.

Needs torch (the `crosscheck` extra); without it PyTorch is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bcgan_tf  # noqa: F401  (pins the Keras backend)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from attacks import usable_cpus, version
from torch_twin import torch_twin

from bcgan_tf import randomness
from bcgan_tf.data import Dataset, Split, training_stream
from bcgan_tf.defenses import PGDTraining
from bcgan_tf.defenses.defense import cast
from bcgan_tf.networks.classifiers import classifier
from bcgan_tf.runs.environment import environment
from bcgan_tf.training import adversarial_trainer
from bcgan_tf.training.fit import fit

SHAPE, CLASSES = (28, 28, 1), 10
CHECKED_STEPS = 3
OURS, MIXED = "bcgan_tf", "bcgan_tf, mixed_bfloat16"
TORCH = {"PyTorch, default layout": False, "PyTorch, channels last": True}
AUTOCAST = "PyTorch, channels last, autocast"
BARE = {"bare, unrolled": True, "bare, while_loop": False}
TORCH_GOAL, BARE_GOAL = 1.5, 1.10
Start = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (images, step) -> uniform in [-1, 1)
Turn = Callable[[], None]


def plain_start(images: tf.Tensor, _step: tf.Tensor) -> tf.Tensor:
    """What one would write in a bare loop: TensorFlow's stateful generator."""
    return tf.random.uniform(tf.shape(images), -1.0, 1.0)


def our_start(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """The draw that the trainer makes with seed 0."""
    seed = randomness.step_seed(0, adversarial_trainer._START, step)
    return randomness.global_noise(seed, tf.shape(images), uniform=True)


def bare_step(
    network: keras.Model, defense: PGDTraining, start: Start, *, unrolled: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The step by hand: a compiled function from a batch to its mean loss."""
    eps, size = defense.eps, 2.5 * defense.eps / defense.steps
    optimizer = keras.optimizers.Adam(defense.learning_rate)
    optimizer.build(network.trainable_variables)

    def loss_of(images: tf.Tensor, labels: tf.Tensor, *, training: bool) -> tf.Tensor:
        logits = network(images, training=training)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        low, high = tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0)

        def advance(found: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(found)
                loss = tf.reduce_sum(loss_of(found, labels, training=False))
            gradient: Any = tape.gradient(loss, found)
            return tf.clip_by_value(found + size * tf.sign(gradient), low, high)

        begin = eps * start(images, tf.convert_to_tensor(optimizer.iterations))
        found = tf.clip_by_value(images + begin, low, high)
        if unrolled:
            for _ in range(defense.steps):
                found = advance(found)
        else:
            _, found = tf.while_loop(
                lambda count, _: count < defense.steps,
                lambda count, found: (count + 1, advance(found)),
                (tf.constant(0), found),
            )
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_of(found, labels, training=True))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return tf.function(step, autograph=False)


def torch_step(
    network: keras.Model,
    probe: np.ndarray,
    defense: PGDTraining,
    *,
    channels_last: bool,
    autocast: bool = False,
) -> Callable[..., Any]:
    """The same in PyTorch: ``step(images [B, C, H, W], labels, start=None)`` to the mean loss."""
    import torch

    twin = torch_twin(network, probe, channels_last=channels_last).train().requires_grad_(True)
    optimizer = torch.optim.Adam(twin.parameters(), lr=defense.learning_rate, eps=1e-7)
    eps, size = defense.eps, 2.5 * defense.eps / defense.steps

    def cross_entropy(images: Any, labels: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = twin(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels, **options)

    def step(images: Any, labels: Any, start: Any = None) -> Any:
        low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
        begin = 2 * torch.rand_like(images) - 1 if start is None else start
        found = torch.clamp(images + eps * begin, low, high)
        for _ in range(defense.steps):
            found.requires_grad_(True)
            loss = cross_entropy(found, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, found)
            found = torch.clamp(found.detach() + size * gradient.sign(), low, high)
        optimizer.zero_grad()
        loss = cross_entropy(found, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_images(images: np.ndarray, *, channels_last: bool) -> Any:
    """A float32 tensor ``[N, C, H, W]`` in either layout of memory."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def copied(network: keras.Model) -> keras.Model:
    """The same architecture and weights."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def check(
    network: keras.Model, defense: PGDTraining, data: Dataset, *, with_torch: bool
) -> dict[str, list[float]]:
    """Relative difference of each one's first losses from ours, on the same starts.

    Raises:
        AssertionError: they are more than float32 rounding explains.
    """
    stream = training_stream(data.train, batch_size=defense.batch_size, seed=0)
    batches = list(stream.take(CHECKED_STEPS))
    trainer = defense.build_trainer(network, data)
    ours = []
    for images, labels in batches:
        ours.append(float(trainer.train_on_batch(images, labels, return_dict=True)["loss"]))
        trainer.reset_metrics()
    losses = {}
    for name, unrolled in BARE.items():
        step = bare_step(copied(network), defense, our_start, unrolled=unrolled)
        losses[name] = [float(step(*batch)) for batch in batches]
    for name, channels_last in TORCH.items() if with_torch else ():
        import torch

        probe = batches[0][0].numpy()
        step = torch_step(network, probe, defense, channels_last=channels_last)
        losses[name] = []
        for number, (images, labels) in enumerate(batches):
            start = our_start(images, tf.constant(number, tf.int64)).numpy()
            inputs, begin = (
                torch_images(array, channels_last=channels_last)
                for array in (images.numpy(), start)
            )
            losses[name].append(float(step(inputs, torch.from_numpy(labels.numpy()), begin)))
    found = {
        name: [abs(a - b) / b for a, b in zip(values, ours, strict=True)]
        for name, values in losses.items()
    }
    for name, (first, *later) in found.items():
        # Of later steps Adam, and the signs of tiny gradients, make more out of rounding.
        same = first < 1e-3 and max(later) < 1e-2
        assert same, f"{name} is not the same: losses differ by {first:.1e}, then {max(later):.1e}"
    return found


def turns_of(
    network: keras.Model, defense: PGDTraining, data: Dataset, *, with_torch: bool
) -> dict[str, Turn]:
    """Every contender's turn: an epoch over the training split."""
    steps = len(data.train) // defense.batch_size

    def ours(dtype: str | None) -> Turn:
        trainer = defense.build_trainer(cast(copied(network), dtype), data)

        def turn() -> None:
            with contextlib.redirect_stderr(io.StringIO()):  # its line of progress
                fit(trainer, data.train, epochs=1, batch_size=defense.batch_size, seed=0)

        return turn

    def bare(unrolled: bool) -> Turn:
        step = bare_step(copied(network), defense, plain_start, unrolled=unrolled)

        def turn() -> None:
            loss: Any = None
            stream = training_stream(data.train, batch_size=defense.batch_size, seed=0)
            for images, labels in stream.take(steps):
                loss = step(images, labels)
            assert math.isfinite(float(loss))  # waits for the device

        return turn

    def by_torch(channels_last: bool, autocast: bool = False) -> Turn:
        import torch

        images = torch_images(data.train.scaled(), channels_last=channels_last)
        labels = torch.from_numpy(data.train.labels)
        probe = data.train.scaled(0, 50)
        step = torch_step(network, probe, defense, channels_last=channels_last, autocast=autocast)

        def turn() -> None:
            loss: Any = None
            order = torch.randperm(len(labels))
            for rows in order[: steps * defense.batch_size].split(defense.batch_size):
                loss = step(images[rows], labels[rows])
            assert math.isfinite(float(loss))

        return turn

    turns = {OURS: ours(None), MIXED: ours("mixed_bfloat16")}
    turns |= {name: bare(unrolled) for name, unrolled in BARE.items()}
    if with_torch:
        turns |= {name: by_torch(channels_last) for name, channels_last in TORCH.items()}
        turns[AUTOCAST] = by_torch(True, autocast=True)
    return turns


def timed(turns: dict[str, Turn], steps: int, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU milliseconds a step of every turn, after a round that traces and warms up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    names = list(turns)
    for repeat in range(-1, repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            wall, processor = time.perf_counter(), time.process_time()
            turns[name]()
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            if repeat >= 0:
                times[name].append((1e3 * wall / steps, 1e3 * processor / steps))
    return times


def show(times: dict[str, list[tuple[float, float]]]) -> None:
    """Medians and ranges, and the medians of the rounds' ratios beside the goals."""
    for place, clock in enumerate(("wall", "CPU")):
        columns = {name: [turn[place] for turn in turns] for name, turns in times.items()}
        for name, values in columns.items():
            print(
                f"  {clock:4} {name:23} {statistics.median(values):8.2f} ms a step "
                f"({min(values):.2f} to {max(values):.2f})",
                end="",
            )
            if name in (OURS, MIXED):
                print()
                continue
            of_torch = name.startswith("PyTorch")
            pairs = zip(values, columns[OURS], strict=True)
            ratio = statistics.median(t / o if of_torch else o / t for t, o in pairs)
            if of_torch:
                pairs = zip(values, columns[MIXED], strict=True)
                mixed = statistics.median(t / o for t, o in pairs)
                met = max(ratio, mixed) >= TORCH_GOAL
                print(
                    f", {ratio:.3f} times ours, {mixed:.3f} times ours in mixed_bfloat16 (goal: at "
                    f"least {TORCH_GOAL:g}",
                    end="",
                )
            else:
                met = ratio <= BARE_GOAL
                print(f", ours is {ratio:.3f} times it (goal: at most {BARE_GOAL:.2f}", end="")
            print(f", {'met' if met else 'not met'})")


def main() -> None:
    """Parses the arguments, compares on each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30, help="of training a turn (default 30)")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--attack-steps", type=int, default=7, help="of PGD (default 7)")
    parser.add_argument("--eps", type=float, default=0.3, help="Linf radius (default 0.3)")
    parser.add_argument("--networks", nargs="+", default=["strided_cnn", "small_cnn"])
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    options = parser.parse_args()

    with_torch = not options.no_torch and importlib.util.find_spec("torch") is not None
    if with_torch:
        import torch

        torch.set_num_threads(usable_cpus())
        torch.manual_seed(0)
    else:
        print("PyTorch is left out")
    tf.random.set_seed(0)
    for key, value in {**environment(), "torch": version("torch")}.items():
        print(f"{key}: {value}")
    print(f"{usable_cpus()} usable CPUs, load before the start: {os.getloadavg()[0]:.2f}")
    print(
        f"batch {options.batch_size}, PGD-{options.attack_steps}, eps {options.eps:g}, "
        f"{options.steps} steps a turn, {options.repeats} rounds"
    )
    random = np.random.default_rng(0)
    count = options.steps * options.batch_size
    images = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    split = Split(images, random.integers(0, CLASSES, count))
    data = Dataset("random", split, split, split, tuple(map(str, range(CLASSES))))
    defense = PGDTraining(
        eps=options.eps,
        steps=options.attack_steps,
        ramp_epochs=0.0,
        batch_size=options.batch_size,
        devices=1,
    )
    for name in options.networks:
        network = classifier(name, SHAPE, CLASSES, seed=0)
        for who, differences in check(network, defense, data, with_torch=with_torch).items():
            shown = ", ".join(f"{difference:.1e}" for difference in differences)
            print(f"{name}: losses of {who} differ from ours by {shown}")
        turns = turns_of(network, defense, data, with_torch=with_torch)
        print(name, flush=True)
        show(timed(turns, options.steps, options.repeats))


if __name__ == "__main__":
    main()
