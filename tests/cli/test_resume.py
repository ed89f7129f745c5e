"""--resume takes up a run with its settings, and refuses others."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bcgan_tf.runs.directory import RunDirectory
from helpers.classifiers import linear_digits

Calls = list[SimpleNamespace]
FIRST = (
    "run --dataset digits --run-dir a --seed 3 --defense bcgan -o beta=0.7 --oracle-epochs 3 "
    "--eps 8/255 --n 50"
)


def test_a_run_is_resumed_with_its_own_settings(cli, pipeline_calls: Calls) -> None:
    assert cli(*FIRST.split(), "--saved-models", "elsewhere", "--threshold", "0").exit_code == 0
    result = cli("run", "--run-dir", "a", "--resume")
    assert result.exit_code == 0, result.stderr
    first, second = pipeline_calls
    assert second.recipe == first.recipe and second.recipe.n == 50 and second.eps == 8 / 255
    assert second.seed == 3 and second.config == first.config
    assert str(second.saved_models_dir) == "elsewhere"


@pytest.mark.parametrize("command", ["run", "harden"])
def test_a_defence_is_resumed_with_its_own_options(
    cli, pipeline_calls: Calls, model_file: Path, command
) -> None:
    defense = ["--defense", "pgd-at", "-o", "eps=0.1", "-o", "epochs=9"]
    first = ["--dataset", "digits", "--classifier", str(model_file), "--run-dir", "a"]
    assert cli(command, *first, *defense).exit_code == 0
    result = cli(command, "--run-dir", "a", "--resume")
    assert result.exit_code == 0, result.stderr
    before, after = (call for call in pipeline_calls if call.name == command)
    assert after.defense == before.defense and after.defense.name == "pgd-at"
    assert (after.defense.eps, after.defense.epochs) == (0.1, 9)


def test_the_same_flags_again_are_no_difference(cli, pipeline_calls: Calls) -> None:
    assert cli(*FIRST.split(), "--resume").exit_code == 0  # nothing there yet: it starts
    assert cli(*FIRST.split(), "--resume").exit_code == 0
    assert len(pipeline_calls) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seed", "4"], "seed (3 there, 4 now)"),
        (["--oracle-epochs", "200"], "oracle_epochs ("),
        (["-o", "beta=1"], "defense_options ("),
        (["--preset", "paper"], 'preset ("quick" there, "paper" now)'),
        (["--deterministic"], "deterministic (false there, true now)"),
    ],
)
def test_other_settings_are_refused_by_name(cli, pipeline_calls, monkeypatch, flags, words) -> None:
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
    cli(*FIRST.split())
    result = cli("run", "--run-dir", "a", "--resume", *flags)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert words in result.stderr and "was started with other settings" in result.stderr
    assert len(pipeline_calls) == 1


def test_variables_and_files_count_as_given(cli, pipeline_calls: Calls, tmp_path: Path) -> None:
    cli(*FIRST.split())
    (tmp_path / "c.toml").write_text("seed = 8")
    for flags, env, words in (
        ([], {"BCGAN_TF_SEED": "9"}, "3 there, 9 now"),
        (["--config", "c.toml"], {}, "3 there, 8 now"),
    ):
        result = cli("run", "--run-dir", "a", "--resume", *flags, **env)
        assert result.exit_code == 1 and words in result.stderr
    (tmp_path / "d.toml").write_text('run_dir = "a"\nresume = true')
    assert cli("run", "--config", "d.toml").exit_code == 0
    assert pipeline_calls[-1].seed == 3


def test_a_run_is_not_overwritten(cli, pipeline_calls: Calls, tmp_path: Path) -> None:
    cli(*FIRST.split())
    result = cli(*FIRST.split())
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "pass --resume" in result.stderr
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").touch()
    for flags in ([], ["--resume"]):
        result = cli("run", "--dataset", "digits", "--run-dir", "b", *flags)
        assert result.exit_code == 1 and "holds no run" in result.stderr
    assert len(pipeline_calls) == 1


def test_another_command_does_not_take_it_up(cli, pipeline_calls: Calls) -> None:
    cli(*FIRST.split())
    result = cli("train", "--dataset", "digits", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and "a run of 'run', not of 'train'" in result.stderr


def test_a_run_in_use_is_left_alone(cli, pipeline_calls: Calls) -> None:
    cli(*FIRST.split())
    saved = RunDirectory.saved_config("a")
    assert saved is not None
    with RunDirectory.create("a", "run", saved["config"], resume=True):
        result = cli("run", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and "another process is writing a" in result.stderr


def test_a_damaged_run_is_one_line(cli, pipeline_calls: Calls) -> None:
    cli(*FIRST.split())
    text = Path("a/config.json").read_text()
    Path("a/config.json").write_text(text[:40])
    Path("a/.copy-config.json").unlink()
    result = cli("run", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "a/config.json is cut short" in result.stderr


def test_models_are_known_by_their_content(cli, pipeline_calls: Calls, model_file: Path) -> None:
    flags = ["--dataset", "digits", "--run-dir", "a"]
    assert cli("attack", f"mine={model_file}", *flags).exit_code == 0
    assert cli("attack", "--run-dir", "a", "--resume").exit_code == 0
    assert [call.models for call in pipeline_calls] == [["mine"], ["mine"]]
    config = json.loads(Path("a/config.json").read_text())["config"]
    assert config["models"] == {"mine": str(model_file)}
    linear_digits(seed=1).save(model_file)
    result = cli("attack", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and "models_sha256" in result.stderr
