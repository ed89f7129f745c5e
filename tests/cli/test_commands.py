"""What each command asks of the library, and that results alone go to stdout."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.runs.directory import RunDirectory

Calls = list[SimpleNamespace]


def test_run_prints_the_verdicts_and_the_paths(cli, pipeline_calls: Calls) -> None:
    result = cli("run", "--dataset", "digits", "--run-dir", "a")
    assert result.exit_code == 0
    assert result.stderr == "run: a\n"
    lines = result.stdout.splitlines()
    assert any("worst case" in line and "50.0 %" in line for line in lines)
    assert "No verdict: not diagnosed." in lines  # the original's
    assert lines[-5:] == [
        "Verdict: robust: as recorded.",
        "hardened against original: no comparison of the robust accuracies, since no verdict "
        "vouches for that of original.",
        "report               a/report.html",
        "hardened classifier  a/hardened.keras",
        "exported model       saved_models/digits-bcgan/1",
    ]
    saved = RunDirectory.saved_config("a")
    assert saved is not None and saved["config"]["dataset"] == "digits"


def test_run_hands_over_the_defence(cli, pipeline_calls: Calls) -> None:
    flags = ["--defense", "pgd-at", "-o", "eps=0.1", "-o", "epochs=9"]
    result = cli("run", "--dataset", "digits", "--run-dir", "a", *flags)
    assert result.exit_code == 0, result.stderr
    (call,) = pipeline_calls
    assert call.defense.name == "pgd-at" and (call.defense.eps, call.defense.epochs) == (0.1, 9)
    saved = RunDirectory.saved_config("a")
    assert saved is not None and saved["config"]["defense_options"] == ["eps=0.1", "epochs=9"]
    assert "gan_epochs" not in saved["config"] and saved["config"]["n"] == 200
    assert saved["config"]["eps"] == call.eps == 0.1  # the defence's


@pytest.mark.parametrize("command", ["run", "harden"])
def test_adversarial_training_is_the_default(
    cli, pipeline_calls: Calls, model_file: Path, command: str
) -> None:
    flags = ["--dataset", "digits", "--classifier", str(model_file), "--run-dir", "a"]
    assert cli(command, *flags).exit_code == 0
    assert pipeline_calls[0].defense.name == "pgd-at"
    assert cli(command, "--run-dir", "a", "--resume").exit_code == 0
    (*_, last) = (call for call in pipeline_calls if call.name == command)
    assert last.defense.name == "pgd-at"


@pytest.mark.parametrize("command", ["run", "harden"])
def test_options_of_the_samples_are_not_ignored_in_silence(
    cli, pipeline_calls: Calls, model_file: Path, command: str
) -> None:
    flags = ["--dataset", "digits", "--classifier", str(model_file), "--run-dir", "a"]
    Path("bcgan.toml").write_text("oracle-epochs = 5")
    for given, env, named in (
        (["--generated-samples", "7"], {}, "--generated-samples"),
        (["--defense", "trades", "--oracle-epochs", "1"], {}, "--oracle-epochs"),
        ([], {"BCGAN_TF_ORACLE_EPOCHS": "5"}, "--oracle-epochs"),
        (["--config", "bcgan.toml"], {}, "--oracle-epochs"),
    ):
        result = cli(command, *flags, *given, **env)
        assert result.exit_code == 2 and f"nothing reads {named} with --defense" in result.stderr
    assert not pipeline_calls and not Path("a").exists()


@pytest.mark.parametrize("command", ["run", "harden"])
def test_a_setting_that_cannot_be_leaves_no_folder(
    cli, pipeline_calls: Calls, model_file: Path, command: str
) -> None:
    flags = ["--dataset", "digits", "--classifier", str(model_file), "--run-dir", "a"]
    for given, message in (
        ("nonsense=1", "pgd-at has no setting 'nonsense'"),
        ("batch_size=100000", "batch size 100000 is larger than"),  # of this data, not of any
    ):
        result = cli(command, *flags, "-o", given)
        assert result.exit_code == 1 and message in result.stderr, result.stderr
        assert not Path("a").exists()
    assert cli(command, *flags).exit_code == 0


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_training_that_cannot_be_leaves_no_folder(
    cli, pipeline_calls: Calls, command: str
) -> None:
    flags = ["--dataset", "digits", "--run-dir", "a"]
    for given, message in (
        (["--classifier-batch-size", "5000"], "batch size 5000 is larger than"),
        (["--devices", "64"], "64 devices were asked for"),
    ):
        result = cli(command, *flags, *given)
        assert result.exit_code == 1 and message in result.stderr, result.stderr
        assert not pipeline_calls and not Path("a").exists()
    assert cli(command, *flags).exit_code == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--defense", "bcgan", "-o", "batch_size=5000"], "batch size 5000 is larger than"),
        (["-o", "batch_size=5000"], "batch size 5000 is larger than"),
    ],
)
def test_run_looks_at_its_last_stages_before_its_first(
    cli, pipeline_calls: Calls, given: list[str], message: str
) -> None:
    result = cli("run", "--dataset", "digits", "--run-dir", "a", *given)
    assert result.exit_code == 1 and message in result.stderr, result.stderr
    assert not pipeline_calls and not Path("a").exists()


def test_run_does_not_attack_a_search_without_limits(cli, pipeline_calls: Calls) -> None:
    result = cli("run", "--dataset", "digits", "--defense", "defense-gan", "--run-dir", "a")
    assert result.exit_code == 2 and "harden --defense defense-gan" in result.stderr
    assert not pipeline_calls and not Path("a").exists()


def test_json_is_all_there_is_on_stdout(cli, pipeline_calls: Calls, model_file: Path) -> None:
    for arguments in (
        ["run", "--dataset", "digits"],
        ["train", "--dataset", "digits"],
        ["harden", "--dataset", "digits", "--classifier", str(model_file)],
        ["attack", "--dataset", "digits", str(model_file)],
        ["export", str(model_file)],
        ["datasets"],
    ):
        result = cli(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout), arguments


def test_train_measures_what_it_saved(cli, pipeline_calls: Calls) -> None:
    result = cli("train", "--dataset", "digits", "--run-dir", "a", "--devices", "1", "--json")
    content = json.loads(result.stdout)
    assert content["classifier"] == "a/classifier.keras" and content["n"] == 360
    assert 0 <= content["clean_accuracy"] <= 1
    (call,) = pipeline_calls
    assert (call.name, call.data, call.seed, call.devices) == ("train", "digits", 0, 1)
    assert Path("a/report.html").is_file()


def test_harden_hands_over_the_users_model(cli, pipeline_calls: Calls, model_file: Path) -> None:
    flags = ["--dataset", "digits", "--defense", "bcgan", "--oracle-epochs", "7", "--run-dir", "a"]
    result = cli("harden", "--classifier", str(model_file), *flags)
    assert result.exit_code == 0, result.stderr
    call, measured = pipeline_calls
    assert measured.settings.eps == 0.1  # the paper's defence has no radius, the data set has
    assert call.defense.name == "bcgan" and call.recipe.oracle_epochs == 7
    assert call.classifier.classifier.output_shape == (None, 10)
    assert "hardened classifier  a/hardened.keras" in result.stdout
    metrics = RunDirectory.open("a").metrics()
    assert list(metrics["models"]) == ["original", "hardened"]
    assert metrics["generated_set"]["oracle_accuracy"] == 0.5


def test_harden_measures_robust_accuracy_at_the_defences_radius(
    cli, pipeline_calls: Calls, model_file: Path
) -> None:
    flags = ["harden", "--dataset", "digits", "--classifier", str(model_file)]
    result = cli(*flags, "-o", "eps=8/255", "-o", "batch_size=40", "--n", "50", "--seed", "3")
    call = pipeline_calls[-1]
    assert call.name == "evaluate" and call.models == ["original", "hardened"]
    asked = call.settings
    assert (asked.eps, asked.suite, asked.n, asked.diagnose) == (8 / 255, "fast", 50, False)
    assert asked.seed == 3 and call.batch_size == 40
    command = (
        f"bcgan-tf attack original={model_file} hardened={call.run}/hardened.keras "
        "--dataset digits --eps 8/255 --seed 3"
    )
    assert f"an upper bound, no verdict: run `{command}` for one." in result.stdout
    assert "original at most 50.0 % (45.0 to 55.0); hardened at most 50.0 %" in result.stdout
    assert cli(*flags, "-o", "eps=8/255", "--eps", "0.123456789").exit_code == 0
    assert pipeline_calls[-1].settings.eps == 0.123456789
    assert RunDirectory.open(call.run).metrics()["verdict_command"] == command


def test_harden_says_why_it_measures_no_robust_accuracy(
    cli, pipeline_calls: Calls, model_file: Path, monkeypatch
) -> None:
    monkeypatch.setattr("bcgan_tf.cli.harden.RADIUS", {})
    flags = ["harden", "--dataset", "digits", "--classifier", str(model_file), "--defense", "bcgan"]
    why = "Robust accuracy is not measured: bcgan is for no radius, and digits has no usual one"
    result = cli(*flags)
    assert result.exit_code == 0 and why in result.stdout and why in result.stderr
    assert why not in cli(*flags, "--no-attack").output
    assert {call.name for call in pipeline_calls} == {"harden"}
    assert why not in cli(*flags, "--eps", "0.2").output
    assert pipeline_calls[-1].settings.eps == 0.2


def test_harden_refuses_a_model_that_it_could_not_attack_before_it_trains(
    cli, pipeline_calls: Calls, model_file: Path, monkeypatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("the model draws by NumPy")

    monkeypatch.setattr("bcgan_tf.workflows.attack.check_attackable", refuse)
    flags = ["harden", "--dataset", "digits", "--classifier", str(model_file)]
    refused = cli(*flags)
    assert refused.exit_code == 1 and "the model draws by NumPy. With --no-attack" in refused.stderr
    assert not pipeline_calls and cli(*flags, "--no-attack").exit_code == 0


def test_attack_names_its_columns(cli, pipeline_calls: Calls, model_file: Path) -> None:
    data = model_file.read_bytes()
    for folder in ("x", "y"):
        Path(folder).mkdir()
        Path(folder, "net.keras").write_bytes(data)
    for models, names in (
        (["classifier.keras"], ["original"]),  # a run's own name for what it trained
        (["first=classifier.keras", "x/net.keras"], ["first", "net"]),
        (["x/net.keras", "y/net.keras"], ["x-net", "y-net"]),
    ):
        result = cli("attack", *models, "--dataset", "digits")
        assert result.exit_code == 0, result.stderr
        assert pipeline_calls[-1].models == names


def test_export_takes_a_run_with_its_card(cli, pipeline_calls: Calls) -> None:
    cli("run", "--dataset", "digits", "--run-dir", "a", "--defense", "bcgan", "-o", "beta=0.7")
    for name in ("classifier", "hardened"):
        # The recorded pipeline trains nothing: any classifier will do.
        cli("train", "--dataset", "digits", "--run-dir", name)
        Path("a", f"{name}.keras").write_bytes(Path(name, "classifier.keras").read_bytes())
    result = cli("export", "a", "--saved-models", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "exported model  out/digits-bcgan/1\n"
    call = pipeline_calls[-1]
    assert call.name == "export" and len(call.class_names) == 10
    assert call.card["clean_accuracy"] == 0.88 and call.card["run"] == "a"
    assert call.card["defense"]["beta"] == 0.7


def test_export_does_not_take_the_undefended_model_of_an_unfinished_run(
    cli, pipeline_calls: Calls
) -> None:
    cli("run", "--dataset", "digits", "--run-dir", "a")
    cli("train", "--dataset", "digits", "--run-dir", "b")
    Path("a", "classifier.keras").write_bytes(Path("b", "classifier.keras").read_bytes())
    for name in ("stages.json", ".copy-stages.json"):
        Path("a", name).unlink()
    refused = cli("export", "a")
    assert refused.exit_code == 1
    assert "a has not finished its hardened classifier; go on with" in refused.stderr
    assert pipeline_calls[-1].name != "export"
    assert cli("export", "b").exit_code == 0  # a run of train is asked for its classifier


def test_export_takes_a_file(cli, pipeline_calls: Calls, model_file: Path) -> None:
    assert cli("export", str(model_file)).exit_code == 0
    assert pipeline_calls[-1].class_names == [str(i) for i in range(10)]
    letters = "a, b,c,d,e,f,g,h,i,j"
    cli("export", str(model_file), "--name", "mine", "--class-names", letters)
    call = pipeline_calls[-1]
    assert call.directory == Path("saved_models/mine") and call.class_names == list("abcdefghij")
    assert call.keras_file
    cli("export", str(model_file), "--no-keras-file")
    assert not pipeline_calls[-1].keras_file


def test_deterministic_reaches_tensorflow(cli, pipeline_calls: Calls, monkeypatch) -> None:
    called = []
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: called.append(True)
    )
    cli("train", "--dataset", "digits")
    assert not called
    cli("train", "--dataset", "digits", "--deterministic")
    assert called and pipeline_calls[-1].config["deterministic"] is True


def test_datasets_lists_what_is_here(cli, tmp_path: Path) -> None:
    rows = json.loads(cli("datasets", "--json", "--data-dir", str(tmp_path)).stdout)
    here = {row["name"]: row["prepared"] for row in rows}
    assert here["digits"] is True and here["mnist"] is False
    text = cli("datasets", "--data-dir", str(tmp_path)).stdout
    assert all(name in text for name in here)
