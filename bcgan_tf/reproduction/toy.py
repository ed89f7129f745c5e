"""The paper's Figure 2: what beta does to generated points, where the best boundary is known.

Two Gaussians in the plane (:mod:`bcgan_tf.data.gaussians`), a small classifier, and one BCGAN per
beta. Because the Bayes boundary is ``x1 + x2 = 0``, the distance of a generated point to it and the
truth of its label are exact.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf import data as datasets
from bcgan_tf import losses
from bcgan_tf.data import Dataset, training_stream
from bcgan_tf.data.gaussians import BAYES_ERROR
from bcgan_tf.files import replacing
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.classifiers import mlp
from bcgan_tf.report import planes
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.figures import ToySettings
from bcgan_tf.training.checkpoints import StopOnNonFinite
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.workflows.train import save_model

# Steps per call of the training graph: a step takes less time than a call.
_STEPS_PER_EXECUTION = 50


def toy(run: RunDirectory, settings: ToySettings) -> dict[str, Any]:
    """Trains the classifier and one BCGAN per beta, measures and draws them.

    Writes ``classifier.keras``, ``figures/toy.png`` and ``metrics.json`` into the run's folder. A
    run that was stopped goes on after the last beta that it finished.

    Returns:
        The content of metrics.json: ``"toy"``, one :func:`measure` per beta, and
        ``"toy_classifier"``, :func:`measure_classifier`.

    Raises:
        UserError: a training became non-finite.
    """
    data = datasets.load_dataset("gaussians", seed=settings.seed)
    classifier = _classifier(run, data, settings)
    panels: list[dict[str, float]] = []
    points: dict[float, np.ndarray] = {}
    labels = np.arange(settings.samples) % data.num_classes
    for beta in settings.betas:
        stage = f"beta-{beta}"
        file = run.checkpoints / "toy" / f"{stage}.npy"
        if not run.stage_done(stage):
            gan = train_gan(data, classifier, beta, settings)
            made = gan.generate(labels, seed=1)
            _save_array(made, file)
            measured = measure(made, labels, classifier)
            run.finish_stage(stage, {"beta": beta, **measured}, files=[file])
        points[beta] = np.load(file)
        panels.append(run.stage_payload(stage))
    planes.toy_panels(
        data.train.scaled(),
        data.train.labels,
        points,
        run.figures / "toy.png",
        captions={panel["beta"]: _caption(panel) for panel in panels},
    )
    metrics = {
        "dataset": data.name,
        "toy": panels,
        "toy_classifier": run.stage_payload("classifier"),
    }
    run.write_metrics(metrics)
    return metrics


def _caption(panel: Mapping[str, float]) -> str:
    # Two short lines: longer ones would run into the next panel's.
    return (
        f"distance {panel['mean_distance']:.2f}, KL {panel['kl_to_uniform']:.2f}\n"
        f"true label {panel['bayes_accuracy']:.1%}"
    )


def _classifier(run: RunDirectory, data: Dataset, settings: ToySettings) -> keras.Model:
    path = run.path / "classifier.keras"
    if not run.stage_done("classifier"):
        model = train_classifier(data, settings)
        save_model(model, path)
        run.finish_stage("classifier", measure_classifier(model, data), files=[path])
    return keras.models.load_model(path)


def _save_array(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        np.save(partial, array)


def train_classifier(data: Dataset, settings: ToySettings) -> keras.Model:
    """The toy's classifier, an MLP 2-64-64-2, trained."""
    (width,) = data.image_shape
    model = mlp(width, data.num_classes, hidden=(64, 64), seed=settings.seed)
    trainer = ClassifierTrainer(model, seed=settings.seed)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, settings.classifier_steps)
    trainer.compile(
        keras.optimizers.Adam(schedule),
        steps_per_execution=math.gcd(settings.classifier_steps, _STEPS_PER_EXECUTION),
    )
    _fit(trainer, data, settings.classifier_steps, settings)
    return model


def train_gan(data: Dataset, classifier: keras.Model, beta: float, settings: ToySettings) -> BCGAN:
    """A BCGAN against ``classifier``, trained: three layers of 128 units in both networks."""
    shape, classes, seed = data.image_shape, data.num_classes, settings.seed
    gan = BCGAN(
        acgan_generator(shape, classes, latent_dim=settings.latent_dim, seed=seed),
        acgan_discriminator(shape, classes, seed=seed),
        classifier=classifier,
        beta=beta,
        num_classes=classes,
        seed=seed,
    )
    gan.compile(
        keras.optimizers.Adam(settings.learning_rate, beta_1=0.5),
        keras.optimizers.Adam(settings.learning_rate, beta_1=0.5),
        steps_per_execution=math.gcd(settings.steps, _STEPS_PER_EXECUTION),
    )
    _fit(gan, data, settings.steps, settings)
    return gan


def _fit(model: Any, data: Dataset, steps: int, settings: ToySettings) -> None:
    """Trains one long epoch: with epochs of 15 batches the pauses between them would dominate."""
    with contextlib.redirect_stdout(sys.stderr):  # Keras reports on stdout
        model.fit(
            training_stream(data.train, batch_size=settings.batch_size, seed=settings.seed),
            steps_per_epoch=steps,
            epochs=1,
            callbacks=[StopOnNonFinite()],
            shuffle=False,  # the stream is shuffled already
            verbose=1 if sys.stderr.isatty() else 2,
        )


def measure(points: np.ndarray, labels: np.ndarray, classifier: keras.Model) -> dict[str, float]:
    """Where generated points lie, and whether their labels are true.

    Args:
        points: float32 ``[N, 2]``, generated.
        labels: int ``[N]``, the classes ``c`` that were asked for.
        classifier: the one under defence, points to logits.

    Returns:
        ``mean_distance`` to the Bayes boundary, in the data's units; ``kl_to_uniform`` of the
        classifier, in nats; and three shares in [0, 1]: ``bayes_accuracy`` (``c`` is the Bayes
        class), ``classifier_accuracy`` (``c`` is what the classifier says), and
        ``classifier_agreement`` (the classifier says the Bayes class).
    """
    score = points.sum(axis=1)
    bayes = (score > 0).astype(int)
    logits = classifier(points, training=False)
    says = np.argmax(logits, axis=-1)
    return {
        "mean_distance": float(np.abs(score).mean() / math.sqrt(2)),
        "kl_to_uniform": float(np.mean(losses.kl_to_uniform(logits))),
        "bayes_accuracy": float(np.mean(bayes == labels)),
        "classifier_accuracy": float(np.mean(says == labels)),
        "classifier_agreement": float(np.mean(says == bayes)),
    }


def measure_classifier(classifier: keras.Model, data: Dataset) -> dict[str, float]:
    """How near the classifier is to the best one, on the test points.

    Returns:
        ``test_error``; ``bayes_test_error``, of the best classifier on the same points;
        ``bayes_error``, of the best one on the distribution, 1.7 %; ``agreement`` of the two; and
        ``mean_distance`` of the points to the Bayes boundary: what a GAN at beta 0 should have.
    """
    points, labels = data.test.scaled(), data.test.labels
    found = measure(points, labels, classifier)
    return {
        "test_error": 1 - found["classifier_accuracy"],
        "bayes_test_error": 1 - found["bayes_accuracy"],
        "bayes_error": BAYES_ERROR,
        "agreement": found["classifier_agreement"],
        "mean_distance": found["mean_distance"],
    }
