"""Tables row by row: nothing is measured twice, what failed is left out, what is there stays."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from bcgan_tf import files
from bcgan_tf.data import load_dataset
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import measures, tables
from bcgan_tf.reproduction.protocol import protocol
from bcgan_tf.reproduction.tables import reproduce_table
from bcgan_tf.reproduction.workspace import Workspace
from helpers.workers import InThisProcess

SMALL = protocol(
    "digits",
    options={"n": 20, "cw_n": 5, "cw_steps": 5, "cw_search_steps": 2, "standard_n": 10, "rho_n": 3},
)
ROWS = ("original", "pgd-at", "trades")
COMMAND = "bcgan-tf reproduce table1 --dataset digits --preset quick --seed 0"


@pytest.fixture
def assessed(monkeypatch) -> list[Any]:
    """The calls of the suite, which is not run: its answer is made up, and the same each time."""
    calls: list[Any] = []

    def evaluate_models(run, data, models, settings, *, surrogate, control, progress):
        del run, data, progress
        calls.append(SimpleNamespace(row=next(iter(models)), control=control, surrogate=surrogate))
        judged = {"kind": "not robust", "text": "not robust: 0.0 % (0.0 to 27.8)"}
        entry = {
            "eps": settings.eps,
            "robust_accuracy": 0.0,
            "robust_interval95": [0.0, 0.278],
            "clean_accuracy": 0.9,
            "n": settings.n,
            "attacks": [{"attack": "APGD-CE", "left": 0.0, "seconds": 0.5}],
            "verdict": judged,
            "diagnosis": {"flags": [{"check": "transfer", "raised": False}]},
        }
        return {"models": {name: {"evaluations": [entry]} for name in models}}

    monkeypatch.setattr(measures, "evaluate_models", evaluate_models)
    return calls


@pytest.fixture
def attacked(monkeypatch) -> list[str]:
    """The attacks asked for, which are not run either."""
    names: list[str] = []

    def run_suite(task, attacks, *, state, progress):
        del progress
        state.mkdir()
        (attack,) = attacks
        names.append(attack.name)
        found = {
            "attack": attack.name,
            "config": attack.config(),
            "robust_accuracy": 0.25,
            "interval95": [0.1, 0.4],
            "n": task.n,
            "l2": {"mean": 1.5},
            "seconds": 0.1 * task.eot_samples,
        }
        return SimpleNamespace(to_dict=lambda: {"attacks": [found]})

    monkeypatch.setattr(measures, "run_suite", run_suite)
    return names


@pytest.fixture
def reproduce(workspace, trained, assessed, attacked, tmp_path):
    def run(rows=ROWS, table="table1", chosen=SMALL, **changes):
        return reproduce_table(
            table,
            changes.pop("workspace", workspace),
            chosen,
            rows,
            results=changes.pop("results", tmp_path / "results"),
            command=COMMAND,
            **changes,
        )

    return run


def test_a_repeat_measures_nothing(reproduce, assessed, attacked, counted, tmp_path):
    cleans = counted(measures, "clean_accuracy")
    first = reproduce()
    # Three rows, but one file of weights: each has its own runs all the same.
    assert (len(attacked), len(cleans), len(assessed)) == (3 * 6, 3, 3)
    assert [call.row for call in assessed] == list(ROWS)
    assert assessed[0].control is None and assessed[1].control is assessed[1].surrogate is not None
    page = (tmp_path / "results/table1-digits.md").read_text()
    again = reproduce()
    assert (len(attacked), len(cleans), len(assessed)) == (3 * 6, 3, 3)
    assert again == first == json.loads((tmp_path / "results/table1-digits.json").read_text())
    assert (tmp_path / "results/table1-digits.md").read_text() == page == tables.page(first)


def test_workers_measure_each_row_once(reproduce, workspace, monkeypatch, attacked, assessed):
    monkeypatch.setattr(Workspace, "of", lambda **settings: workspace)
    alone = reproduce()
    assert reproduce(workers=InThisProcess()) == alone
    assert len(attacked) == 3 * 6
    measure = tables._MEASURES["table1"]

    def failing(subject):
        if subject.row == "pgd-at":
            raise UserError("no such luck")
        return measure(subject)

    monkeypatch.setitem(tables._MEASURES, "table1", failing)
    with pytest.raises(UserError, match=r"^rows that failed: pgd-at \(no such luck\)$"):
        reproduce(workers=InThisProcess())


def test_a_workspace_is_made_again_elsewhere(tmp_path):
    workspace = Workspace(load_dataset("digits", seed=3), "quick", 3, tmp_path / "cache")
    again = Workspace.of(**pickle.loads(pickle.dumps(workspace.settings)))
    assert again.settings == workspace.settings
    for part in ("train", "test"):
        found = (getattr(one.data, part).labels for one in (workspace, again))
        np.testing.assert_array_equal(*found)


def test_a_kill_costs_one_cell(reproduce, attacked, monkeypatch):
    run_suite = measures.run_suite

    def killed(*arguments, **options):
        if len(attacked) == 3:
            raise KeyboardInterrupt
        return run_suite(*arguments, **options)

    monkeypatch.setattr(measures, "run_suite", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce(["original"])
    monkeypatch.setattr(measures, "run_suite", run_suite)
    reproduce(["original"])
    assert attacked == ["FGSM", "FGSM", "PGD-40", "FGSM", "PGD-40", "CW-L2"]


def test_other_sizes_repeat_only_their_own_cell(reproduce, attacked, tmp_path):
    reproduce(["original"])
    changed = protocol("digits", options={**_sizes(), "cw_n": 6})
    reproduce(["original"], chosen=changed, results=tmp_path / "others")
    assert len(attacked) == 6 + 1


def test_the_table_is_written_after_every_row(reproduce, monkeypatch, tmp_path):
    """The second row is killed: the first is published, with `not run` for the others."""
    measure = tables._MEASURES["table1"]

    def killed(subject):
        if subject.row == "pgd-at":
            raise KeyboardInterrupt
        return measure(subject)

    monkeypatch.setitem(tables._MEASURES, "table1", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce()
    document = json.loads((tmp_path / "results/table1-digits.json").read_text())
    assert list(document["rows"]) == ["original"]
    page = (tmp_path / "results/table1-digits.md").read_text()
    assert sum(line.endswith("| not run | not run |") for line in page.splitlines()) == 7


def test_rows_of_earlier_calls_stay(reproduce, workspace, tmp_path):
    reproduce(["trades"])
    assert list(reproduce(["original"])["rows"]) == ["original", "trades"]  # in the table's order


@pytest.fixture
def others(tmp_path):
    """What another process with the same settings does: gives published rows another figure."""
    file = tmp_path / "results/table1-digits.json"

    def publish(*rows, **changes):
        document = json.loads(file.read_text())
        for row in rows:
            found = document["rows"].get(row, document["rows"]["original"])
            document["rows"][row] = {**found, "clean": {**found["clean"], "n": 7}}
        file.write_text(json.dumps(document | changes))

    return publish


def test_what_another_process_published_meanwhile_is_not_put_back(reproduce, others, monkeypatch):
    """The third row finds those of an earlier call and of this one measured anew elsewhere."""
    reproduce(["trades", "original"])
    measure = tables._MEASURES["table1"]

    def meanwhile(subject):
        if subject.row == "distillation":
            others("trades", "pgd-at")
        return measure(subject)

    monkeypatch.setitem(tables._MEASURES, "table1", meanwhile)
    rows = reproduce(["original", "pgd-at", "distillation"])["rows"]
    assert list(rows) == ["original", "pgd-at", "distillation", "trades"]
    assert [row for row in rows if rows[row]["clean"]["n"] == 7] == ["pgd-at", "trades"]
    # Measured again by this process: its figure is the later one.
    rows = reproduce(["trades"])["rows"]
    assert [row for row in rows if rows[row]["clean"]["n"] == 7] == ["pgd-at"]


def test_another_table_that_took_its_place_is_not_replaced(
    reproduce, others, attacked, monkeypatch, tmp_path
):
    """Nothing is measured in vain: what is measured is in the cache."""
    measure = tables._MEASURES["table1"]

    def meanwhile(subject):
        if subject.row == "pgd-at":
            others("trades", seed=8)
        return measure(subject)

    monkeypatch.setitem(tables._MEASURES, "table1", meanwhile)
    with pytest.raises(UserError, match="seed: 8 there, 0 now"):
        reproduce(["original", "pgd-at"])
    there = json.loads((tmp_path / "results/table1-digits.json").read_text())
    assert there["seed"] == 8 and list(there["rows"]) == ["original", "trades"]
    attacked.clear()
    found = reproduce(["original", "pgd-at"], results=tmp_path / "others")
    assert list(found["rows"]) == ["original", "pgd-at"] and attacked == []


def test_a_table_is_written_by_one_process_at_a_time(
    reproduce, others, publishing, tmp_path, capsys
):
    reproduce(["original"])
    looks = publishing(lambda: others("trades"))
    rows = reproduce(["pgd-at"])["rows"]
    assert list(rows) == ["original", "pgd-at", "trades"] and len(looks) == 2
    assert rows["trades"]["clean"]["n"] == 7
    assert "waiting for the process that works on table1-digits.json" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert names == ["table1-digits.json", "table1-digits.md"]


def test_a_table_of_other_settings_is_kept_and_nothing_is_trained(reproduce, counted, tmp_path):
    reproduce(["trades"])
    files = [tmp_path / f"results/table1-digits.{kind}" for kind in ("json", "md")]
    before = [file.read_bytes() for file in files]
    trainings = counted(tables, "trained")
    other = protocol("digits", options={**_sizes(), "cw_n": 6, "rho_n": 7})
    told = r"table1-digits.json has results of other settings \(cw_n: 5 there, 6 now; rho_n: "
    with pytest.raises(UserError, match=told):
        reproduce(["original"], chosen=other)
    assert trainings == [] and [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("content", ["", "[]", '{"rows"'])
def test_a_damaged_table_is_said_before_the_work(reproduce, counted, tmp_path, content):
    (tmp_path / "results").mkdir()
    file = tmp_path / "results/table1-digits.json"
    file.write_text(content)
    trainings = counted(tables, "trained")
    with pytest.raises(UserError, match="is damaged; remove it, or choose another --results"):
        reproduce(["original"])
    assert trainings == [] and file.read_text() == content


def test_results_that_cannot_be_written_are_said_before_the_work(reproduce, counted, tmp_path):
    (tmp_path / "file").touch()
    trainings = counted(tables, "trained")
    with pytest.raises(UserError, match=r"cannot be written .*choose another --results"):
        reproduce(["original"], results=tmp_path / "file" / "results")
    assert trainings == []


def test_rows_stay_when_the_original_was_trained_anew(reproduce, workspace, trained, linear):
    """On another machine, say: other bytes, the same settings, and each row knows its own."""
    first = reproduce(["pgd-at"])["rows"]["pgd-at"]["original_sha256"]
    shutil.rmtree(workspace.cache)
    trained["original"] = keras.models.clone_model(linear)
    rows = reproduce(["original"])["rows"]
    assert list(rows) == ["original", "pgd-at"]
    assert rows["pgd-at"]["original_sha256"] == first != rows["original"]["original_sha256"]
    assert rows["original"]["original_sha256"] == rows["original"]["model_sha256"]


def test_rows_of_an_original_with_other_settings_are_kept_apart(reproduce, monkeypatch):
    reproduce(["pgd-at"])
    settings = measures.training_settings
    monkeypatch.setattr(measures, "training_settings", lambda file: {**settings(file), "epochs": 4})
    with pytest.raises(UserError, match=r"epochs: .* there, 4 now"):
        reproduce(["original"])


def test_a_row_that_fails_does_not_stop_the_others(reproduce, monkeypatch, tmp_path, capsys):
    train = tables.trained

    def failing(workspace, row):
        if row == "pgd-at":
            raise UserError("its loss is NaN")
        return train(workspace, row)

    monkeypatch.setattr(tables, "trained", failing)
    with pytest.raises(UserError, match=r"rows that failed: pgd-at \(its loss is NaN\)"):
        reproduce()
    document = json.loads((tmp_path / "results/table1-digits.json").read_text())
    assert list(document["rows"]) == ["original", "trades"]
    assert "pgd-at failed: its loss is NaN" in capsys.readouterr().err


def test_each_row_says_where_it_came_from(reproduce, workspace):
    row = reproduce(["original"])["rows"]["original"]
    assert row["training"]["settings"] == {"epochs": 3, "note": None}
    assert row["command"] == COMMAND and len(row["model_sha256"]) == 64
    (machine,) = row["environments"]
    assert {"tensorflow", "keras", "python", "cpu_count"} <= set(machine)
    assert str(workspace.cache) not in json.dumps(row)


def test_table_2_has_three_readings_in_their_order(reproduce, counted, tmp_path):
    searches = counted(measures, "minimum_perturbation")
    rho = reproduce(["original"], "table2")["rows"]["original"]["rho"]
    assert rho["n"] == 3 and rho["norm"] == "linf"
    means = [rho[name]["mean_correct"] for name in ("rho_multi", "rho_best")]
    assert rho["rho_fgsm"]["mean"] >= means[0] >= means[1] > 0
    reproduce(["original"], "table2")
    assert len(searches) == 1
    assert "| Original | - |" in ((tmp_path / "results/table2-digits.md").read_text())


def test_the_row_of_defense_gan_has_its_own_measures(reproduce, monkeypatch):
    from bcgan_tf.reproduction import defended

    parts = {name: {"accuracy": number} for number, name in enumerate(("clean", "attacks", "cw"))}
    box, cost = {"accuracy": 0.5}, {"step_seconds": 1e-3}
    monkeypatch.setattr(defended, "gray_box", lambda subject: parts)
    monkeypatch.setattr(defended, "white_box", lambda subject: box)
    monkeypatch.setattr(defended, "search_cost", lambda subject: cost)
    monkeypatch.setattr(tables, "page", lambda document: "a page")
    found = reproduce(["defense-gan"])["rows"]["defense-gan"]
    assert {**parts, "standard": box, "search_cost": cost}.items() <= found.items()


def test_a_full_disk_is_one_line(reproduce, monkeypatch):
    written = files.move_into_place

    def full(partial: Path, path: Path) -> Path:
        if path.name.startswith("table1"):
            raise OSError(28, "No space left on device")
        return written(partial, path)

    monkeypatch.setattr(files, "move_into_place", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        reproduce(["original"])


def _sizes() -> dict[str, Any]:
    return {name: getattr(SMALL, name) for name in ("n", "cw_n", "cw_steps", "cw_search_steps",
                                                    "standard_n", "rho_n")}  # fmt: skip


def test_the_toy_is_not_a_constant(linear, digits):
    """What the other tests stand on: the linear rows classify, so that attacks have work."""
    right = np.asarray(linear(digits.test.scaled())).argmax(-1) == digits.test.labels
    assert 0.85 < right.mean() < 1
