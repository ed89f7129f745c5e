"""Side by side stands only what may be compared, and what may not is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.report import comparison, comparison_page
from bcgan_tf.report.comparison import columns_of
from bcgan_tf.runs.directory import RunDirectory

DIGEST = "0123"


def run(
    path: Path,
    models: dict[str, Any],
    *,
    dataset: str = "mnist",
    worst_case: dict[str, np.ndarray] | None = None,
    data: str = DIGEST,
) -> RunDirectory:
    config = {"dataset": dataset, "seed": 7}
    with RunDirectory.create(path, "attack", config, command_line=f"attack {path.name}") as made:
        made.write_metrics({"dataset": dataset, "models": models})
        for name, survived in (worst_case or {}).items():
            evaluation = models[name]["evaluations"][0]
            told = {key: evaluation[key] for key in ("eps", "norm", "suite")}
            np.savez(
                path / f"evaluation-{name}.npz",
                labels=np.zeros(len(survived), int),
                worst_case=survived,
                settings=np.array(json.dumps({**told, "identity": {"data": data}})),
            )
    return RunDirectory.open(path)


def survivors(count: int) -> np.ndarray:
    return np.arange(500) < count


@pytest.fixture
def pair(tmp_path: Path, make: SimpleNamespace) -> list[RunDirectory]:
    """Two runs, measured alike on the same images: 350 and 440 of 500 survive."""
    weak, strong = make.evaluated(robust=0.70), make.evaluated(robust=0.88)
    return [
        run(tmp_path / "x", {"net": make.entry(weak)}, worst_case={"net": survivors(350)}),
        run(tmp_path / "y", {"net": make.entry(strong)}, worst_case={"net": survivors(440)}),
    ]


def table(columns: Any) -> dict[str, list[str]]:
    rows = comparison.table(columns).rows
    return {str(row.cells[0]): [str(cell) for cell in row.cells[1:]] for row in rows}


def test_runs_measured_alike_are_compared(pair: list[RunDirectory]) -> None:
    columns = columns_of(pair)
    assert [column.title for column in columns] == ["x: net", "y: net"]
    assert comparison.differences(columns) == comparison.remarks(columns) == []
    assert comparison.gains(columns) == [
        "y: net against x: net: robust accuracy 88.0 % instead of 70.0 % (+18.0 points), more than "
        "chance can explain (on the same images: 90 gained, 0 lost)."
    ]
    rows = table(columns)
    assert rows["verdict"] == ["Robust", "Robust"]
    assert rows["robust accuracy, worst case"] == ["70.0 % (66.9 to 72.6)", "88.0 % (84.9 to 90.6)"]
    assert rows["left after APGD-CE"] == ["90.0 % (87.1 to 92.3)"] * 2
    assert rows["red flags, notices"] == ["convergence"] * 2
    assert rows["red flags, evidence"] == ["none"] * 2
    assert rows["checks not run"] == ["transfer"] * 2
    assert rows["seeds"] == ["7", "7"] and rows["images"] == ["500", "500"]


@pytest.mark.parametrize(
    ("lost", "gained", "words"),
    [(0, 5, "no more than chance"), (0, 6, "more than chance"), (0, 0, "no more than chance"),
     (40, 52, "no more than chance"), (52, 30, "more than chance")],
)  # fmt: skip
def test_chance_is_told_from_effect(
    tmp_path: Path, make: SimpleNamespace, lost: int, gained: int, words: str
) -> None:
    """McNemar's exact test at 5 %."""
    before, after = survivors(400), survivors(400)
    after[:lost], after[400 : 400 + gained] = False, True
    runs = [
        run(tmp_path / name, {name: make.entry(make.evaluated())}, worst_case={name: survived})
        for name, survived in (("a", before), ("b", after))
    ]
    (sentence,) = comparison.gains(columns_of(runs))
    assert f", {words} can explain (on the same images: {gained} gained, {lost} lost)" in sentence


def test_results_without_a_run_are_compared(make: SimpleNamespace) -> None:
    columns = [
        comparison.Column(name, name, make.evaluated(robust=share), survivors(count), DIGEST)
        for name, share, count in (("plain", 0.70, 350), ("hardened", 0.88, 440))
    ]
    lines = str(comparison.Comparison.of(columns)).splitlines()
    assert lines[0].split() == ["plain", "hardened"]
    assert lines[1].split() == ["verdict", "Robust", "Robust"]
    assert lines[-1].endswith("(on the same images: 90 gained, 0 lost).")


def test_without_the_arrays_the_intervals_are_compared(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    shares = {"a": 0.70, "b": 0.72, "c": 0.88}
    runs = [
        run(tmp_path / name, {name: make.entry(make.evaluated(robust=share))})
        for name, share in shares.items()
    ]
    columns = columns_of(runs)
    near, far = comparison.gains(columns)
    assert "their 95 % intervals overlap: it may be chance" in near
    assert "their 95 % intervals do not overlap" in far
    assert comparison.remarks(columns) == [
        "Whether the images are the same is not known: no readable evaluation-*.npz of a, b, c."
    ]


def test_no_number_is_compared_that_no_verdict_vouches_for(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    runs = [
        run(tmp_path / "x", {"a": make.entry(make.evaluated(robust=0.70))}),
        run(tmp_path / "y", {"b": make.entry(make.masked(0.95))}),
    ]
    columns = columns_of(runs)
    (sentence,) = comparison.gains(columns)
    assert sentence.endswith("since no verdict vouches for that of b.") and "points" not in sentence
    rows = table(columns)
    assert rows["robust accuracy, worst case"][1] == "at most 95.0 % (91.9 to 97.6)"
    assert rows["red flags, evidence"] == ["none", "logit scale"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps": 0.1}, "Different threat models: Linf eps 0.3 (a); Linf eps 0.1 (b)"),
        ({"norm": "l2"}, "Different threat models: Linf eps 0.3 (a); L2 eps 0.3 (b)"),
        ({"n": 1000}, "Different numbers of images: 500 (a); 1,000 (b)"),
        ({"suite": "paper"}, "Different suites: standard (a); paper (b)"),
        ({"samples": 20}, "Different calls of the model that were averaged: 1 (a); 20 (b)"),
        (
            {"precision": "bfloat16"},
            "Different precisions of the search: float32 (a); bfloat16 (b)",
        ),
        ({"shard": "1/2"}, "Different shards: all (a); 1/2 (b)"),
    ],
)
def test_what_was_not_measured_alike_is_said(
    tmp_path: Path, make: SimpleNamespace, changes: dict[str, Any], words: str
) -> None:
    runs = [
        run(tmp_path / "x", {"a": make.entry(make.evaluated())}),
        run(tmp_path / "y", {"b": make.entry(make.evaluated(robust=0.99, **changes))}),
    ]
    columns = columns_of(runs)
    (found,) = comparison.differences(columns)
    assert found.startswith(words)
    assert comparison.gains(columns) == []
    page = comparison_page.write_comparison(columns, tmp_path / "out").read_text()
    assert "cannot be compared number by number" in page
    assert "against a:" not in page


def test_other_images_and_other_attack_settings_are_said(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    other = make.evaluated()
    other["attacks"][0]["config"] = {**other["attacks"][0]["config"], "steps": 5}
    runs = [
        run(tmp_path / "x", {"a": make.entry(make.evaluated())}, worst_case={"a": survivors(440)}),
        run(
            tmp_path / "y", {"b": make.entry(other)}, worst_case={"b": survivors(440)}, data="4567"
        ),
    ]
    found = comparison.differences(columns_of(runs))
    assert [sentence.split(" ")[:3] for sentence in found] == [
        ["The", "images", "are"], ["The", "attacks", "or"],
    ]  # fmt: skip
    # Neither the batch size nor the seed changes what an attack is.
    same = make.evaluated()
    same["attacks"][0]["config"] = {**same["attacks"][0]["config"], "batch_size": 9, "seed": 1}
    runs[1] = run(tmp_path / "z", {"b": make.entry(same)})
    assert comparison.differences(columns_of(runs)) == []


def test_different_data_sets_are_refused(tmp_path: Path, make: SimpleNamespace) -> None:
    runs = [
        run(tmp_path / "x", {"a": make.entry(make.evaluated())}),
        run(tmp_path / "y", {"b": make.entry(make.evaluated())}, dataset="cifar10"),
    ]
    with pytest.raises(UserError, match=r"different data sets \(mnist in .*x; cifar10 in .*y\)"):
        columns_of(runs)


def test_runs_without_an_evaluation_and_twins_are_refused(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    good = run(tmp_path / "x", {"a": make.entry(make.evaluated())})
    trained = run(tmp_path / "y", {"a": {"clean_accuracy": 0.98}})
    with pytest.raises(UserError, match="y holds no evaluation to compare; make one with"):
        columns_of([good, trained])
    with pytest.raises(UserError, match="x was given twice"):
        columns_of([good, good])


def test_titles_tell_every_column_apart(tmp_path: Path, make: SimpleNamespace) -> None:
    far, near = make.evaluated(), make.evaluated(eps=0.1)
    for number, (models, titles) in enumerate(
        (
            ([{"a": make.entry(far)}, {"b": make.entry(far)}], ["a", "b"]),
            ([{"a": make.entry(far, near)}], ["a, Linf eps 0.3", "a, Linf eps 0.1"]),
            ([{"a": make.entry(far)}, {"a": make.entry(far)}], ["r0: a", "r1: a"]),
            (
                [{"a": make.entry(far, near)}, {"a": make.entry(far)}],
                ["r0: a, Linf eps 0.3", "r0: a, Linf eps 0.1", "r1: a, Linf eps 0.3"],
            ),
        )
    ):
        folder = tmp_path / str(number)
        runs = [run(folder / f"r{i}", found) for i, found in enumerate(models)]
        assert [column.title for column in columns_of(runs)] == titles
    # Two folders of one name.
    twins = [run(tmp_path / f / "r", {"a": make.entry(far)}) for f in ("p", "q")]
    assert len({column.title for column in columns_of(twins)}) == 2


def test_the_page_stands_alone(tmp_path: Path, pair: list[RunDirectory]) -> None:
    metrics = pair[0].metrics()
    metrics["models"]["<b>net</b>"] = metrics["models"].pop("net")
    metrics["models"]["<b>net</b>"]["evaluations"][0]["curve"] = [[0.0, 0.98], [0.5, 0.1]]
    pair[0].write_metrics(metrics)
    columns = columns_of(pair)
    page = comparison_page.write_comparison(columns, tmp_path / "deep" / "er")
    assert page == tmp_path / "deep" / "er" / "comparison.html"
    content = page.read_text(encoding="utf-8")
    assert "Comparison: mnist" in content and "attack x" in content and "attack y" in content
    assert "<b>" not in content and "&lt;b&gt;net&lt;/b&gt;" in content
    assert "http" not in content and "<script" not in content and "url(" not in content
    assert content.count("<img") == content.count('src="data:image/png;base64,') == 1
    assert [f.name for f in page.parent.iterdir()] == ["comparison.html"]


def test_where_the_page_goes(tmp_path: Path, pair: list[RunDirectory]) -> None:
    columns = columns_of(pair)
    named = tmp_path / "mine.html"
    assert comparison_page.write_comparison(columns, named) == named
    assert comparison_page.write_comparison(columns, named) == named  # anew
    precious = tmp_path / "model.keras"
    precious.write_text("weights")
    with pytest.raises(UserError, match=r"model\.keras is a file of another kind"):
        comparison_page.write_comparison(columns, precious)
    assert precious.read_text() == "weights"
    assert comparison_page.page_path(None) == Path("comparison.html")


def test_the_summary_is_json(pair: list[RunDirectory]) -> None:
    content = json.loads(json.dumps(comparison.summary(columns_of(pair)), allow_nan=False))
    assert [c["robust_accuracy"] for c in content["columns"]] == [0.70, 0.88]
    assert content["columns"][0]["flags"] == ["convergence"]
    assert content["columns"][1]["title"] == "y: net" and content["differences"] == []


def test_certificates_are_a_row_where_there_is_one(tmp_path: Path, make: SimpleNamespace) -> None:
    label = "certified, whatever the attack"
    proof = {"accuracy": 0.8, "interval95": [0.76, 0.83], "n": 500, "method": "interval bounds"}
    models = {
        "proved": make.entry(make.evaluated(certified=proof)),
        "net": make.entry(make.evaluated()),
    }
    found = table(columns_of([run(tmp_path / "x", models)]))
    assert found[label] == ["80.0 % (76.0 to 83.0)", "none"]
    assert label not in table(columns_of([run(tmp_path / "y", {"net": models["net"]})]))
