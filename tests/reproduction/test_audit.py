"""The audit: each way of evaluating on the same network, measured once."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bcgan_tf.cli import main
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import audit as module
from bcgan_tf.reproduction import tables
from bcgan_tf.reproduction.audit import LOGITS, PROBABILITIES, TIMES, TRANSFER, audit
from bcgan_tf.reproduction.audit_page import audit_page, nearest
from bcgan_tf.reproduction.protocol import protocol

SMALL = protocol("digits", options={"cw_steps": 20, "cw_search_steps": 3, "pgd_steps": 10})
COMMAND = "bcgan-tf reproduce audit --dataset digits"


@pytest.fixture
def audited(workspace, trained, monkeypatch, tmp_path):
    """The JSON of an audit of two rows that are one linear network, and how to ask again."""
    del trained
    monkeypatch.setattr(module, "trained", tables.trained)

    def run(rows=("original", "bcgan"), chosen=SMALL, **changes):
        sizes = {"samples": 40, "cw_samples": 4, **changes}
        page = audit(workspace, chosen, rows, results=tmp_path, command=COMMAND, **sizes)
        return json.loads(page.with_suffix(".json").read_text())["rows"], page

    return run


def test_each_way_does_what_it_says_and_a_repeat_measures_nothing(audited, counted):
    rows, page = audited()
    assert TRANSFER not in rows["original"]["bounded"]["[0, 1]"]["fgsm-1"]
    inflated = []
    for columns in rows["bcgan"]["bounded"].values():
        for column in ("fgsm-1", "fgsm-2"):
            found = columns[column]
            # The surrogate is the network itself, and FGSM on it the same.
            assert found[TRANSFER] == found[LOGITS]
            # Float32 has no gradient left where the logits are a hundred times as far apart.
            inflated.append(found[TIMES] - found[LOGITS])
            assert found[PROBABILITIES] >= found[LOGITS]
    assert min(inflated) >= 0 and max(inflated) > 0.2
    rho = rows["bcgan"]["rho"]
    assert rho[LOGITS] < 0.5 < rho[TIMES] <= 1  # no gradient, no step
    wagner = rows["bcgan"]["cw"]
    assert wagner["binary search of c"] <= wagner["c = 0.001 alone"]
    assert wagner["towards the true class"] >= rows["bcgan"]["clean"] - 0.1
    assert COMMAND in page.read_text()

    calls = counted(module, "_accuracy")
    attacks = counted(module, "bounded_attacks")
    again, _ = audited()
    assert again == rows and not calls and len(attacks) == 2


@pytest.fixture
def settings(audited, monkeypatch):
    """What an audit with options, which is not run, calls its run by."""

    class Asked(Exception):
        pass

    def named(**options):
        def opened(subject, what, settings):
            raise Asked(settings)

        monkeypatch.setattr(module.TableRow, "open", opened)
        with pytest.raises(Asked) as found:
            audited(chosen=protocol("digits", options=options))
        return found.value.args[0]

    return named


def test_all_that_carlini_wagner_depends_on_is_in_the_name_of_its_run(settings):
    assert settings()["cw"] == [200, 9, 0.05]
    assert settings(cw_search_steps=3)["cw"] == [200, 3, 0.05]
    assert settings(cw_steps=3)["cw"] == [3, 9, 0.05]


@pytest.fixture
def without_attacks(monkeypatch):
    """In place of the audit figures that are told apart by their accuracy."""
    found = {"fgsm-1": {"a": 0.5}, "fgsm-2": {"a": 0.5}, "pgd": {"a": 0.5}}
    bounded = {"[0, 1]": found, "[-1, 1]": found}
    figures = {"temperature": 1.0, "bounded": bounded, "cw": {"a": 0.0}, "rho": {"a": 0.1}}

    def measured(subject, samples, cw_samples):
        return {**figures, "clean": 0.9}

    monkeypatch.setattr(module, "_audited", measured)


def test_rows_of_earlier_calls_stay_and_other_settings_are_refused(audited, without_attacks):
    del without_attacks
    audited()
    rows, page = audited(("pgd-at",))
    assert list(rows) == ["original", "pgd-at", "bcgan"]
    text = page.read_text()
    assert all(f"## {name}" in text for name in ("Original", "BCGAN"))
    document = json.loads(page.with_suffix(".json").read_text())
    assert list(document["paper"]) == list(document["paper_rho"]) == list(rows)
    with pytest.raises(UserError, match="cw_samples: 4 there, 9 now"):
        audited(("pgd-at",), cw_samples=9)
    with pytest.raises(UserError, match=r"cw_steps: \d+ there, 200 now"):
        audited(("original",), protocol("digits"))
    assert page.read_text() == text


def test_rows_that_another_process_audited_meanwhile_stay(
    audited, without_attacks, publishing, tmp_path
):
    del without_attacks
    _, page = audited()
    file = page.with_suffix(".json")

    def other():
        document = json.loads(file.read_text())
        document["rows"]["bcgan"]["clean"] = 0.8
        file.write_text(json.dumps(document))

    looks = publishing(other)
    rows, _ = audited(("original",))
    assert {row: found["clean"] for row, found in rows.items()} == {"original": 0.9, "bcgan": 0.8}
    assert len(looks) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "audit-digits.json",
        "audit-digits.md",
    ]


@pytest.mark.parametrize("name", ["n", "cw_n", "standard_n", "rho_n", "eps", "answers"])
def test_settings_that_an_audit_does_not_go_by_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "audit", pytest.fail)
    line = f"reproduce audit --dataset digits --cache {tmp_path} --results {tmp_path} -o {name}=1"
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"the audit has no setting '{name}'; it has pgd_steps, cw_steps, " in result.stderr


def test_settings_that_an_audit_goes_by_reach_it(tmp_path, monkeypatch):
    asked = []

    def noted(workspace, chosen, rows, **others):
        asked.append(chosen)
        return tmp_path / "page.md"

    monkeypatch.setattr(module, "audit", noted)
    line = f"reproduce audit --dataset digits --cache {tmp_path} --results {tmp_path}"
    options = "-o cw_search_steps=3 -o cw_learning_rate=1/100"
    result = CliRunner().invoke(main, [*line.split(), *options.split()])
    assert result.exit_code == 0, result.stderr
    assert asked == [protocol("digits", options={"cw_search_steps": 3, "cw_learning_rate": 0.01})]


def test_the_nearest_way_is_named_and_a_far_one_is_not_bold():
    found = {
        "clean": 0.98,
        "temperature": 1.0,
        "bounded": {
            "[0, 1]": {"fgsm-1": {"a": 0.2, "b": 0.7}},
            "[-1, 1]": {"fgsm-1": {"a": 0.5, "b": 0.6}},
        },
        "cw": {"honest": 0.0, "towards": 0.97},
        "rho": {"honest": 0.2, "times": 0.97},
    }
    assert nearest(found, "fgsm-1", 0.745) == ("b, [0, 1]", 0.7)
    assert nearest(found, "cw", 0.975) == ("towards", 0.97)
    for columns in found["bounded"].values():
        columns |= {"fgsm-2": columns["fgsm-1"], "pgd": columns["fgsm-1"]}
    found["environments"] = []
    document = {
        "dataset": "mnist",
        "preset": "quick",
        "seed": 0,
        "command": COMMAND,
        "samples": 10,
        "cw_samples": 5,
        "protocol": {"fgsm_eps": [0.2, 0.4], "pgd_steps": 40},
        "paper": {"bcgan": [97.7, 71.0, 97.3, 20.0, 97.5]},
        "paper_rho": {"bcgan": 1.94},
        "rows": {"bcgan": found},
    }
    page = audit_page(document)
    assert "| BCGAN | fgsm-1 | 71.0 | 20.0 / 50.0 | **70.0** | b, [0, 1] |" in page
    assert "| BCGAN | fgsm-2 | 97.3 | 20.0 / 50.0 | 70.0 | none (b, [0, 1]) |" in page
    assert "| BCGAN | cw | 97.5 | 0.0 | **97.0** | towards |" in page
    assert "| BCGAN | rho | 1.94 | 0.20 / 0.40 | **1.94** | times, [-1, 1] |" in page
    document["paper_rho"] = {"bcgan": 0.9}
    assert "| BCGAN | rho | 0.90 | 0.20 / 0.40 | **0.97** | times, [0, 1] |" in audit_page(document)
    document["paper_rho"] = {"bcgan": 0.8}
    assert "| BCGAN | rho | 0.80 | 0.20 / 0.40 | 0.97 | none" in audit_page(document)


def test_what_answers_at_random_is_refused(workspace, tmp_path):
    with pytest.raises(UserError, match="leave out defense-gan"):
        audit(workspace, SMALL, ("defense-gan",), results=tmp_path, command=COMMAND)
