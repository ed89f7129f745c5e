"""Times a training step of ACGAN and of BCGAN against a bare loop over the same networks.

    python benchmarks/gan_step.py --steps 60 --repeats 7

Ours is ``fit`` with its compiled train function, metrics and the check for non-finite losses; the
bare loop is one ``tf.function`` with the paper's losses written out below, called from a ``for``
over the same tf.data stream, without metrics, callbacks or replicas. One process, the same initial
weights, the same optimizers, MNIST's shapes, and random images, so that no data are needed. First,
both take a few steps on the same draws, and their losses must agree; then they take turns (ours,
bare, ours, bare, ...), each turn timed from the first batch asked for to the last update. The order
within a pair changes from pair to pair. On a machine that is not idle, compare the CPU time.
"""

from __future__ import annotations

import argparse
import dataclasses
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

from bcgan_tf import randomness
from bcgan_tf.data import Split, training_stream
from bcgan_tf.models.acgan import ACGAN
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.runs.environment import environment
from bcgan_tf.settings import presets
from bcgan_tf.settings.defenses import BCGANSettings
from bcgan_tf.training.checkpoints import StopOnNonFinite

SHAPE, CLASSES = (28, 28, 1), 10
CHECKED_STEPS = 3
Draw = Callable[[str, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # (phase, step) -> z, c


@dataclasses.dataclass(frozen=True)
class Networks:
    """One set of networks and optimizers, with the weights of the seed."""

    generator: keras.Model
    discriminator: keras.Model
    classifier: keras.Model | None
    generator_optimizer: keras.optimizers.Optimizer
    discriminator_optimizer: keras.optimizers.Optimizer

    @classmethod
    def of(cls, recipe: BCGANSettings, *, boundary: bool) -> Networks:
        """The recipe's GAN; with ``boundary``, the small CNN as the frozen classifier."""
        classifier = None
        if boundary:
            classifier = small_cnn(SHAPE, CLASSES, seed=0)
            classifier.trainable = False
        return cls(
            acgan_generator(
                SHAPE, CLASSES, latent_dim=recipe.latent_dim, width=recipe.generator_width, seed=0
            ),
            acgan_discriminator(
                SHAPE, CLASSES, width=recipe.discriminator_width, dropout=recipe.dropout, seed=0
            ),
            classifier,
            keras.optimizers.Adam(recipe.gan_learning_rate, beta_1=0.5),
            keras.optimizers.Adam(recipe.gan_learning_rate, beta_1=0.5),
        )


def our_gan(networks: Networks, recipe: BCGANSettings) -> ACGAN:
    """The package's model over the networks, compiled."""
    common: dict[str, Any] = {"num_classes": CLASSES, "seed": 0, "real_target": recipe.real_target}
    pair = networks.generator, networks.discriminator
    if networks.classifier is None:
        gan = ACGAN(*pair, **common)
    else:
        gan = BCGAN(*pair, classifier=networks.classifier, beta=recipe.beta, **common)
    gan.compile(networks.generator_optimizer, networks.discriminator_optimizer)
    return gan


def bare_step(networks: Networks, recipe: BCGANSettings, draw: Draw) -> Callable[..., Any]:
    """The same step by hand: a compiled function from a batch to both mean losses."""
    generator, discriminator = networks.generator, networks.discriminator
    classifier, beta, real_target = networks.classifier, recipe.beta, recipe.real_target
    g_optimizer, d_optimizer = networks.generator_optimizer, networks.discriminator_optimizer
    g_optimizer.build(generator.trainable_variables)
    d_optimizer.build(discriminator.trainable_variables)

    def source_loss(logits: tf.Tensor, target: float) -> tf.Tensor:
        return tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(target * tf.ones_like(logits), logits)
        )

    def class_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.convert_to_tensor(d_optimizer.iterations)
        z, c = draw("discriminator", count)
        fakes = generator([z, c], training=True)
        with tf.GradientTape() as tape:
            real = discriminator(images, training=True)
            fake = discriminator(fakes, training=True)
            d_loss = source_loss(real["source"], real_target) + source_loss(fake["source"], 0.0)
            d_loss += class_loss(labels, real["label"]) + class_loss(c, fake["label"])
        variables = discriminator.trainable_variables
        d_optimizer.apply_gradients(zip(tape.gradient(d_loss, variables), variables, strict=True))
        z, c = draw("generator", count)
        with tf.GradientTape() as tape:
            fakes = generator([z, c], training=True)
            fake = discriminator(fakes, training=True)
            g_loss = source_loss(fake["source"], 1.0) + class_loss(c, fake["label"])
            if classifier is not None:
                log_p = tf.nn.log_softmax(classifier(fakes, training=False))
                g_loss += beta * (-math.log(CLASSES) - tf.reduce_mean(log_p))
        variables = generator.trainable_variables
        g_optimizer.apply_gradients(zip(tape.gradient(g_loss, variables), variables, strict=True))
        return d_loss, g_loss

    return step


def plain_draw(batch_size: int, latent_dim: int) -> Draw:
    """What one would write in a bare loop: TensorFlow's stateful generator."""

    def draw(_phase: str, _step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            tf.random.normal([batch_size, latent_dim]),
            tf.random.uniform([batch_size], maxval=CLASSES, dtype=tf.int32),
        )

    return draw


def our_draw(batch_size: int, latent_dim: int) -> Draw:
    """The draws that ACGAN makes with seed 0: noise and labels of D are 0 and 1, of G 2 and 3."""

    def draw(phase: str, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise, labels = (0, 1) if phase == "discriminator" else (2, 3)
        return (
            randomness.global_normal(randomness.step_seed(0, noise, step), batch_size, latent_dim),
            randomness.global_labels(randomness.step_seed(0, labels, step), batch_size, CLASSES),
        )

    return draw


def check(recipe: BCGANSettings, stream: tf.data.Dataset, *, boundary: bool) -> float:
    """Largest relative difference of the losses of the first steps, on the same draws.

    Raises:
        AssertionError: it is more than float32 rounding explains.
    """
    gan = our_gan(Networks.of(recipe, boundary=boundary), recipe)
    draw = our_draw(recipe.gan_batch_size, recipe.latent_dim)
    step = bare_step(Networks.of(recipe, boundary=boundary), recipe, draw)
    worst = 0.0
    for images, labels in stream.take(CHECKED_STEPS):
        logs = gan.train_on_batch(images, labels, return_dict=True)
        gan.reset_metrics()
        bare = [float(loss) for loss in step(images, labels)]
        ours = [float(logs["discriminator_loss"]), float(logs["generator_loss"])]
        worst = max(worst, *(abs(a - b) / abs(b) for a, b in zip(ours, bare, strict=True)))
    assert worst < 1e-3, f"the two loops are not the same: losses differ by {worst:.1e}"
    return worst


def compare(
    name: str, recipe: BCGANSettings, split: Split, *, steps: int, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU milliseconds a step of every turn, after the check and a warm-up."""
    boundary = name == "BCGAN"

    def stream() -> tf.data.Dataset:
        return training_stream(split, batch_size=recipe.gan_batch_size, seed=0)

    difference = check(recipe, stream(), boundary=boundary)
    print(f"\n{name}: losses of {CHECKED_STEPS} steps agree to {difference:.1e}", flush=True)
    gan = our_gan(Networks.of(recipe, boundary=boundary), recipe)
    draw = plain_draw(recipe.gan_batch_size, recipe.latent_dim)
    step = bare_step(Networks.of(recipe, boundary=boundary), recipe, draw)

    def ours() -> None:
        gan.fit(
            stream(),
            steps_per_epoch=steps,
            epochs=1,
            callbacks=[StopOnNonFinite()],
            shuffle=False,
            verbose=0,
        )

    def bare() -> None:
        found: Any = None
        for images, labels in stream().take(steps):
            found = step(images, labels)
        assert all(math.isfinite(float(loss)) for loss in found)  # waits for the device

    turns = {"ours": ours, "bare": bare}
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in turns}
    for repeat in range(-1, repeats):  # the first pair traces and warms up
        for who in sorted(turns, reverse=repeat % 2 == 0):
            wall, processor = time.perf_counter(), time.process_time()
            turns[who]()
            if repeat >= 0:
                times[who].append(
                    (
                        1e3 * (time.perf_counter() - wall) / steps,
                        1e3 * (time.process_time() - processor) / steps,
                    )
                )
    return times


def show(times: dict[str, list[tuple[float, float]]]) -> None:
    """Medians and ranges of the turns, and the median ratio of the pairs."""
    for place, clock in enumerate(("wall", "CPU")):
        columns = {who: [turn[place] for turn in turns] for who, turns in times.items()}
        for who, values in columns.items():
            print(
                f"  {clock:4} {who:5} median {statistics.median(values):8.2f} ms a step "
                f"({min(values):.2f} to {max(values):.2f}, {len(values)} turns)"
            )
        medians = {who: statistics.median(values) for who, values in columns.items()}
        pairs = [a / b for a, b in zip(columns["ours"], columns["bare"], strict=True)]
        print(
            f"  {clock:4} ratio ours / bare: {medians['ours'] / medians['bare']:.3f} of the "
            f"medians, {statistics.median(pairs):.3f} median of the pairs"
        )


def main() -> None:
    """Parses the arguments, compares both models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="of each turn (default 60)")
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs (default 7)")
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--preset", default="quick", help="MNIST's networks (default quick)")
    options = parser.parse_args()

    changes = {"gan_batch_size": options.batch_size}
    recipe = presets.defense_settings("bcgan", "mnist", options.preset, options=changes)
    assert isinstance(recipe, BCGANSettings)
    tf.random.set_seed(0)
    random = np.random.default_rng(0)
    count = max(2000, 2 * options.batch_size)
    images = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    split = Split(images, random.integers(0, CLASSES, count))
    for key, value in environment().items():
        print(f"{key}: {value}")
    if hasattr(os, "getloadavg"):
        print(f"load before the start: {os.getloadavg()[0]:.2f}")
    print(f"{options.preset} networks, batch {options.batch_size}, {options.steps} steps a turn")
    for name in ("ACGAN", "BCGAN"):
        show(compare(name, recipe, split, steps=options.steps, repeats=options.repeats))


if __name__ == "__main__":
    main()
