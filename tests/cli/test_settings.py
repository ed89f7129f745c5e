"""Flag before variable before file before preset; what is misspelt or mistyped is an error."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bcgan_tf.settings.presets import recipe

Calls = list[SimpleNamespace]


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return str(path)

    return write


def test_precedence(cli, pipeline_calls: Calls, file) -> None:
    config = file('dataset = "digits"\nclassifier-epochs = 11\nseed = 5')
    variables = {"BCGAN_TF_CLASSIFIER_EPOCHS": "22", "BCGAN_TF_CLASSIFIER_BATCH_SIZE": "64"}
    flags = ["--classifier-epochs", "33"]
    preset = recipe("digits").classifier_epochs
    expected = [
        ([], {}, [], preset),
        (["--config", config], {}, [], 11),
        (["--config", config], variables, [], 22),
        (["--config", config], variables, flags, 33),
        ([], variables, flags, 33),
    ]
    for settings, env, given, epochs in expected:
        result = cli("run", "--dataset", "digits", *settings, *given, **env)
        assert result.exit_code == 0, result.stderr
        call = pipeline_calls[-1]
        assert call.recipe.classifier_epochs == epochs == call.config["classifier_epochs"]
        assert call.recipe.classifier_batch_size == (64 if env else 32)
        assert call.seed == (5 if settings else 0)


def test_an_option_of_many_is_a_list_in_a_file(cli, pipeline_calls: Calls, file) -> None:
    lines = 'dataset = "digits"\ndefense = "trades"\ndefense-options = ["eps=8/255", "beta=2"]'
    result = cli("run", "--config", file(lines))
    assert result.exit_code == 0, result.stderr
    assert (pipeline_calls[-1].defense.eps, pipeline_calls[-1].defense.beta) == (8 / 255, 2)
    result = cli("run", "--config", file('dataset = "digits"\ndefense-options = "eps=1"'))
    assert result.exit_code == 2 and "must be a list of strings" in result.stderr


def test_the_order_of_the_flags_does_not_matter(cli, pipeline_calls: Calls, file) -> None:
    lines = 'dataset = "digits"\nseed = 5\ndefense = "bcgan"\nn = 70\neps = "8/255"'
    config = file(lines)
    for flags in (["--config", config, "--seed", "9"], ["--seed", "9", "--config", config]):
        assert cli("run", *flags).exit_code == 0
        call = pipeline_calls[-1]
        assert (call.seed, call.recipe.n, call.eps) == (9, 70, 8 / 255)


def test_every_kind_of_setting_comes_through(cli, pipeline_calls: Calls) -> None:
    flags = "--dataset digits --preset paper --eps 8/255 --suite plus --n 50 --devices 2"
    flags += " --defense bcgan --architecture resnet18 --dtype float32"
    result = cli("run", *flags.split(), BCGAN_TF_ORACLE_EPOCHS="3")
    assert result.exit_code == 0, result.stderr
    call = pipeline_calls[-1]
    assert (call.eps, call.recipe.suite, call.recipe.n) == (8 / 255, "plus", 50)
    assert call.recipe.dtype == "float32"
    assert call.recipe.oracle_epochs == 3 and call.devices == 2
    assert call.recipe.classifier_epochs == recipe("digits", "paper").classifier_epochs
    assert str(call.saved_models_dir) == "saved_models" and call.classifier is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gan_epoch = 3", "no option of `run` is named gan_epoch;"),
        ("[run]\nseed = 3", "named run;"),
        ("config = 'x'", "named config;"),
        ("seed = 1.5", "seed must be an integer, not 1.5"),
        ("seed = true", "seed must be an integer, not True"),
        ("seed = '3'", "seed must be an integer, not '3'"),
        ("threshold = 'high'", "--threshold is 'high'; choose a number from 0"),
        ("deterministic = 1", "deterministic must be true or false, not 1"),
        ("dataset = 3", "dataset must be a string, not 3"),
        ("seed = -1", "--seed is -1; choose a whole number from 0 to"),
        ("eps = 'a'", "--eps is 'a'; choose a number from 0"),
        ("seed = ", "no readable TOML file"),
    ],
)
def test_a_wrong_file_is_a_usage_error(cli, pipeline_calls: Calls, file, text, words) -> None:
    result = cli("run", "--dataset", "digits", "--config", file(text))
    assert result.exit_code == 2
    assert words in result.stderr.splitlines()[-1]
    assert not pipeline_calls and result.stdout == ""


def test_a_missing_file_is_a_usage_error(cli) -> None:
    result = cli("run", "--config", "nowhere.toml")
    assert result.exit_code == 2 and "nowhere.toml is no readable TOML file" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--dataset", "digits", "--seed", "x"],
        ["run", "--dataset", "digits", "--eps", "1/0"],
        ["run", "--dataset", "digits", "--devices", "0"],
        ["run", "--dataset", "digits", "--preset", "huge"],
        ["run", "--dataset", "digits", "--resume"],
        ["run", "--dataset", "digits", "--gan-epochs", "3"],
        ["harden", "--dataset", "digits"],
        ["harden", "--dataset", "digits", "--classifier", "a.keras", "--defense", "magic"],
        ["attack", "--dataset", "digits"],
        ["melt"],
    ],
)
def test_wrong_usage_exits_with_2(cli, pipeline_calls: Calls, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Usage: ") and result.stdout == ""
    assert not pipeline_calls


def test_files_and_variables_know_the_names_of_the_flags(cli, pipeline_calls: Calls, file) -> None:
    """``--option`` and ``--json`` too, whose values are called otherwise within."""
    flags = ["--dataset", "digits"]
    text = 'json = true\noption = ["eps=0.1", "epochs=9"]'
    for settings, env in (
        (["--config", file(text)], {}),
        ([], {"BCGAN_TF_JSON": "1", "BCGAN_TF_OPTION": "eps=0.1 epochs=9"}),
    ):
        result = cli("run", *flags, *settings, **env)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith("{")
        assert (pipeline_calls[-1].defense.eps, pipeline_calls[-1].defense.epochs) == (0.1, 9)


@pytest.mark.parametrize(
    ("command", "given", "status", "words"),
    [
        ("harden", ["-o", "learning_rate=-1"], 1, "learning_rate is -1.0; choose"),
        ("run", ["-o", "learning_rate=nan", "-o", "epochs=0"], 1, "is nan.* epochs is 0"),
        ("harden", ["--defense", "distillation", "-o", "temperature=1e20"], 1, "temperature is"),
        ("harden", ["--defense", "bcgan", "-o", "beta=-1"], 1, "beta is -1.0; choose"),
        ("run", ["--defense", "bcgan", "-o", "dropout=inf"], 1, "dropout is inf"),
        ("train", ["--threshold", "nan"], 2, "--threshold is nan"),
        ("train", ["--threshold", "0.3"], 1, "small_cnn has no threshold"),
        ("train", ["--architecture-width", "0.5"], 1, "small_cnn has no architecture_width"),
        ("train", ["--architecture-width", "1e400"], 2, "--architecture-width is inf"),
        ("train", ["--architecture", "huge"], 2, "'huge' is not one of"),
        ("train", ["--architecture=resnet18", "--architecture-width=0.002"], 1, "width is 0.002"),
        ("train", ["--seed", "9" * 30, "--devices", "0"], 2, "--seed is 99"),
        ("harden", ["-o", "eps=0.1", "-o", "eps=0.2"], 2, "eps is given twice"),
        ("harden", ["-o", "eps=", "-o", "steps"], 2, "'eps=' is no NAME=VALUE.*'steps' is no"),
        ("harden", ["--oracle-epochs", "1"], 2, "nothing reads --oracle-epochs with --defense pgd"),
        ("run", ["--classifier", "classifier.keras", "--threshold", "0"], 2, "reads --threshold"),
        ("train", ["--run-dir", ""], 2, "the path is empty"),
        ("train", ["--run-dir", "a\0b"], 2, "is no path of printable characters"),
        ("train", ["--config", "a\nb"], 2, "is no path of printable characters"),
        ("run", ["--saved-models", "\udcff"], 2, "is no path of printable characters"),
    ],
)  # fmt: skip
def test_nonsense_leaves_no_folder(
    cli, pipeline_calls: Calls, model_file: Path, command: str, given, status: int, words: str
) -> None:
    """The corrected command can use the folder; nothing was trained."""
    folder = [] if "--run-dir" in given else ["--run-dir", "a"]
    model = ["--classifier", "classifier.keras"] if command == "harden" else []
    result = cli(command, "--dataset", "digits", *model, *folder, *given)
    assert result.exit_code == status, result.output
    assert re.search(words, result.stderr.splitlines()[-1]), result.stderr
    assert not pipeline_calls and not Path("a").exists() and not Path("runs").exists()


def test_all_wrong_numbers_are_named_at_once(cli, pipeline_calls: Calls, file) -> None:
    given = ["--seed", "-1", "--config", file('oracle_epochs = 0\neps = "8/0"')]
    variables = {"BCGAN_TF_THRESHOLD": "many", "BCGAN_TF_N": "-2"}
    result = cli("run", "--dataset", "digits", *given, **variables)
    assert result.exit_code == 2 and not pipeline_calls
    for part in (
        "--seed is -1;", "--oracle-epochs is 0;", "--eps is '8/0';", "--threshold is 'many';",
        "--n is -2;",
    ):  # fmt: skip
        assert part in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"dataset = 'a\x00b'", "no readable TOML file"),
        (b'dataset = "a\\u0000b"', "dataset is 'a\\x00b'; give a text"),
        (b'saved_models = "a\\u0000b"', "is no path"),
        (b'defense_options = ["eps=\\u0000"]', "defense_options is 'eps=\\x00'; give a text"),
        (b"defense_options = [[1]]", "defense_options must be a list of strings"),
        (b"seed = " + b"[" * 5000 + b"]" * 5000, "no readable TOML file"),
        (b"seed = " + b"9" * 5000, "no readable TOML file"),
        (b"dataset = '\xff'", "no readable TOML file"),
    ],
)
def test_odd_files_are_a_usage_error(cli, pipeline_calls: Calls, text: bytes, words: str) -> None:
    Path("odd.toml").write_bytes(text)
    flags = [] if text.startswith(b"dataset") else ["--dataset", "digits"]
    result = cli("run", *flags, "--config", "odd.toml")
    assert result.exit_code == 2, result.output
    assert words in result.stderr.splitlines()[-1] and not pipeline_calls


def test_a_figure_without_data_refuses_the_options_of_data(cli) -> None:
    result = cli("reproduce", "figure2", "--dataset", "mnist", "--rows", "original")
    assert result.exit_code == 2 and "figure2 has no --dataset, --rows" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("attack classifier.keras --dataset digits --control", "control is ''"),
        ("reproduce table1 --dataset digits --rows", "rows is ''"),
        ("export classifier.keras --class-names", "class_names is ''"),
        ("export classifier.keras --class-names 0,1,1", "give each class a name"),
        ("export classifier.keras --class-names 0,,1", "give each class a name"),
        ("export classifier.keras --seed 99999999999", "--seed is 99999999999; choose a whole"),
        ("train --dataset", "dataset is ''"),
    ],
)
def test_empty_and_repeated_texts(cli, pipeline_calls: Calls, model_file, arguments, words) -> None:
    """An empty text is no way to leave an option out."""
    given = arguments.split()
    result = cli(*given, *([] if "export" in given and len(given) > 3 else [""]))
    assert result.exit_code == 2 and words in result.stderr.splitlines()[-1], result.output
    assert not pipeline_calls
