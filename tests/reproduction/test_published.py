"""The tables in docs/results can be made again: today's settings are those they were made with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bcgan_tf.reproduction.rows import defense_of_row

RESULTS = Path(__file__).parents[2] / "docs" / "results"
# Settings that are gone, as all tables had them: off.
GONE = {
    "schedule": "linear",
    "average_decay": 0.0,
    "final_steps": None,
    "pull_away": 0.0,
    "instance_noise": 0.0,
    "spectral_norm": False,
    "ema": 0.0,
    "fixed_samples": 0,
}
# Settings of the recipe, which test_presets.py and the run's config hold.
OF_RECIPE = ("oracle_epochs", "samples")


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10"])
def test_a_row_is_trained_as_published(dataset: str) -> None:
    document = json.loads((RESULTS / f"table1-{dataset}.json").read_text())
    compared = 0
    for row, published in document["rows"].items():
        defense = defense_of_row(row, dataset, document["preset"], seed=document["seed"])
        if defense is None:
            continue
        now = GONE | defense.config()
        settings = published["training"]["settings"]
        for name in settings.keys() - set(OF_RECIPE):
            assert now[name] == settings[name], f"{row}: {name}"
            compared += 1
    assert compared > 60
