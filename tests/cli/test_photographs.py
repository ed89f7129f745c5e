"""A binary classifier of Keras' guides and a folder of photographs: README's three commands."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bcgan_tf.data.tfds_source import prepared_version

SIDE = 12
ROOT = Path(__file__).parents[2]
LEARN = ["-o", "epochs=2", "-o", "ramp_epochs=0", "-o", "batch_size=16", "--no-attack"]
SHORT = ["--n", "16", "--suite", "fast", "--no-diagnose"]
PIXELS = ["--input-range", "0..255"]


def _commands() -> list[list[str]]:
    """README's, without ``bcgan-tf``."""
    section = (ROOT / "README.md").read_text().split("## Your model, your photographs")[1]
    section = section.split("##")[0]
    (mine,) = re.findall(r'^MINE="(.*)"$', section, re.MULTILINE)
    lines = re.findall(r"^bcgan-tf (.*)$", section, re.MULTILINE)
    return [shlex.split(line.replace("$MINE", mine)) for line in lines]


def _without_the_range(command: list[str]) -> list[str]:
    place = command.index(PIXELS[0])
    assert command[place : place + 2] == PIXELS
    return command[:place] + command[place + 2 :]


def _photographs(folder: Path) -> None:
    """JPEGs of several sizes: bright on the left, or on the right; one of them grey."""
    rng = np.random.default_rng(0)
    for name, columns in (("left", slice(0, 6)), ("right", slice(6, 12))):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 140, (SIDE, SIDE, 3), np.uint8)
            pixels[:, columns] += 60
            size = (SIDE + number % 5, SIDE + number % 3)
            image = Image.fromarray(pixels).resize(size)
            if number == 7:
                image = image.convert("L")
            image.save(folder / name / f"{number}.jpg", quality=95)


def _guide_s_model(folder: Path) -> keras.Model:
    """With what `image_dataset_from_directory` gives: pixels of 0 to 255."""
    keras.utils.set_random_seed(0)
    data: Any = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=16, label_mode="binary", verbose=False
    )
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1.0 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(data, epochs=15, verbose=0)
    return model


def test_the_readme_s_three_commands(cli, tmp_path: Path) -> None:
    """As they stand there, with the option that the first refusal names, and shorter."""
    _photographs(Path("photos"))
    model = _guide_s_model(Path("photos"))
    model.save("model.keras")
    harden, attack, export = _commands()

    refused = cli(*_without_the_range(harden))
    assert refused.exit_code == 1 and " ".join(PIXELS) in refused.stderr
    assert not Path("runs").exists()

    made = cli(*harden, *LEARN)
    assert made.exit_code == 0, made.stderr
    for line in ("80 images of 12x12 rgb", "74 resized", "2 grey", "its single unit becomes"):
        assert line in made.stderr, line
    assert "80 images of 12x12 rgb" in Path("runs/hard/report.html").read_text()

    attacked = cli(*attack, *SHORT, "--json")
    assert attacked.exit_code == 0, attacked.stderr
    assert "is 8 of the model's pixels" in attacked.stderr
    found = json.loads(attacked.stdout)["models"]
    assert list(found) == ["original", "hardened"]
    assert all(entry["clean_accuracy"] > 0.8 for entry in found.values())

    exported = cli(*export, "--json")
    assert exported.exit_code == 0, exported.stderr
    folder = Path(json.loads(exported.stdout)["exported"])
    card = json.loads((folder / "export.json").read_text())
    assert card["classes"] == ["left", "right"] and card["input"]["range"] == [0.0, 255.0]
    assert "fast" in json.dumps(card["robust_accuracy"])

    # Its user's code goes on as before: photographs as Keras reads them, one probability each.
    images = np.float32(np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3)))
    hardened = keras.models.load_model("runs/hard/hardened.keras")
    assert hardened.output_shape == model.output_shape == (None, 1)
    loaded = tf.saved_model.load(str(folder))
    served = loaded.serve(images)
    np.testing.assert_allclose(served, hardened(images), atol=1e-5)
    assert np.min(served) > 0 and np.max(served) < 1


@pytest.mark.real_data
@pytest.mark.skipif(prepared_version("cifar10") is None, reason="no prepared CIFAR-10")
def test_the_example_and_the_commands_on_real_photographs(cli, tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "photographs.py"))
    example["write_folder"](Path("photos"), count=60)
    example["train"](Path("photos"), side=32, epochs=6).save("model.keras")
    refused = cli(*_without_the_range(_commands()[0]))
    assert refused.exit_code == 1 and " ".join(PIXELS) in refused.stderr
    assert "120 images of 32x32 rgb" in refused.stderr
    for command, shorter in zip(_commands(), (LEARN, SHORT, []), strict=True):
        done = cli(*command, *shorter)
        assert done.exit_code == 0, done.stderr
