"""The report of an evaluation says what was measured: known numbers in, the same numbers out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bcgan_tf.report import findings, per_example, write_report
from bcgan_tf.report.distances import distance_bins
from bcgan_tf.report.evaluation_figures import example_images, figure_name
from bcgan_tf.runs.directory import RunDirectory
from helpers.html_pages import Page


def cards(page: Page) -> list[str | None]:
    return [attrs["class"] for tag, attrs in page.tags if tag == "div" and "card" in str(attrs)]


def report(folder: Path, models: dict[str, Any], files: dict[str, Any] | None = None) -> Page:
    with RunDirectory.create(
        folder, "attack", {"dataset": "mnist", "seed": 7}, command_line="bcgan-tf attack a.keras"
    ) as run:
        for name, arrays in (files or {}).items():
            np.savez(run.path / name, **arrays)
        run.write_metrics({"dataset": "mnist", "models": models})
        return Page(write_report(run))


def test_the_verdict_comes_first(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated())})
    assert cards(page) == ["card good"]
    start = page.text.index("net: Linf eps 0.3, suite standard, 500 images Robust")
    assert start < 200
    for words in (
        "Robust accuracy: 88.0 % (84.9 to 90.6)",
        "440 of 500 test images are classified right and stay right under every attack",
        "Clean accuracy on the same images: 98.0 % (96.4 to 98.9).",
        "Red flags: 1 of 4 checks raised (convergence), none of which denies the verdict; "
        "not run: transfer.",
        "In one line: robust, said in one line.",
        "500 images: smaller differences may be chance.",
        "bcgan-tf attack a.keras",
        "seed 7",
        "tensorflow 2.",
    ):
        assert words in page.text, words


@pytest.mark.parametrize(
    ("kind", "card", "headline", "number"),
    [
        ("robust", "card good", "Robust", "Robust accuracy: 88.0 %"),
        ("weakly robust", "card open", "Weakly robust", "Robust accuracy: 88.0 %"),
        ("not robust", "card bad", "Not robust", "Robust accuracy: 88.0 %"),
        ("gradient masking", "card bad", "Gradient masking", "Robust accuracy: at most 88.0 %"),
        ("black box only", "card open", "Judged by black-box", "Robust accuracy: at most 88.0 %"),
        ("a new kind", "card open", "a new kind", "Robust accuracy: at most 88.0 %"),
    ],
)
def test_every_kind_of_verdict_has_its_card(
    tmp_path: Path, make: SimpleNamespace, kind: str, card: str, headline: str, number: str
) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated(kind))})
    assert cards(page) == [card]
    assert headline in page.text and number in page.text


def test_masking_names_what_decided(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.masked())})
    assert "Attacks failed for reasons that are not robustness: logit scale." in page.text
    assert "none of which denies" not in page.text
    hidden = make.evaluated("not robust", 0.0, diagnosis=make.masked()["diagnosis"])
    assert "Weaker attacks would have missed that" in " ".join(findings.meaning(hidden))


def test_without_a_diagnosis_nothing_is_vouched_for(tmp_path: Path, make: SimpleNamespace) -> None:
    bare = make.evaluated(verdict=None, diagnosis=None)
    page = report(tmp_path / "a", {"net": make.entry(bare)})
    assert "No verdict: not checked for gradient masking" in page.text
    assert "at most 88.0 %" in page.text and "Red flags" not in page.text
    part = {"shard": "2/3", **bare}
    assert findings.headline(part) == ("No verdict: shard 2/3 of an evaluation", "open")


def test_the_attacks_stand_in_the_table(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated())})
    assert page.row("APGD-CE") == [
        "490 7 again in float32", "40", "90.0 % (87.0 to 92.0)", "90.0 % (87.1 to 92.3)",
        "1,101 / 101", "12.3 s",
    ]  # fmt: skip
    assert page.row("worst case") == ["", "", "", "88.0 % (84.9 to 90.6)", "", ""]
    assert "steps 100, seed 7, batch size 250" in page.text


def test_every_flag_stands_with_number_threshold_and_grade(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated())})
    expected = {
        "convergence": ["raised", "1.2 %", "> 0.5 %", "notice"],
        "transfer": ["not run", "-", "-", "notice"],
        "loss choice": ["clean", "0.1 %", "> 0.5 %", "notice"],
        "unbounded attack": ["clean", "100.0 %", "< 100.0 %", "evidence"],
        "large eps": ["clean", "5.0 %", "> 14.0 %", "evidence"],
    }
    for check, cells in expected.items():
        assert page.row(check)[:4] == cells, check
        assert findings.CHECKS[check] in page.text
    assert page.row("convergence")[4] == "what convergence saw"
    order = [row[0] for row in page.rows if row and row[0].startswith(tuple(expected))]
    assert order[0].startswith("convergence") and order[1].startswith("transfer")
    decided = report(tmp_path / "b", {"net": make.entry(make.masked())})
    assert decided.row("logit scale")[:4] == ["raised, decides", "60.5 %", "> 0.5 %", "evidence"]


def test_every_check_of_a_diagnosis_is_explained() -> None:
    from bcgan_tf.diagnosis import diagnostics

    names = re.findall(r'\("([a-z -]+)", lambda', Path(diagnostics.__file__).read_text())
    assert len(names) == 13 and set(names) == set(findings.CHECKS)


def full(make: SimpleNamespace) -> dict[str, Any]:
    """With everything that an evaluation can have."""
    distances = np.array([0.0, 0.11, 0.2, 0.35, np.inf])
    return make.evaluated(
        curve=[[0.0, 0.8], [0.2, 0.4], [0.5, 0.2]],
        distances=distance_bins({"fgsm": distances * 2, "multi": distances, "best": distances}),
        minimum_perturbation={
            "norm": "linf",
            "limit": 1.0,
            "n": 5,
            "rho_fgsm": {
                "n": 4, "mean": 0.6123, "median": 0.55, "capped_share": 0.25,
                "zero_gradient_share": 0.125,
            },
            "rho_multi": {"n": 5, "mean": 0.31, "median": 0.3, "censored_share": 0.0},
            "rho_best": {
                "n": 5, "mean": None, "median": 0.2, "mean_found": 0.165, "censored_share": 0.2,
            },
        },
        loss_curves={
            "n": 97, "eps": 0.3, "norm": "linf", "iterations": [0, 1, 2],
            "PGD-1": [0.1, 0.2], "PGD-1 margin": [-3.0, None],
            "PGD-2": [0.1, 0.15, 0.2], "PGD-2 margin": [-3.0, -2.5, -2.0],
        },
        causes={
            "clean_accuracy": 0.98,
            "text": "these switches reproduce it: logit scale",
            "rows": [
                {"cause": "logit scale", "on": "PGD on the logits", "off": "PGD on logits / 110",
                 "accuracy_on": 0.97, "accuracy_off": 0.01, "inflation": 0.96, "reproduces": True},
                {"cause": "label trap", "on": "towards", "off": "away", "accuracy_on": 0.02,
                 "accuracy_off": 0.01, "inflation": 0.01, "reproduces": False},
                {"cause": "transfer", "on": "made elsewhere", "off": "white box",
                 "accuracy_on": None, "accuracy_off": None, "inflation": None,
                 "reproduces": False},
            ],
        },
    )  # fmt: skip


def test_distances_losses_causes_and_curves(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(full(make))})
    assert page.row("Along the gradient") == ["0.6123", "0.5500", "25.0 %", "12.5 %", "4"]
    assert page.row("Along many lines") == ["0.3100", "0.3000", "0.0 %", "-", "5"]
    assert page.row("Best of all") == ["more than 0.1650", "0.2000", "20.0 %", "-", "5"]
    assert page.row("logit scale") == [
        "97.0 %PGD on the logits", "1.0 %PGD on logits / 110", "+96.0 points", "yes",
    ]  # fmt: skip
    assert page.row("label trap")[2:] == ["+1.0 points", "no"]
    transfers = [row[1:] for row in page.rows if row and row[0] == "transfer"]
    assert transfers == [["-made elsewhere", "-white box", "-", "not run"]]
    assert "Means over 97 images" in page.text
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) == 3 and all(str(a["src"]).startswith("data:image/png") for a in images)
    made = {f.name for f in (tmp_path / "a" / "figures").iterdir()}
    assert made == {f"{k}-net-standard-linf-0.3.png" for k in ("curve", "loss", "distances")}


def test_the_bound_is_the_largest_class_of_the_labels(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    settings = np.array(json.dumps({"eps": 0.3, "norm": "linf", "suite": "standard"}))
    arrays: dict[str, Any] = {"labels": np.array([0, 1, 1, 2]), "worst_case": np.ones(4, bool)}
    page = report(
        tmp_path / "a",
        {"net": make.entry(full(make))},
        {"evaluation-net.npz": {**arrays, "settings": settings}},
    )
    assert "No model can be above the dashed line" in page.text
    with RunDirectory.create(tmp_path / "b", "attack", {"dataset": "mnist"}) as run:
        found = per_example.largest_class(run.path, "net", full(make))
        assert found == 0.14  # as diagnosed, where there are no labels
        np.savez(run.path / "evaluation-net.npz", **arrays, settings=settings)
        assert per_example.largest_class(run.path, "net", full(make)) == 0.5
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["evaluation-net.npz"]
    assert "What the arrays of evaluation-net.npz mean" in page.text


def test_a_second_reading_has_files_of_its_own(tmp_path: Path, make: SimpleNamespace) -> None:
    first = make.evaluated(suite="paper")
    second = make.evaluated(suite="paper", eps=0.15, reading="eps 0.3 read as of [-1, 1] pixels")
    content: dict[str, Any] = {"labels": np.zeros(2, int), "worst_case": np.ones(2, bool)}
    with RunDirectory.create(tmp_path / "a", "attack", {"dataset": "mnist"}) as run:
        for label, eps in (("net", 0.3), ("net~11", 0.15)):
            told = np.array(json.dumps({"eps": eps, "norm": "linf", "suite": "paper"}))
            np.savez(run.path / f"evaluation-{label}.npz", **content, settings=told)
        find = per_example.array_file
        names = [str(getattr(find(run.path, "net", e), "name", None)) for e in (first, second)]
        assert names == ["evaluation-net.npz", "evaluation-net~11.npz"]
        run.write_metrics({"dataset": "mnist", "models": {"net": make.entry(first, second)}})
        page = Page(write_report(run))
    assert "eps 0.3 read as of [-1, 1] pixels." in page.text
    assert cards(page) == ["card good", "card good"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_a_damaged_file_does_not_stop_the_report(
    tmp_path: Path, make: SimpleNamespace, content: bytes
) -> None:
    with RunDirectory.create(tmp_path / "a", "attack", {"dataset": "mnist"}) as run:
        (run.path / "evaluation-net.npz").write_bytes(content)
        run.write_metrics({"dataset": "mnist", "models": {"net": make.entry(full(make))}})
        assert "88.0 %" in Page(write_report(run)).text


def test_examples_are_taken_from_the_figures(tmp_path: Path, make: SimpleNamespace) -> None:
    evaluation = make.evaluated()
    with RunDirectory.create(tmp_path / "a", "attack", {"dataset": "mnist"}) as run:
        images = np.full((2, 6, 6, 1), 0.5, np.float32)
        file = run.figures / figure_name("examples", "net", evaluation)
        example_images(images, images + 0.25, file, labels=["3", "7"], predictions=["3", "1"])
        run.write_metrics({"dataset": "mnist", "models": {"net": make.entry(evaluation)}})
        page = Page(write_report(run))
    assert "what an attack made of them" in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1


def test_only_the_needed_keys_are_needed(tmp_path: Path) -> None:
    least = {"n": 10, "clean_accuracy": 0.9, "robust_accuracy": 0.5, "eps": None, "attacks": []}
    page = report(tmp_path / "a", {"net": {"clean_accuracy": 0.9, "evaluations": [least]}})
    assert "net: no bound, chosen attacks, 10 images" in page.text
    assert "5 of 10 test images survived" in page.text
    empty = report(tmp_path / "b", {"net": {"clean_accuracy": 0.9, "evaluations": [{}]}})
    assert "not measured" in empty.text


def test_several_models_stand_side_by_side(tmp_path: Path, make: SimpleNamespace) -> None:
    models = {"a": make.entry(make.evaluated()), "b": make.entry(make.masked())}
    page = report(tmp_path / "a", models)
    assert page.row("verdict") == ["Robust", "Gradient masking: robustness is not shown"]
    assert page.row("robust accuracy, worst case") == [
        "88.0 % (84.9 to 90.6)", "at most 70.0 % (66.9 to 72.6)",
    ]  # fmt: skip
    assert "b against a: no comparison" in page.text


def test_the_page_stands_alone_and_names_cannot_break_it(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    hostile = '../<script>alert("x")</script>&'
    evaluation = full(make)
    evaluation["verdict"]["text"] = evaluation["attacks"][0]["attack"] = hostile
    evaluation["diagnosis"]["flags"][0] |= {"check": hostile, "text": hostile, "grade": hostile}
    evaluation["causes"]["rows"][0] |= {"cause": hostile, "on": hostile}
    evaluation |= {"suite": hostile, "note": hostile, "reading": hostile, "norm": "linf"}
    page = report(tmp_path / "a", {hostile: make.entry(evaluation, make.evaluated())})
    assert page.text.count(hostile) > 8
    names = {tag for tag, _ in page.tags}
    assert "script" not in names and "link" not in names and "iframe" not in names
    for _, attributes in page.tags:
        for key in ("src", "href"):
            assert not attributes.get(key) or str(attributes[key]).startswith("data:image/png")
    raw = (tmp_path / "a" / "report.html").read_text()
    assert "http" not in raw and "@import" not in raw and "url(" not in raw
    # And nothing was written outside the run's folder.
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a"]


def test_what_is_proved_stands_beside_what_survived(tmp_path: Path, make: SimpleNamespace) -> None:
    proof = {"accuracy": 0.8, "interval95": [0.76, 0.83], "n": 500, "method": "interval bounds"}
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated(certified=proof))})
    words = "Certified by interval bounds: 80.0 % (76.0 to 83.0). No attack can take that away."
    assert words in page.text and "not attacked" not in page.text
    spared = make.entry(make.evaluated(certified=proof, not_attacked=400))
    sentence = "The 400 images that it holds for were not attacked."
    assert f"{words} {sentence}" in report(tmp_path / "c", {"net": spared}).text
    assert "Certified" not in report(tmp_path / "b", {"net": make.entry(make.evaluated())}).text


def classes(count: int) -> dict[str, list[Any]]:
    """Class ``i`` has 20 images, of which 20 - i % 2 are right and i % 21 stay right."""
    return {
        "names": [f"class {i}" for i in range(count)],
        "n": [20] * count,
        "clean": [20 - i % 2 for i in range(count)],
        "robust": [i % 21 for i in range(count)],
    }


def test_each_class_has_its_accuracies_and_counts(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated(classes=classes(3)))})
    assert page.row("class 1") == ["95.0 % 19 of 20", "5.0 % 1 of 20"]
    assert page.row("class 2") == ["100.0 % 20 of 20", "10.0 % 2 of 20"]
    assert "classes with test images" not in page.text


def test_of_many_classes_the_extremes_are_shown(tmp_path: Path, make: SimpleNamespace) -> None:
    page = report(tmp_path / "a", {"net": make.entry(make.evaluated(classes=classes(1000)))})
    assert "Of 1,000 classes with test images, the 10 least robust and the 3 most" in page.text
    assert page.text.count(" of 20") == 2 * 13
    # Robust in none of their images, and in all: of equally robust ones the clean ones last.
    assert page.row("class 21") == ["95.0 % 19 of 20", "0.0 % 0 of 20"]
    assert page.row("class 986") == ["100.0 % 20 of 20", "100.0 % 20 of 20"]


def test_a_suspicious_clean_accuracy_comes_first(tmp_path: Path, make: SimpleNamespace) -> None:
    doubtful = {**make.entry(make.evaluated()), "suspicion": "Suspicious clean accuracy: why"}
    page = report(tmp_path / "a", {"plain": make.entry(make.evaluated()), "net": doubtful})
    told = page.text.index("Explain this first. net: Suspicious clean accuracy: why.")
    assert told < page.text.index("Robust accuracy:")
    assert page.text.count("Suspicious") == 1
    assert (
        "Explain this first"
        not in report(tmp_path / "b", {"net": make.entry(make.evaluated())}).text
    )


def test_the_command_is_wrapped(tmp_path: Path, make: SimpleNamespace) -> None:
    report(tmp_path / "a", {"net": make.entry(make.evaluated())})
    style = re.search(r"pre \{(.*?)\}", (tmp_path / "a/report.html").read_text(), re.DOTALL)
    assert style and "white-space: pre-wrap" in style[1] and "overflow-x" not in style[1]
