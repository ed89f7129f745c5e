"""The card that an evaluation adds to: what is proved, and what stood on it before."""

from __future__ import annotations

from pathlib import Path

from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import card as model_card
from bcgan_tf.settings.attack import AssessmentSettings

ENTRY = {
    "suite": "standard",
    "norm": "linf",
    "eps": 0.3,
    "n": 1000,
    "clean_accuracy": 0.98,
    "robust_accuracy": 0.9,
    "robust_interval95": [0.88, 0.92],
    "verdict": {"kind": "robust"},
    "certified": {"accuracy": 0.85, "interval95": [0.83, 0.87], "n": 1000, "method": "proof"},
}
PGD = {"attack": "PGD-40", "eps": 0.3, "n": 200, "accuracy": 0.93}


def test_the_worst_case_stands_before_single_attacks(tmp_path: Path) -> None:
    config = {"dataset": "mnist", "models_sha256": {"a": "1", "b": "2", "c": "2"}}
    with RunDirectory.create(tmp_path / "run", "attack", config, command_line="again") as run:
        other = {"evaluations": [{**ENTRY, "clean_accuracy": 0.5}]}
        run.write_metrics({"models": {"a": other, "b": {"evaluations": [ENTRY]}}})
    before = {"clean_accuracy": 0.97, "robust_accuracy": [PGD], "defense": {"name": "pgd-at"}}
    card = model_card.with_evaluation(before, run, {"2"})
    worst, single = card["robust_accuracy"]
    assert (worst["accuracy"], worst["eps"], worst["verdict"]) == (0.9, 0.3, "robust")
    assert single == PGD and card["defense"] == {"name": "pgd-at"}
    assert card["clean_accuracy"] == 0.98
    assert card["certified_accuracy"] == [{"eps": 0.3, **ENTRY["certified"]}]
    assert card["evaluation"] == {"run": "run", "command": "again"}
    assert before["robust_accuracy"] == [PGD] and before["clean_accuracy"] == 0.97


def test_merged_shards_are_repeated_by_one_command(tmp_path: Path) -> None:
    settings = AssessmentSettings(eps=8 / 255, n=0, norm="l2", diagnose=False)
    config = {
        "dataset": "cifar10",
        **settings.to_dict(),
        "models": {"net": "my net.keras"},
        "models_sha256": {"net": "1"},
        "surrogate": None,
        "control": "plain.keras",
        "runs_merged": ["s1", "s2"],
    }
    with RunDirectory.create(tmp_path / "m", "merge", config, command_line="attack merge") as run:
        run.write_metrics({"models": {"net": {"evaluations": [ENTRY]}}})
    command = model_card.with_evaluation({}, run, {"1"})["evaluation"]["command"]
    assert command == (
        "bcgan-tf attack 'my net.keras' --dataset cifar10 --eps 0.03137254901960784 --norm l2 "
        "--n 0 --no-diagnose --control plain.keras"
    )
