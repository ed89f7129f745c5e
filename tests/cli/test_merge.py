"""`bcgan-tf attack merge`: the shards of an evaluation as one run, and what is left to do then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcgan_tf.runs.directory import RunDirectory
from helpers.classifiers import linear_digits

BASE = ["attack", "classifier.keras", "--dataset", "digits", "--eps", "0.05", "--n", "40", "--json"]


def test_help_tells_of_merge(cli) -> None:
    text = cli("attack", "--help").stdout
    assert "bcgan-tf attack merge [OPTIONS] RUN..." in text and "8/255" in text
    text = cli("attack", "merge", "--help").stdout
    assert text.startswith("Usage: bcgan-tf attack merge [OPTIONS] RUN...")
    result = cli("attack", "merge")
    assert result.exit_code == 2 and "give the folders of the runs" in result.stderr


def _arrays(run: str) -> dict[str, np.ndarray]:
    with np.load(Path(run, "evaluation-original.npz")) as found:
        return {name: found[name] for name in found.files if name != "settings"}


def test_three_shards_merged_are_one_run(
    cli, short: list[dict[str, Any]], model_file: Path
) -> None:
    whole = cli(*BASE, "--run-dir", "whole")
    assert whole.exit_code == 0, whole.stderr
    assert "original: FGSM: on 40 of 40 images" in whole.stderr.splitlines()
    for number in (1, 2, 3):
        result = cli(*BASE, "--shard", f"{number}/3", "--run-dir", f"s{number}")
        assert result.exit_code == 0, result.stderr
    merged = cli("attack", "merge", "s2", "s1", "s3", "--run-dir", "m", "--json")
    assert merged.exit_code == 0, merged.stderr
    expected, found = _arrays("whole"), _arrays("m")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    ours, theirs = (
        json.loads(result.stdout)["models"]["original"]["evaluations"][0]
        for result in (merged, whole)
    )
    assert ours["verdict"] == theirs["verdict"] and ours["n"] == 40
    assert ours["robust_accuracy"] == theirs["robust_accuracy"]
    assert (Path("m", "report.html")).is_file() and RunDirectory.open("m").command == "merge"

    again = cli("attack", "merge", "--run-dir", "m", "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(merged.stdout)
    missing = cli("attack", "merge", "s1", "s3", "--run-dir", "n")
    assert missing.exit_code == 1 and "some are missing" in missing.stderr

    # With a control that the shards lacked, killed after the diagnosis.
    linear_digits(seed=1).save("plain.keras")
    shards = ["attack", "merge", "s1", "s2", "s3"]
    short.clear()
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("bcgan_tf.workflows.attack.loss_curves", _killed)
        killed = cli(*shards, "--control", "plain.keras", "--run-dir", "c")
    assert killed.exit_code == 130 and "attack merge --run-dir c --resume" in killed.stderr
    done = cli("attack", "merge", "--run-dir", "c", "--resume")
    assert done.exit_code == 0, done.stderr
    assert [options["control"] is not None for options in short] == [True]
    config = RunDirectory.open("c").config
    assert config["control"] == "plain.keras" and len(config["control_sha256"]) == 64
    absent = cli(*shards, "--surrogate", "nowhere.keras", "--run-dir", "n")
    assert absent.exit_code == 1 and "nowhere.keras" in absent.stderr

    linear_digits(seed=1).save(model_file)
    changed = cli(*shards, "--run-dir", "o")
    assert changed.exit_code == 1 and "no longer what the shards attacked" in changed.stderr
    model_file.unlink()
    bare = cli(*shards, "--no-diagnose", "--run-dir", "p")
    assert bare.exit_code == 0, bare.stderr
    assert "worst case" in bare.stdout and "No verdict: not diagnosed." in bare.stdout
    assert not Path("n").exists()  # the corrected command can use the folder


def _killed(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt
