"""A folder of photographs and a model: what decides their size, and what is said and noted."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from bcgan_tf.workflows import run as pipeline


@pytest.fixture
def model(cli) -> str:
    """8x12 colour images to two classes."""
    net = keras.Sequential([keras.Input((8, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    net.save("net.keras")
    return "net.keras"


@pytest.fixture
def photos(cli) -> str:
    """Two classes of 20 JPEGs of two sizes, without splits; one file is broken."""
    random = np.random.RandomState(0)
    for name in "ab":
        Path("photos", name).mkdir(parents=True)
        for index in range(20):
            pixels = random.randint(0, 256, (10 + index % 2, 15, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{index}.jpg")
    Path("photos/a/broken.jpg").write_text("")
    return "folder:photos"


SHORT = ("--eps", "0.1", "--n", "4", "--suite", "paper", "--no-diagnose", "--json")


def test_the_models_size_decides_and_all_is_noted(
    cli, monkeypatch, model: str, photos: str
) -> None:
    monkeypatch.setattr(pipeline, "evaluate_models", lambda run, *_, **__: run.metrics())
    attack = ("attack", model, "--dataset", photos, *SHORT, "--run-dir", "run")
    refused = cli(*attack)
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1
    assert "photos/a/broken.jpg: not a readable" in refused.stderr
    assert "--skip-broken" in refused.stderr and not Path("run").exists()
    assert cli(*attack, "--skip-broken", "--cache-dir", "cache").exit_code == 0
    result = cli("attack", "--run-dir", "run", "--resume", "--json", model)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("folder:photos: ")]
    assert "40 images of 8x12 rgb (train 28, validation 4, test 8)" in line
    assert "converted: 40 resized; skipped: 1 broken; broken: photos/a/broken.jpg" in line
    noted = json.loads(Path("run/metrics.json").read_text())["data"]
    assert noted["images"] == {"train": 28, "validation": 4, "test": 8}
    assert "(seed 0, always)" in noted["split"]
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert config["skip_broken"] is True and "image_size" not in config


def test_a_size_that_is_given_goes_before_the_models(cli, model: str, photos: str) -> None:
    given = ("--skip-broken", "--image-size", "6")
    result = cli("attack", model, "--dataset", photos, *SHORT, *given)
    assert result.exit_code == 1 and "(6, 6, 3)" in result.stderr
    result = cli("train", "--dataset", photos, "--skip-broken")
    assert result.exit_code == 1 and "--image-size HEIGHTxWIDTH" in result.stderr
    result = cli("train", "--dataset", photos, "--image-size", "6x0")
    assert result.exit_code == 2 and "--image-size is '6x0'; choose HEIGHTxWIDTH" in result.stderr
