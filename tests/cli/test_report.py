"""``bcgan-tf report``: one run's page anew, several runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bcgan_tf.runs.directory import RunDirectory


def evaluation(robust: float, eps: float = 0.3) -> dict[str, Any]:
    return {
        "suite": "standard",
        "eps": eps,
        "norm": "linf",
        "n": 500,
        "clean_accuracy": 0.98,
        "clean_interval95": [0.96, 0.99],
        "robust_accuracy": robust,
        "robust_interval95": [robust - 0.03, robust + 0.03],
        "attacks": [
            {"attack": "APGD-CE", "config": {"seed": 0}, "attacked": 490, "broken": 50, "left": 0.9}
        ],
        "verdict": {"kind": "robust", "text": "robust"},
    }


@pytest.fixture
def runs(cli, tmp_path: Path) -> list[str]:
    """Runs a, b and c in the working directory; c is of another data set."""
    for name, robust, dataset in (("a", 0.5, "mnist"), ("b", 0.88, "mnist"), ("c", 0.1, "digits")):
        with RunDirectory.create(tmp_path / name, "attack", {"dataset": dataset}) as run:
            model = {"clean_accuracy": 0.98, "evaluations": [evaluation(robust)]}
            run.write_metrics({"dataset": dataset, "models": {f"net-{name}": model}})
    return ["a", "b", "c"]


def test_one_run_is_reported_anew(cli, runs: list[str]) -> None:
    result = cli("report", "b")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "report  b/report.html\n" and result.stderr == ""
    page = Path("b/report.html")
    assert "net-b" in page.read_text()
    page.write_text("old")
    found = json.loads(cli("report", "b", "--json").stdout)
    assert found == {"report": "b/report.html", "run": "b"} and "net-b" in page.read_text()
    assert not Path("comparison.html").exists()


def test_several_runs_stand_side_by_side(cli, runs: list[str]) -> None:
    result = cli("report", "a", "b")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any("net-a" in line and "net-b" in line for line in lines)
    cells = next(line for line in lines if "worst case" in line)
    assert "50.0 % (47.0 to 53.0)" in cells and "88.0 % (85.0 to 91.0)" in cells
    (gain,) = [line for line in lines if line.startswith("net-b against net-a")]
    assert "+38.0 points" in gain and "do not overlap" in gain
    assert lines[-1] == "comparison  comparison.html"
    assert "net-a" in Path("comparison.html").read_text()
    # The runs' own files are left alone.
    assert not Path("a/report.html").exists()


def test_the_comparison_goes_where_it_is_wanted(cli, runs: list[str]) -> None:
    for out, page in (("out", "out/comparison.html"), ("x/y.html", "x/y.html")):
        found = json.loads(cli("report", "a", "b", "--out", out, "--json").stdout)
        assert found["report"] == page and Path(page).is_file()
        assert [column["title"] for column in found["columns"]] == ["net-a", "net-b"]
    assert cli("report", "a", "--out", "alone.html").exit_code == 0
    assert "net-a" in Path("alone.html").read_text()


def test_what_differs_is_printed(cli, runs: list[str]) -> None:
    run = RunDirectory.open("b")
    model = {"clean_accuracy": 0.98, "evaluations": [evaluation(0.88, eps=0.1)]}
    run.write_metrics({"dataset": "mnist", "models": {"[bold]": model}})
    result = cli("report", "a", "b")
    assert result.exit_code == 0
    assert "Not alike: Different threat models: Linf eps 0.3 (net-a); Linf eps 0.1 ([bold])" in (
        result.stdout
    )
    assert "points" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "c"], "different data sets (mnist in a; digits in c)"),
        (["a", "a"], "a was given twice"),
        (["nowhere"], "nowhere holds no run"),
        (["a", "b", "--out", "precious.txt"], "precious.txt is a file of another kind"),
        (["a", "empty"], "empty holds no evaluation to compare"),
    ],
)
def test_wrong_input_is_one_line(cli, runs: list[str], arguments: list[str], words: str) -> None:
    Path("precious.txt").write_text("mine")
    RunDirectory.create("empty", "train", {"dataset": "mnist"}).close()
    result = cli("report", *arguments)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr
    assert Path("precious.txt").read_text() == "mine"
