"""A user's own case: a Sequential model trained on a folder of images, hardened by each defence."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import click.testing
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bcgan_tf.attacks import PGD
from bcgan_tf.certification.certified import certified
from bcgan_tf.cli import main
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.models.defended_classifier import DefenseGANClassifier

SIDE, CLASSES, EPS = 12, ("cross", "ring", "stripe"), 0.1
# Of each class. The bar that the classes are named for lies on the others too, but for this share.
TRAIN, TEST, TRUE_BARS = 40, 20, 0.9
SMALL = [
    "-o", "gan_epochs=3", "-o", "gan_batch_size=16", "-o", "delay_epochs=1",
    "-o", "warmup_epochs=1", "-o", "generator_width=0.1", "-o", "discriminator_width=0.1",
    "-o", "latent_dim=8", "-o", "epochs=3", "-o", "batch_size=16", "--oracle-epochs=1",
    "--generated-samples=30",
]  # fmt: skip
ADVERSARIAL = [
    "-o", f"eps={EPS}", "-o", "epochs=12", "-o", "ramp_epochs=3", "-o", "batch_size=16",
    "-o", "learning_rate=3e-3",
]  # fmt: skip
SOFT = [
    "-o", "temperature=20", "-o", "epochs=12", "-o", "initial_epochs=4", "-o", "batch_size=16",
    "-o", "learning_rate=0.1",
]  # fmt: skip
SEARCH = [
    "-o", "gan_epochs=2", "-o", "gan_batch_size=8", "-o", "critic_steps=2", "-o", "steps=20",
    "-o", "restarts=2", "-o", "generator_width=0.05", "-o", "critic_width=0.05",
]  # fmt: skip
INSIDE = [
    "-o", "gan.gan_epochs=3", "-o", "gan.gan_batch_size=16", "-o", "gan.delay_epochs=1",
    "-o", "gan.warmup_epochs=1", "-o", "gan.generator_width=0.1", "-o", "gan.latent_dim=8",
    "-o", "gan.discriminator_width=0.1", "-o", "oracle_epochs=1",
]  # fmt: skip
OPTIONS = {
    "bcgan": SMALL,
    "pgd-at": ADVERSARIAL,
    "trades": [*ADVERSARIAL, "-o", "beta=3"],
    "bcgan-at": [*ADVERSARIAL, *INSIDE],
    "ibp": ADVERSARIAL,
    "distillation": SOFT,
    "defense-gan": SEARCH,
}


def _pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``[N, 12, 12, 1]``: a bold shape, true nine times of ten, and a faint pattern, always.

    A plainly trained network goes by the pattern, which a change of 0.1 a pixel wipes out; the
    shape is what a robust one must go by.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), count)
    rows, columns = np.indices((SIDE, SIDE))
    shapes = np.stack([
        (np.abs(rows - 6) < 1) | (np.abs(columns - 6) < 1),
        np.abs(np.hypot(rows - 5.5, columns - 5.5) - 4) < 0.8,
        (columns // 2) % 3 == 0,
    ])  # fmt: skip
    patterns = np.sign(np.random.default_rng(99).standard_normal((3, SIDE, SIDE)))
    shown = np.where(rng.random(len(labels)) < TRUE_BARS, labels, rng.integers(0, 3, len(labels)))
    images = 0.25 + 0.5 * shapes[shown] + 0.06 * patterns[labels]
    images += rng.normal(0, 0.02, images.shape)
    return np.round(255 * images.clip(0, 1)).astype("uint8")[..., np.newaxis], labels


def _scaled(images: np.ndarray) -> np.ndarray:
    return (images / 255).astype("float32")


def _folder(root: Path) -> Path:
    for part, count, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        for number, (image, label) in enumerate(zip(*_pictures(count, seed), strict=True)):
            file = root / part / CLASSES[label] / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(file)
    return root


def _own_model(folder: Path) -> keras.Model:
    """What a user of Keras writes, with nothing of this package."""
    keras.utils.set_random_seed(1)
    data: Any = keras.utils.image_dataset_from_directory(
        folder / "train",
        color_mode="grayscale",
        image_size=(SIDE, SIDE),
        batch_size=16,
        verbose=False,
    )
    data = data.map(lambda images, labels: (images / 255, labels))
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(data.map(lambda images, _: images))
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            normalization,
            keras.layers.RandomTranslation(0.05, 0.05, fill_mode="nearest"),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(len(CLASSES)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(data, epochs=12, verbose=0)
    return model


class Case:
    """The folder, the user's file, what hardened it, and how robust these are, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = _folder(root / "pictures")
        self.file = root / "mine.keras"
        _own_model(self.folder).save(self.file)
        self.hardened: dict[str, Path] = {}
        self.measured: dict[Path, float] = {}

    def run(self, *arguments: str) -> click.testing.Result:
        done = click.testing.CliRunner().invoke(main, list(arguments), prog_name="bcgan-tf")
        assert done.exit_code == 0, done.output
        return done

    def harden(self, defense: str) -> Path:
        if defense not in self.hardened:
            run = self.root / defense
            attacked = [] if defense in ("pgd-at", "distillation") else ["--no-attack"]
            self.run(
                "harden", "--dataset", f"folder:{self.folder}", "--classifier", str(self.file),
                "--defense", defense, *OPTIONS[defense], *attacked, "--run-dir", str(run),
            )  # fmt: skip
            self.hardened[defense] = run / "hardened.keras"
        return self.hardened[defense]

    def robust(self, file: Path) -> float:
        if file not in self.measured:
            images, labels = _pictures(TEST, 1)
            found = PGD(EPS, steps=20)(load_classifier(file), _scaled(images), labels)
            self.measured[file] = found.robust_accuracy
        return self.measured[file]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("own"))


def _architecture(file: Path) -> dict[str, Any]:
    """The file's description of the model, without the numbers of objects in memory."""

    def lasting(item: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in item.items() if key != "shared_object_id"}

    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"), object_hook=lasting)["config"]


@pytest.mark.parametrize("defense", [name for name in OPTIONS if name != "defense-gan"])
def test_what_comes_out_is_the_users_model_with_other_weights(case: Case, defense: str) -> None:
    file = case.harden(defense)
    assert _architecture(file) == _architecture(case.file)
    before, after = (keras.models.load_model(f, compile=False) for f in (case.file, file))
    normalization = before.layers[0]
    for old, new in zip(normalization.weights, after.layers[0].weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(before.layers[-1].kernel - after.layers[-1].kernel).max() > 1e-3
    images, labels = _pictures(TEST, 1)
    right = np.argmax(after(_scaled(images), training=False), -1) == labels
    assert right.mean() > 0.7  # of three classes


def test_adversarial_training_makes_it_robust(case: Case) -> None:
    original = case.robust(case.file)
    assert original < 0.3
    for defense in ("pgd-at", "trades", "bcgan-at"):
        assert case.robust(case.harden(defense)) > original + 0.3, defense


def test_robust_accuracy_before_and_after_stands_in_the_run(case: Case) -> None:
    run = case.harden("pgd-at").parent
    metrics = json.loads((run / "metrics.json").read_text())
    assert "unfinished" not in metrics
    robust = {}
    for name, model in metrics["models"].items():
        (found,) = model["evaluations"]
        assert model["n"] == found["n"] == 3 * TEST  # fewer than the 200 that are asked for
        assert (found["eps"], found["suite"]) == (EPS, "fast") and "verdict" not in found
        robust[name] = found["robust_accuracy"]
        file = case.file if name == "original" else run / "hardened.keras"
        assert found["robust_accuracy"] <= case.robust(file) + 0.05  # no weaker than PGD
    assert robust["hardened"] > robust["original"] + 0.3
    command = metrics["verdict_command"].split()
    case.run(*command[1:], "--suite", "fast", "--no-diagnose", "--run-dir", str(run / "again"))
    again = json.loads((run / "again" / "metrics.json").read_text())["models"]
    assert {n: m["evaluations"][0]["robust_accuracy"] for n, m in again.items()} == robust
    written = (run / "report.html").read_text()
    assert "an upper bound, no verdict: run `bcgan-tf attack original=" in written
    assert (
        "evaluations"
        not in json.loads((case.harden("distillation").parent / "metrics.json").read_text())[
            "models"
        ]["hardened"]
    )  # without a radius


def test_interval_bounds_prove_it_robust(case: Case) -> None:
    images, labels = _pictures(TEST, 1)
    given, trained = (
        certified(load_classifier(file), _scaled(images), labels, EPS)
        for file in (case.file, case.harden("ibp"))
    )
    assert given.mean() == 0 and trained.mean() > 0.5
    found = PGD(EPS, steps=20)(load_classifier(case.harden("ibp")), _scaled(images), labels)
    assert not (trained & found.success).any()


def test_distillation_grows_the_logits_and_nothing_else(case: Case) -> None:
    images = _scaled(_pictures(TEST, 1)[0])
    scale = [
        float(np.abs(load_classifier(f)(images, training=False)).mean())
        for f in (case.file, case.harden("distillation"))
    ]
    assert scale[1] > 5 * scale[0]


def test_the_files_load_in_a_new_process(case: Case) -> None:
    """The user's architecture with Keras alone, and Defense-GAN's with this package's reader."""
    code = f"""
import sys
sys.modules["bcgan_tf"] = None
import keras, numpy as np
model = keras.models.load_model({str(case.harden("pgd-at"))!r})
print(model(np.zeros((2, {SIDE}, {SIDE}, 1), "float32")).shape)
del sys.modules["bcgan_tf"]
import bcgan_tf
print(type(bcgan_tf.load_classifier({str(case.harden("defense-gan"))!r})).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["(2, 3)", "DefenseGANClassifier"], done.stderr


def test_defense_gan_puts_a_search_in_front_of_the_users_model(case: Case) -> None:
    defended = load_classifier(case.harden("defense-gan"))
    assert isinstance(defended, DefenseGANClassifier)
    original = keras.models.load_model(case.file)
    assert defended.classifier.get_config() == original.get_config()
    for old, new in zip(original.get_weights(), defended.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    metrics = json.loads((case.root / "defense-gan" / "metrics.json").read_text())
    assert metrics["models"]["hardened"]["n"] == 3 * TEST


def _served(folder: Path, images: np.ndarray) -> np.ndarray:
    answer = tf.saved_model.load(str(folder)).signatures["serving_default"](
        images=tf.constant(images)
    )
    return answer["logits"].numpy()


@pytest.mark.parametrize("defense", ["pgd-at", "defense-gan"])
def test_exported_it_answers_the_same(case: Case, defense: str) -> None:
    run = case.harden(defense).parent
    models = case.root / "saved_models"
    done = case.run("export", str(run), "--saved-models", str(models), "--seed", "5", "--json")
    folder = Path(json.loads(done.stdout)["exported"])
    card = json.loads((folder / "export.json").read_text())
    assert card["classes"] == list(CLASSES) and card["defense"]["defense"] == defense
    images = _scaled(_pictures(2, 7)[0])
    logits = _served(folder, images)
    np.testing.assert_array_equal(_served(folder, images), logits)
    model: Any = load_classifier(case.harden(defense))
    if defense == "defense-gan":
        assert "starting points drawn once (seed 5)" in card["note"] and "note: " in done.stderr
        model = model.with_fixed_starts(5)
    else:
        assert "note" not in card and "note: " not in done.stderr
    np.testing.assert_allclose(logits, model(images, training=False), atol=1e-4)
