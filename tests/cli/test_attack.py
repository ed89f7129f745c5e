"""`bcgan-tf attack`: what its options ask for, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import export as serving
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.kinds import Shard
from helpers.classifiers import linear_digits

Calls = list[SimpleNamespace]
BASE = ["attack", "classifier.keras", "--dataset", "digits"]


# ---- Options


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], EvaluationConfig(eps=0.1)),  # the data set's own eps
        (["--eps", "8/255"], EvaluationConfig(eps=8 / 255)),
        (["--eps", "0.2", "--eps-unit", "11"], EvaluationConfig(eps=0.2, eps_unit="11")),
        (
            [
                "--suite",
                "plus",
                "--norm",
                "l2",
                "--eps",
                "1.5",
                "--n",
                "0",
                "--samples",
                "3",
                "--shard",
                "2/8",
                "--seed",
                "5",
            ],
            EvaluationConfig(
                eps=1.5, suite="plus", norm="l2", n=0, samples=3, shard=Shard(2, 8), seed=5
            ),
        ),
        (
            ["--eps", "0", "--no-diagnose", "--minimum-perturbation"],
            EvaluationConfig(eps=0.0, diagnose=False, minimum_perturbation=True),
        ),
        (["--suite", "paper", "--eps", "1"], EvaluationConfig(eps=1.0, suite="paper")),
    ],
)
def test_options_are_settings(
    cli, pipeline_calls: Calls, model_file: Path, flags: list[str], settings: EvaluationConfig
) -> None:
    result = cli(*BASE, "--run-dir", "a", "--batch-size", "7", *flags)
    assert result.exit_code == 0, result.stderr
    (call,) = pipeline_calls
    assert call.name == "evaluate" and call.models == ["original"]
    assert call.settings == settings and call.batch_size == 7
    assert EvaluationConfig.from_dict(call.config) == settings
    again = cli("attack", "--run-dir", "a", "--resume")
    assert again.exit_code == 0, again.stderr
    assert pipeline_calls[-1].settings == settings and pipeline_calls[-1].config == call.config


def test_surrogate_and_control_are_models(cli, pipeline_calls: Calls, model_file: Path) -> None:
    Path("other.keras").write_bytes(model_file.read_bytes())
    Path("nets_e.py").write_text(
        "import tensorflow as tf\ndef linear(x):\n  return tf.reshape(x, [-1, 64])[:, :10] - 0.5\n"
    )
    flags = ["--surrogate", "other.keras", "--control", "nets_e.py:linear", "--run-dir", "a"]
    result = cli(*BASE, "x=nets_e.py:linear", *flags)
    assert result.exit_code == 0, result.stderr
    (call,) = pipeline_calls
    assert call.models == ["original", "x"]
    assert call.surrogate.output_shape == (None, 10) and call.control.fingerprint
    assert call.config["surrogate"] == "other.keras" and len(call.config["control_sha256"]) == 64
    Path("nets_e.py").write_text("# changed\n" + Path("nets_e.py").read_text())
    result = cli(*BASE, "x=nets_e.py:linear", *flags, "--resume")
    assert result.exit_code == 1 and "models_sha256" in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--eps", "nan"], "--eps is nan; choose a number from 0"),
        (["--eps", "8/0"], "--eps is '8/0'; choose a number"),
        (["--eps", "much"], "--eps is 'much'"),
        (["--norm", "l2"], "the L2 norm has no usual eps; give --eps"),
        (["--norm", "l1"], "l1"),
        (["--shard", "2"], "--shard is '2'; choose i/n, i from 1 to n"),
        (["--shard", "a/b"], "--shard is 'a/b'"),
        (["--suite", "strong"], "strong"),
        (["--suite", "first-look"], "first-look"),
        (["--n", "-1"], "--n is -1; choose a whole number from 0"),
        (["--batch-size", "0"], "--batch-size is 0; choose a whole number from 1"),
        (["--eps", "-0.1"], "--eps is -0.1"),
        (["--shard", "3/2"], "--shard is '3/2'"),
        (["--shard", "0/0"], "--shard is '0/0'"),
    ],
)
def test_wrong_options_exit_with_2(
    cli, pipeline_calls: Calls, model_file: Path, flags: list[str], words: str
) -> None:
    result = cli(*BASE, *flags)
    assert result.exit_code == 2 and result.stdout == "" and not pipeline_calls
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*BASE, "--eps", "2"], "write a fraction such as 8/255"),
        ([*BASE, "--eps", "0"], "eps is 0, at which there is nothing to diagnose"),
        ([*BASE, "--suite", "fast", "--shard", "1/2"], "fast decides by all images"),
        ([*BASE, "--control", "nowhere"], "nowhere does not exist"),
        ([*BASE, "--workers", "ray:127.0.0.1:1"], "Ray"),  # not installed, or no cluster there
        (["attack", "net:f", "--dataset", "digits"], "there is no module 'net'"),
        (["attack", "cut.keras", "--dataset", "digits"], "cut.keras is cut short"),
        (["attack", "empty", "--dataset", "digits"], "empty holds no SavedModel"),
        (["attack", "merge", "nowhere"], "nowhere holds no run"),
    ],
)
def test_wrong_input_is_one_line(
    cli, pipeline_calls: Calls, model_file: Path, arguments: list[str], words: str
) -> None:
    Path("cut.keras").write_bytes(model_file.read_bytes()[:500])
    Path("empty").mkdir()
    result = cli(*arguments)
    assert result.exit_code == 1 and result.stdout == "" and not pipeline_calls
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not Path("runs").exists()


def test_a_folder_of_images_has_no_usual_eps(cli, pipeline_calls: Calls, model_file: Path) -> None:
    from PIL import Image

    for part in ("train", "test"):
        for number, name in enumerate("ab"):
            Path("images", part, name).mkdir(parents=True)
            for i in range(12):
                pixels = np.full((8, 8), 20 * i + number, np.uint8)
                Image.fromarray(pixels).save(f"images/{part}/{name}/{i}.png")
    result = cli("attack", "classifier.keras", "--dataset", "folder:images")
    assert result.exit_code == 2 and "folder:images has no usual eps; give --eps" in result.stderr


def test_the_table_and_the_json(cli, pipeline_calls: Calls, model_file: Path) -> None:
    lines = cli(*BASE, "--run-dir", "a").stdout.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    left = "50.0 % (45.0 to 55.0)"
    assert ["APGD-CE", "324", "144", "50.0 %", left, "-", "12.3 s"] in cells
    assert ["worst case", "", "", "", left, "", ""] in cells
    assert lines[-2:] == ["No verdict: not diagnosed.", "report  a/report.html"]
    found = json.loads(cli(*BASE, "--run-dir", "b", "--json").stdout)
    assert found["run"] == "b"
    assert found["models"]["original"]["evaluations"][0]["robust_accuracy"] == 0.5


# ---- The whole way, with two short attacks on real digits


def test_a_killed_attack_goes_on(cli, short, model_file: Path, monkeypatch) -> None:
    real = PGD.run

    def killed(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PGD, "run", killed)
    flags = ["--eps", "0.05", "--n", "30", "--batch-size", "20", "--run-dir", "a"]
    result = cli(*BASE, *flags)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Interrupted. Go on with: bcgan-tf attack --run-dir a --resume --batch-size 20"
    )
    monkeypatch.setattr(PGD, "run", real)
    monkeypatch.setattr(FGSM, "run", killed)  # which has been done
    result = cli("attack", "--run-dir", "a", "--resume")
    assert result.exit_code == 0, result.stderr
    monkeypatch.undo()


def test_a_saved_model_gives_what_its_keras_file_gives(cli, short, model_file: Path) -> None:
    model = linear_digits()
    serving.export(model, Path("saved", "net"), class_names="0123456789", card={})
    flags = ["--eps", "0.02", "--n", "30", "--json", "--no-diagnose"]
    result = cli("attack", "a=classifier.keras", "saved/net", "--dataset", "digits", *flags)
    assert result.exit_code == 0, result.stderr
    models = json.loads(result.stdout)["models"]
    assert list(models) == ["a", "net"]
    one, other = (model["evaluations"][0] for model in models.values())
    assert one["clean_accuracy"] == other["clean_accuracy"]
    assert one["attacks"][1]["broken"] == other["attacks"][1]["broken"]


def test_an_evaluation_goes_on_the_card(cli, short, model_file: Path) -> None:
    flags = ["--eps", "0.02", "--n", "30", "--json", "--no-diagnose"]
    attacked = cli(*BASE, *flags, "--run-dir", "e")
    (found,) = json.loads(attacked.stdout)["models"]["original"]["evaluations"]
    made = cli("export", "classifier.keras", "--evaluation", "e", "--json")
    assert made.exit_code == 0, made.stderr
    card = json.loads(Path(json.loads(made.stdout)["exported"], "export.json").read_text())
    assert card["clean_accuracy"] == found["clean_accuracy"]
    assert card["robust_accuracy"] == [
        {
            "attack": "worst case of the suite standard",
            "norm": "linf",
            "eps": 0.02,
            "n": 30,
            "accuracy": found["robust_accuracy"],
            "interval95": found["robust_interval95"],
            "verdict": None,
        }
    ]
    assert card["evaluation"] == {"run": "e", "command": RunDirectory.open("e").command_line}
    assert ("certified_accuracy" in card) == bool(found["certified"])  # null: nothing is proved


def test_a_foreign_or_partial_evaluation_is_refused(cli, short, model_file: Path) -> None:
    flags = ["--eps", "0.02", "--n", "30", "--no-diagnose"]
    cli(*BASE, *flags, "--run-dir", "part", "--shard", "1/2")
    refused = cli("export", "classifier.keras", "--evaluation", "part")
    assert refused.exit_code == 1 and "join all with `bcgan-tf attack merge`" in refused.stderr
    linear_digits(seed=1).save("other.keras")
    refused = cli("export", "other.keras", "--evaluation", "part")
    assert refused.exit_code == 1 and "no evaluation of this very model" in refused.stderr
    refused = cli("export", "other.keras", "--evaluation", "nowhere")
    assert refused.exit_code == 1 and "nowhere holds no run" in refused.stderr
    assert not Path("saved_models").exists()
