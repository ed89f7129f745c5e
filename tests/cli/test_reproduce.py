"""``bcgan-tf reproduce``: what it asks for, and its one-line errors; the work is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bcgan_tf.reproduction import pictures, tables


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    found: list[SimpleNamespace] = []

    def reproduce_table(table, workspace, protocol, rows, **options):
        found.append(
            SimpleNamespace(
                table=table, workspace=workspace, protocol=protocol, rows=rows, **options
            )
        )
        rho = {name: {"mean": 0.125} for name in ("rho_fgsm", "rho_multi", "rho_best")}
        return {
            "table": table,
            "dataset": "digits",
            "preset": workspace.preset,
            "rows": {"original": {"rho": rho}},
        }

    def figure(*arguments, **options):
        found.append(SimpleNamespace(arguments=arguments, **options))
        return Path("docs/results/figure.md")

    monkeypatch.setattr(tables, "reproduce_table", reproduce_table)
    monkeypatch.setattr(pictures, "figure2", figure)
    monkeypatch.setattr(pictures, "figure4", figure)
    return found


def test_a_table_with_everything_said(cli, calls) -> None:
    line = "reproduce table2 --dataset digits --preset paper --rows bcgan,original --cache c"
    others = "--results r --seed 3 --devices 2 -o rho-n=7 -o defended-rho-n=20"
    result = cli(*line.split(), *others.split())
    assert result.exit_code == 0, result.stderr
    (call,) = calls
    assert (call.table, call.rows, call.results) == ("table2", ("bcgan", "original"), Path("r"))
    workspace = call.workspace
    assert (workspace.data.name, workspace.preset, workspace.seed) == ("digits", "paper", 3)
    assert (workspace.cache, workspace.devices) == (Path("c"), 2)
    assert (call.protocol.rho_n, call.protocol.defended_rho_n) == (7, 20)
    assert call.command == (
        "bcgan-tf reproduce table2 --dataset digits --preset paper --seed 3"
        " -o rho_n=7 -o defended_rho_n=20"
    )
    assert "0.125" in result.stdout and "r/table2-digits-paper.md" in result.stdout


def test_a_setting_can_be_a_fraction(cli, calls) -> None:
    result = cli("reproduce", "table1", "--dataset", "digits", "-o", "eps=8/255", "--json")
    assert result.exit_code == 0, result.stderr
    (call,) = calls
    assert call.protocol.eps == 8 / 255 and call.command.endswith(" --seed 0 -o eps=8/255")


def test_the_defaults(cli, calls) -> None:
    result = cli("reproduce", "table2", "--dataset", "digits", "--json")
    assert json.loads(result.stdout)["rows"]["original"]["rho"]["rho_best"] == {"mean": 0.125}
    (call,) = calls
    assert call.rows == () and call.results == Path("docs/results")
    assert call.workspace.cache == Path("runs/reproduce") and call.workspace.preset == "quick"


def test_figures(cli, calls) -> None:
    assert cli("reproduce", "figure2", "--seed", "1").exit_code == 0
    figure4 = ("reproduce", "figure4", "--dataset", "digits")
    assert cli(*figure4, "--rows", "original,bcgan").exit_code == 0
    assert cli(*figure4).exit_code == 0
    first, second, third = calls
    assert first.arguments == (Path("docs/results"), Path("runs/reproduce"), 1)
    assert first.command == "bcgan-tf reproduce figure2 --seed 1"
    assert second.arguments[1:] == (Path("docs/results"), ("original", "bcgan"))
    assert third.arguments[1:] == (Path("docs/results"),)  # the figure's own choice of rows


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("table3 --dataset digits", 2, "'table3' is not one of"),
        ("table1", 2, "table1 needs --dataset"),
        ("table1 --dataset gaussians", 1, "no data set 'gaussians'; choose one of mnist"),
        ("table1 --dataset digits --rows original,magic", 1, "no row 'magic'; choose from"),
        ("table1 --dataset digits -o many=3", 1, "no setting 'many'; it has pgd_steps"),
        ("table1 --dataset digits --rows foo,bar", 1, "no row 'foo', 'bar'; choose from original"),
        ("table1 --dataset digits -o rho_n=5", 1, "table1 has no setting 'rho_n'; it has pgd"),
        ("table2 --dataset digits -o defended_n=20", 1, "table2 has no setting 'defended_n'"),
        ("table2 --dataset digits -o cw_n=5", 1, "table2 has no setting 'cw_n'; it has rho_n"),
        (
            "table1 --dataset digits -o defended_n=9",
            1,
            "defended_n is 9; choose a whole number from 10",
        ),
        ("authors --weights x -o defended_n=20", 1, "authors has no setting 'defended_n'"),
        ("ablation --dataset mnist --rows a,b", 1, "no defense 'a', 'b'; choose from bcgan-at"),
        ("table1 --dataset digits -o many", 2, "no NAME=VALUE"),
        ("figure4 --dataset digits -o n=3", 2, "figure4 has no --option; leave it out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, calls, line: str, code: int, words: str) -> None:
    result = cli("reproduce", *line.split())
    assert result.exit_code == code and words in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert code == 2 or result.stderr.count("\n") == 1
    assert not calls


def test_a_table_of_digits_from_end_to_end(cli, monkeypatch, tmp_path: Path) -> None:
    """Everything is real but the training: the suite, the diagnosis, and both files."""
    import keras

    def trained(workspace, row):
        with workspace.open_run("train", row, {"epochs": 5}) as run:
            file = run.path / "classifier.keras"
            if not run.stage_done("train"):
                keras.utils.set_random_seed(0)
                layers = [keras.layers.Flatten(), keras.layers.Dense(64, "relu")]
                model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10)])
                model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
                train = workspace.data.train
                model.fit(train.scaled(), train.labels, epochs=5, verbose=0)
                model.save(file)
                run.finish_stage("train")
            return file

    monkeypatch.setattr(tables, "trained", trained)
    sizes = "-o n=30 -o cw_n=10 -o cw_steps=60 -o cw_search_steps=6 -o standard_n=12 -o eps=0.5"
    line = f"reproduce table1 --dataset digits --rows original {sizes} --json"
    result = cli(*line.split())
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["rows"]["original"]
    assert found["standard"]["n"] == 12 and len(found["standard"]["attacks"]) == 4
    assert found["standard"]["accuracy"] == 0 < found["standard"]["clean_accuracy"]
    assert found["clean"]["n"] == 360 and found["clean"]["accuracy"] > 0.8
    assert found["cw"]["accuracy"] == 0
    page = (tmp_path / "docs/results/table1-digits.md").read_text()
    assert found["standard"]["verdict"]["text"] in page
    again = cli(*line.split())
    assert json.loads(again.stdout)["rows"]["original"] == found


@pytest.mark.parametrize(
    "line",
    [
        "table1 --dataset digits --rows magic -o many=3 -o n=-1",
        "refinement --dataset mnist --rows magic -o many=3 -o pgd_n=-1",
        "ablation --dataset mnist --rows magic -o many=3 -o n=-1",
        "audit --dataset mnist --rows magic -o many=3 -o pgd_steps=-1",
    ],
)
def test_all_faults_are_in_one_message(cli, calls, line: str) -> None:
    result = cli("reproduce", *line.split())
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and not calls
    for words in ("'magic'; choose from", "no setting 'many'", "-1; choose a whole number"):
        assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["authors"], "authors needs --weights"),
        (["authors", "--weights", "x", "--rows", "bcgan"], "authors has no --rows"),
        (["table1", "--dataset", "digits", "--weights", "x"], "table1 has no --weights"),
        (["audit", "--dataset", "digits", "--protocol", "authors"], "audit has no --protocol"),
        (["refinement", "--dataset", "mnist", "--preset", "paper"], "refinement has no --preset"),
    ],
)
def test_what_a_target_does_not_read_is_refused(cli, arguments, message):
    result = cli("reproduce", *arguments)
    assert result.exit_code == 2 and message in result.stderr
