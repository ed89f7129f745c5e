"""A run's folder from elsewhere: what it names is neither run, nor written to, unless asked for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from bcgan_tf.files import keep_json, read_json
from bcgan_tf.runs.directory import RunDirectory
from helpers.classifiers import linear_digits

CODE = "import keras\nmodel = keras.models.load_model('classifier.keras')\n"
CANARY = "code_has_run"
PLANTED = f"open({CANARY!r}, 'w')\n{CODE}"
ATTACK = ["--dataset", "digits", "--eps", "0.05", "--n", "10"]
BOTH = ["s1", "s2"]


def _edit(run: str, change: Any) -> None:
    file = Path(run, "config.json")
    content = read_json(file)
    change(content["config"])
    keep_json(file, content)


def _plant() -> None:
    """Code that leaves a trace, which this process has not imported yet."""
    Path("mod.py").write_text(PLANTED)
    for name in list(sys.modules):
        if name.startswith("_bcgan_tf_source_"):
            del sys.modules[name]


def _shards(cli) -> list[str]:
    """Two runs that attacked a model from Python code, with a control from there."""
    Path("mod.py").write_text(CODE)
    models = ["f=mod.py:model", "--control", "mod.py:model"]
    for number in (1, 2):
        run = ["--shard", f"{number}/2", "--run-dir", f"s{number}"]
        result = cli("attack", *models, *ATTACK, *run)
        assert result.exit_code == 0, result.stderr
    return ["--model", "f=mod.py:model", "--control", "mod.py:model"]


def test_a_merge_runs_only_programs_that_it_names(cli, pipeline_calls, model_file: Path) -> None:
    shards = _shards(cli)
    _plant()
    for given, missing in (
        ([], " ".join(shards)),
        (shards[:2], " ".join(shards[2:])),
        (shards[2:], " ".join(shards[:2])),
    ):
        result = cli("attack", "merge", *BOTH, *given, "--run-dir", "m")
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert f"add {missing}, or merge with --no-diagnose" in result.stderr
        assert not Path(CANARY).exists() and not Path("m").exists()
    # Named, but not what was attacked: the file's bytes tell, before any of it is run.
    result = cli("attack", "merge", *BOTH, *shards, "--run-dir", "m")
    assert result.exit_code == 1 and "no longer what the shards attacked" in result.stderr
    assert not Path(CANARY).exists() and not Path("m").exists()


def test_what_is_named_may_have_moved_and_is_named_again(cli, short, model_file: Path) -> None:
    shards = _shards(cli)
    Path("elsewhere").mkdir()
    shutil.move("mod.py", "elsewhere/mod.py")
    moved = [text.replace("mod.py", "elsewhere/mod.py") for text in shards]
    merge = ["attack", "merge", *BOTH, *moved, "--run-dir", "m"]
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("bcgan_tf.workflows.attack.loss_curves", _killed)
        result = cli(*merge)
    assert result.exit_code == 130, result.stderr
    assert f"attack merge --run-dir m --resume {' '.join(moved)}" in result.stderr
    result = cli("attack", "merge", "--run-dir", "m", "--resume")
    assert result.exit_code == 1 and f"add {' '.join(moved)}" in result.stderr
    result = cli("attack", "merge", "--run-dir", "m", "--resume", *moved)
    assert result.exit_code == 0, result.stderr
    result = cli("attack", "merge", *BOTH, "--model", "g=a.keras", "--run-dir", "o")
    assert result.exit_code == 2 and "the shards have no model g; theirs: f" in result.stderr
    _plant()
    result = cli("attack", "merge", *BOTH, "--no-diagnose", "--run-dir", "n")
    assert result.exit_code == 0, result.stderr
    assert not Path(CANARY).exists()


def _killed(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"models": {"../../x": "a.keras"}}, "'../../x' cannot name a model of s1"),
        ({"models": {"12": "a.keras"}}, "'12' cannot name a model of s1"),
        ({"models": ["a.keras"]}, "s1 does not say what it attacked"),
        ({"models": {"f": 5}}, "s1 does not say what it attacked"),
        ({"models_sha256": {}}, "s1 does not say what it attacked"),
        ({"control": ["x"]}, "s1 does not say what it attacked"),
        ({"eps": "wide"}, "the shards' settings cannot be read"),
        ({"shard": "", "n": None}, "the shards' settings cannot be read"),
    ],
)
def test_a_merge_reads_only_what_attack_wrote(cli, tmp_path: Path, config, words) -> None:
    Path("s1").mkdir()
    models = config.get("models", {"f": "a.keras"})
    digests = {name: "0" * 64 for name in models}
    whole = {"dataset": "digits", "suite": "standard", "eps": 0.1, "models": models}
    whole |= {"models_sha256": digests, **config}
    content = {"command": "attack", "command_line": "", "config": whole}
    Path("s1", "config.json").write_text(json.dumps(content))
    result = cli("attack", "merge", "s1", "--run-dir", "m")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.stderr
    assert words in result.stderr and not Path("m").exists()


@pytest.mark.parametrize("option", ["models", "surrogate", "control"])
def test_a_resumed_attack_runs_only_programs_that_it_names(
    cli, pipeline_calls, model_file: Path, option: str
) -> None:
    Path("mod.py").write_text(CODE)
    program = "f=mod.py:model" if option == "models" else f"--{option} mod.py:model"
    models = {"models": ["f=mod.py:model", "g=classifier.keras"]}.get(
        option, ["g=classifier.keras", *program.split()]
    )
    first = cli("attack", *models, *ATTACK, "--run-dir", "a")
    assert first.exit_code == 0, first.stderr
    _plant()
    result = cli("attack", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    needed = " ".join(models) if option == "models" else program
    assert "a names models that are programs" in result.stderr
    assert result.stderr.endswith(f"add {needed}\n") and not Path(CANARY).exists()
    # From here on it is the user's word.
    result = cli("attack", *models, "--run-dir", "a", "--resume")
    assert Path(CANARY).exists() and "started with other settings" in result.stderr
    Path("mod.py").write_text(CODE)
    assert cli("attack", *needed.split(), "--run-dir", "a", "--resume").exit_code == 0


def test_what_a_config_file_names_is_named_by_the_user(
    cli, pipeline_calls, model_file: Path
) -> None:
    Path("mod.py").write_text(CODE)
    run = ["attack", "classifier.keras", *ATTACK, "--run-dir", "a", "--resume"]
    Path("c.toml").write_text('control = "mod.py:model"')
    for _ in range(2):
        result = cli(*run, "--config", "c.toml")
        assert result.exit_code == 0, result.stderr


def test_a_resumed_run_publishes_elsewhere_only_if_told(cli, pipeline_calls, tmp_path) -> None:
    away = str(tmp_path.parent / "away")
    run = ["run", "--dataset", "digits", "--run-dir", "a"]
    assert cli(*run).exit_code == 0
    _edit("a", lambda config: config.update(saved_models=away))
    result = cli("run", "--run-dir", "a", "--resume")
    assert result.exit_code == 1 and f"add --saved-models {away}" in result.stderr
    assert len(pipeline_calls) == 1
    result = cli("run", "--run-dir", "a", "--resume", "--saved-models", away)
    assert result.exit_code == 0, result.stderr


def test_a_run_does_not_say_where_data_are_read(cli, pipeline_calls, tmp_path: Path) -> None:
    """Nor which file of options: both could name code."""
    run = ["run", "--dataset", "digits", "--run-dir", "a"]
    assert cli(*run).exit_code == 0
    hidden = {"data_dir": "x", "config": "nowhere.toml", "debug": True, "as_json": True}
    content = json.loads(Path("a/config.json").read_text())
    for key, value in hidden.items():
        changed = {**content, "config": {**content["config"], key: value}}
        keep_json(Path("a/config.json"), changed)
        result = cli("run", "--run-dir", "a", "--resume")
        # Not taken up: it stays a difference to what is run now.
        assert result.exit_code == 1 and f"{key} (" in result.stderr, result.stderr
        assert result.stdout == "" and "nowhere.toml is no readable" not in result.stderr


def test_models_have_names_that_files_may_have(cli, pipeline_calls, tmp_path: Path) -> None:
    for name in ("../up", "/tmp/x", "..", "12", "caf\u00e9", "a b"):
        linear_digits().save("a.keras")
        result = cli("attack", f"{name}=a.keras", *ATTACK, "--run-dir", "a")
        assert result.exit_code == 1 and f"{name!r} cannot name a model" in result.stderr
        assert not Path("a").exists()


EVALUATION = {"suite": "standard", "eps": 0.1, "norm": "linf", "n": 360, "robust_accuracy": 0.5}


@pytest.mark.parametrize("out", [[], ["--out", "page.html"], ["--out", "page.html", "--json"]])
@pytest.mark.parametrize(
    "metrics",
    [
        {"models": ["f"]},
        {"models": {"f": 5}},
        {"models": {"f": {"evaluations": 5}}},
        {"models": {"f": {"evaluations": ["x"]}}},
        {"models": {"f": {"evaluations": [{**EVALUATION, "eps": "wide"}]}}},
        {"models": {"f": {"evaluations": [{**EVALUATION, "attacks": {"a": 1}}]}}},
        {"models": {"f": {"evaluations": [{**EVALUATION, "robust_accuracy": "high"}]}}},
    ],
)
def test_results_of_another_shape_are_one_line(cli, out: list[str], metrics: Any) -> None:
    with RunDirectory.create("a", "attack", {"dataset": "digits"}) as run:
        run.write_metrics(metrics)
    result = cli("report", "a", *out)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.exception
    assert "results in a" in result.stderr or "holds no evaluation" in result.stderr


def test_too_little_memory_is_one_line(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("bcgan_tf.cli.session.load_data", load)
    result = cli("train", "--dataset", "digits")
    assert result.exit_code == 1 and "there is not enough memory; choose" in result.stderr
    assert result.stderr.count("\n") == 1


def test_layers_of_a_user_s_own_are_run_only_where_they_are_named(cli, short) -> None:
    """By `attack`, `harden` and a resume; the run's folder alone does not run them."""
    Path("layers.py").write_text(
        "import keras\nopen('ran', 'a').write('x')\n"
        "class Twice(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n"
    )
    spec: dict[str, Any] = {}
    exec(Path("layers.py").read_text(), spec)
    images = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(spec["Twice"]()(images)))
    keras.Model(images, logits).save("own.keras")
    Path("ran").unlink()
    call = ["attack", "own.keras", "--dataset", "digits", "--n", "20", "--no-diagnose"]
    refused = cli(*call)
    assert refused.exit_code == 1 and "--custom-objects FILE.py" in refused.stderr
    named = ["--custom-objects", "layers.py"]
    assert cli(*call, *named, "--run-dir", "e").exit_code == 0
    assert Path("ran").exists()
    Path("ran").unlink()
    resumed = cli("attack", "--run-dir", "e", "--resume")
    assert resumed.exit_code == 1 and "--custom-objects layers.py" in resumed.stderr
    assert not Path("ran").exists()
    made = cli(
        *("harden", "--dataset", "digits", "--classifier", "own.keras", *named, "--run-dir", "h"),
        *("-o", "epochs=1", "-o", "ramp_epochs=0", "--no-attack"),
    )
    assert made.exit_code == 0, made.stderr
