"""The tables' pages: the JSON's numbers, the paper's, and which of those cannot be."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bcgan_tf.files import as_json
from bcgan_tf.reproduction import paper, tables
from bcgan_tf.reproduction.ablation_page import ablation_page
from bcgan_tf.reproduction.ablation_settings import AblationSettings
from bcgan_tf.reproduction.audit_page import audit_page
from bcgan_tf.reproduction.authors_page import authors_page
from bcgan_tf.reproduction.markdown import duration
from bcgan_tf.reproduction.protocol import ROWS, RefinementSettings, protocol
from bcgan_tf.reproduction.refinement_page import refinement_page

ENVIRONMENT = {
    "python": "3.11",
    "tensorflow": "2",
    "keras": "3",
    "cpu_count": 2,
    "devices": ["CPU"],
}


def figure(accuracy: float, **more: Any) -> dict[str, Any]:
    low, high = max(0, accuracy - 0.01), min(1, accuracy + 0.01)
    return {"accuracy": accuracy, "interval95": [low, high], "n": 1000, "seconds": 7.0, **more}


def row1(seed: int) -> dict[str, Any]:
    """Every number differs from every other."""
    k = seed / 1000
    return {
        "clean": figure(0.991 - k),
        "attacks": {
            unit: {
                "fgsm-1": figure(0.71 + shift - k, eps=0.2),
                "fgsm-2": figure(0.51 + shift - k, eps=0.4),
                "pgd": figure(0.31 + shift - k, eps=0.4),
            }
            for unit, shift in (("[0, 1]", 0.0), ("[-1, 1]", 0.1))
        },
        "cw": figure(0.021 + k, mean_l2=1.5 + k),
        "standard": {
            **figure(0.11 + k),
            "method": "standard",
            "eps": 0.3,
            "clean_accuracy": 0.99,
            "attacks": [{"attack": "APGD-CE", "left": 0.2 + k, "seconds": 3.0}],
            "verdict": {"kind": "gradient masking", "text": "gradient masking: logit scale"},
            "flags": [{"check": "logit scale", "text": "31.0 % after dividing by 40"}],
            "causes": {"text": "The paper's figure comes from logit scale.", "rows": []},
        },
        **PROVENANCE,
    }


def defended_row(seed: int) -> dict[str, Any]:
    """The row that has no verdict, but the cost of a search."""
    found = row1(seed)
    for columns in found["attacks"].values():
        for name in columns:
            columns[name]["behind"] = 0.05
    found["standard"] |= {
        "method": "BPDA, PGD-20 with 3 searches a gradient, 3 fresh answers",
        "verdict": None,
        "accuracy_of_one_answer": 0.4,
        "clean_worst": 0.8,
    }
    found["search_cost"] = {
        "steps": 200,
        "restarts": 10,
        "step_seconds": 1e-3,
        "step_cpu_seconds": 2e-3,
        "paper_steps": 12_000,
        "paper_image_seconds": 12.0,
        "test_images": 10_000,
        "paper_test_hours": 33.3,
    }
    return found


PROVENANCE = {
    "training": {
        "settings": {"eps": 0.3, "epochs": 12, "eps_grid": [1, 2], "width": None},
        "seconds": 754.0,
        "environment": ENVIRONMENT,
    },
    "environments": [{**ENVIRONMENT, "devices": ["GPU H100"]}],
    "original_sha256": "0a",
}


def row2(mean: float | None) -> dict[str, Any]:
    reading = {"mean": mean, "median": 0.1, "mean_found": 0.2, "censored_share": 0.0}
    rho = {
        "n": 200,
        "clean_accuracy": 0.99,
        "rho_fgsm": {"mean": 0.25, "median": 0.2, "capped_share": 0.5, "zero_gradient_share": 0.4},
        "rho_multi": reading,
        "rho_best": {**reading, "found_by": {"FAB": 150, "APGD": 48}},
        "seconds": 12.0,
    }
    return {"rho": rho, **PROVENANCE}


def document(table: str, dataset: str, rows: dict[str, Any], preset: str = "quick"):
    return {
        "table": table,
        "dataset": dataset,
        "preset": preset,
        "seed": 0,
        "protocol": protocol(dataset, preset).to_dict(),
        "command": f"bcgan-tf reproduce {table} --dataset {dataset} --preset {preset} --seed 0",
        **tables._paper(table, dataset),
        "rows": rows,
    }


def lines_of(page: str) -> dict[str, list[str]]:
    """Row title to cells, of the first table of a page."""
    table = page.split("\n\n")[2].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {first: rest for first, *rest in cells}


def percent(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


@pytest.mark.parametrize("dataset", paper.TABLE_1)
def test_the_main_table_holds_the_papers_and_our_numbers(dataset):
    rows = {row: row1(seed) for seed, row in enumerate(ROWS)}
    rows["defense-gan"] = defended_row(ROWS.index("defense-gan"))
    found = lines_of(tables.page(document("table1", dataset, rows)))
    assert len(found) == len(ROWS) == 8
    for cells, (row, measured) in zip(found.values(), rows.items(), strict=True):
        printed = paper.TABLE_1[dataset].get(row, ())
        columns = measured["attacks"].values()
        ours = [
            [measured["clean"]["accuracy"]],
            *([one[name]["accuracy"] for one in columns] for name in ("fgsm-1", "fgsm-2", "pgd")),
            [measured["cw"]["accuracy"], measured["cw"]["mean_l2"] / 100],
        ]
        for position, (cell, wanted) in enumerate(zip(cells, ours, strict=False)):
            theirs, arrow, mine = cell.rpartition(" → ")
            assert percent(mine) == pytest.approx([100 * value for value in wanted], abs=0.051)
            assert bool(arrow) == bool(printed)
            if printed:
                assert percent(theirs)[0] == printed[position]
        low, high = measured["standard"]["interval95"]
        assert percent(cells[5]) == pytest.approx(
            [100 * measured["standard"]["accuracy"], 100 * low, 100 * high], abs=0.051
        )
        judged = row != "defense-gan"
        assert cells[6] == ("gradient masking" if judged else "upper bound, see below")


def test_a_figure_above_the_clean_one_is_called_impossible():
    page = tables.page(document("table1", "fashion_mnist", {"original": row1(0)}))
    found = lines_of(page)
    assert found["BCGAN"][4].startswith("85.9 (*impossible*: its clean accuracy is 85.4) → not run")
    assert found["PGD training"][4].startswith("84.9 (*impossible*: its clean accuracy is 83.5)")
    assert page.count("*impossible*") == 2
    assert "85.9 %, exceeds the clean one, 85.4 %" in page
    for dataset in ("mnist", "cifar10"):
        assert "impossible" not in tables.page(document("table1", dataset, {})).lower()


def test_the_bound_stands_beside_a_rho_that_breaks_it():
    found = lines_of(tables.page(document("table2", "mnist", {"original": row2(0.1)})))
    assert found["BCGAN"][0] == "1.94 (*impossible*: at most 0.55 in [0, 1], 1.10 in [-1, 1])"
    assert found["PGD training"][0] == "0.88 (at most 0.55 in [0, 1])"
    assert found["Original"][:4] == ["0.40", "**0.250 / 0.500**", *["**0.100 / 0.200**"] * 2]
    assert found["TRADES (not in the paper)"] == ["-", "not run", "not run", "not run", "-"]


def test_a_mean_that_is_not_known_is_a_bound():
    rows = {"original": row2(None), "defense-gan": {"rho": {"not_run": "too slow"}, **PROVENANCE}}
    page = tables.page(document("table2", "mnist", rows))
    assert lines_of(page)["Original"][2] == "**more than 0.200 / 0.400**"
    assert lines_of(page)["Defense-GAN"][1:] == ["not run", "not run", "not run", "-"]
    assert "- **Defense-GAN** was not run: too slow." in page


def test_data_that_the_paper_lacks():
    page = tables.page(document("table1", "digits", {"original": row1(0)}))
    assert "\n\nThese data are not in the paper.\n\n| " in page
    table = page.replace("These data are not in the paper.\n\n", "")
    assert lines_of(table)["Original"][1] == "**71.0 / 81.0**" and "→ **7" not in page


def test_defense_gan_says_what_its_figures_are_and_what_the_papers_search_would_cost():
    page = tables.page(document("table1", "mnist", {"defense-gan": defended_row(0)}))
    assert "The paper's L = 12,000: 12 s an image, 33.3 h for one pass over 10,000 images." in page
    assert "L = 200 steps from R = 10 fixed starts" in page
    assert "| [-1, 1] | 5.0 | 5.0 | 5.0 |" in page
    assert "all answers 80.0 %" in page and "one answer: 40.0 %" in page
    assert "## The suite `standard`" not in page


def test_the_page_says_how_it_was_made():
    page = tables.page(document("table1", "mnist", {"pgd-at": row1(0)}, "paper"))
    assert page.startswith("# Table 1 on MNIST, preset paper\n\n    bcgan-tf reproduce table1 ")
    assert "- **PGD training**, 13 min: eps 0.3, epochs 12, eps_grid 1/2." in page
    assert "Python 3.11, TensorFlow 2, Keras 3, 2 CPU cores: pgd-at trained." in page
    assert "2 CPU cores, GPU H100: pgd-at measured." in page
    for words in ("9 x 1,000 steps of 0.01", "PGD: 40 steps", "at eps 0.4; the paper gives"):
        assert words in page
    for words in ("gradient masking: logit scale.", "31.0 % after dividing by 40", "comes from"):
        assert words in page


def test_rows_of_several_original_networks_are_told_apart():
    rows = {row: row2(0.1) for row in ("original", "pgd-at", "bcgan")}
    page = tables.page(document("table2", "cifar10", rows))
    assert "The original network was trained" not in page
    rows["pgd-at"] = {**rows["pgd-at"], "original_sha256": "1b"}
    page = tables.page(document("table2", "cifar10", rows))
    assert "The original network was trained 2 times" in page
    assert page.endswith("Rows that share one: original, bcgan; pgd-at.\n")


def test_the_page_changes_with_its_numbers():
    first = document("table1", "mnist", {"original": row1(0)})
    second = copy.deepcopy(first)
    second["rows"]["original"]["attacks"]["[-1, 1]"]["pgd"]["accuracy"] = 0.4321
    assert "31.0 / 41.0" in tables.page(first)
    assert "31.0 / 43.2" in tables.page(second) and "31.0 / 41.0" not in tables.page(second)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (45, "45 s"), (754, "13 min"), (9000, "2.5 h"), (2.7e6, "31 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


RESULTS = Path(__file__).parents[2] / "docs" / "results"
PUBLISHED = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
def test_a_published_page_is_what_its_json_says(file: Path) -> None:
    """And the settings of today are those that it was made with: a new row joins the others."""
    document = json.loads(file.read_text())
    pages = {
        "ablation": ablation_page,
        "audit": audit_page,
        "authors": lambda found: authors_page(found, f"{file.stem}-loss.png"),
        "refinement": lambda found: refinement_page(found, f"{file.stem}.png"),
    }
    text = pages.get(file.stem.partition("-")[0], tables.page)(document)
    assert text == file.with_suffix(".md").read_text()
    if "protocol" in document:
        name = "authors" if "authors" in file.stem else "strong"
        today = protocol(document["dataset"], document["preset"], name=name)
        assert as_json(today.to_dict()) == document["protocol"]
    elif file.stem.startswith("refinement"):
        # The lengths are those of its command; the rest are today's.
        today = RefinementSettings(gan_epochs=4, epochs=460, dtype="mixed_bfloat16")
        assert as_json(today.to_dict()) == document["settings"]
        assert "-o gan_epochs=4 -o epochs=460 -o dtype=mixed_bfloat16" in document["command"]
    else:
        assert as_json(AblationSettings().to_dict()) == document["settings"]
