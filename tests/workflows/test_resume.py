"""Evaluations killed and resumed, on a full disk and damaged, in shards and merged."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from pathlib import Path
from typing import Any

import pytest

from bcgan_tf import files
from bcgan_tf.errors import UserError
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.kinds import Shard
from bcgan_tf.workflows import attack as assessment
from bcgan_tf.workflows.attack import evaluate_models
from bcgan_tf.workflows.merge import common_config, merged
from helpers.evaluations import (
    LABELS,
    PIXELS,
    SETTINGS,
    Killed,
    arrays,
    attack_toy,
    dataset,
    killing,
    linear,
    same,
    without_seconds,
)


def test_killed_anywhere_it_ends_the_same(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    expected = attack_toy(tmp_path / "whole", settings)
    kills = 0
    for after in (2, 5, 8):
        with contextlib.suppress(Killed):
            attack_toy(tmp_path / "killed", settings, progress=killing(after))
            break
        kills += 1
    assert kills >= 3
    found = attack_toy(tmp_path / "killed", settings)
    assert without_seconds(found) == without_seconds(expected)
    same(arrays(tmp_path / "killed"), arrays(tmp_path / "whole"))


def test_what_is_finished_is_not_done_again(quick, diagnosed, tmp_path: Path, monkeypatch) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    expected = attack_toy(tmp_path, settings)
    for name in ("run_suite", "diagnose", "loss_curves"):
        monkeypatch.setattr(assessment, name, None)
    assert attack_toy(tmp_path, settings) == expected


def test_metrics_that_are_gone_are_made_again(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    expected = attack_toy(tmp_path, settings)
    for name in ("metrics.json", f"{files.COPY_PREFIX}metrics.json"):
        (tmp_path / name).unlink()
    assert without_seconds(attack_toy(tmp_path, settings)) == without_seconds(expected)
    assert without_seconds(RunDirectory.open(tmp_path).metrics()) == without_seconds(expected)


def test_figures_stand_in_metrics_alone(quick, diagnosed, tmp_path: Path) -> None:
    attack_toy(tmp_path, dataclasses.replace(SETTINGS, diagnose=True, minimum_perturbation=True))
    run = RunDirectory.open(tmp_path)
    assert {*run.stage_seconds()} == {"evaluate-m", "diagnose-m", "losses-m", "radii-m"}
    assert not any(run.stage_payload(name) for name in run.stage_seconds())
    assert [file.name for file in tmp_path.glob("*.npz")] == ["evaluation-m.npz"]


def test_while_models_are_evaluated_the_metrics_say_so(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    with pytest.raises(Killed):
        attack_toy(tmp_path, settings, progress=killing(8))
    assert RunDirectory.open(tmp_path).metrics()["unfinished"] is True
    assert "unfinished" not in attack_toy(tmp_path, settings)


def test_another_model_or_other_images_do_not_go_on_with_it(quick, tmp_path: Path) -> None:
    """They may have changed under the name that the run knows them by."""
    attack_toy(tmp_path)
    before = arrays(tmp_path)
    with pytest.raises(UserError, match="m: the answers of the model are others than those of"):
        attack_toy(tmp_path, model=lambda images: linear(images) * 2)
    with pytest.raises(UserError, match="test images or labels are others than those of"):
        attack_toy(tmp_path, data=dataset(PIXELS[::-1], LABELS[::-1]))
    same(arrays(tmp_path), before)
    attack_toy(tmp_path)


def test_a_state_of_other_settings_is_refused(quick, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        attack_toy(tmp_path, progress=killing(6))
    pieces = sorted((tmp_path / "state-m").glob("*.npz"))
    assert pieces
    other = dataclasses.replace(SETTINGS, eps=0.05)
    with pytest.raises(UserError, match=r"started with other settings: eps \(0.03 there, 0.05 now"):
        attack_toy(tmp_path, other)
    with pytest.raises(UserError, match=r"holds an evaluation with other settings: model"):
        attack_toy(tmp_path, model=lambda images: linear(images) * 2)
    assert sorted((tmp_path / "state-m").glob("*.npz")) == pieces


def test_shards_merged_are_one_run(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True, n=40)
    expected = attack_toy(tmp_path / "whole", settings)
    folders = []
    for number in (3, 1, 2):
        folder = tmp_path / f"shard{number}"
        shard = attack_toy(folder, dataclasses.replace(settings, shard=Shard(number, 3)))
        (told,) = shard["models"]["m"]["evaluations"]
        assert told["shard"] == f"{number}/3" and "verdict" not in told
        assert told["n"] in (13, 14)
        folders.append(folder)
    assert len(diagnosed) == 1  # a shard has not all that a diagnosis needs
    config = common_config(folders)
    assert EvaluationConfig.from_dict(config) == settings
    with RunDirectory.create(tmp_path / "merged", "merge", config) as run:
        found = merged(folders, settings.threat_models("m"))
        metrics = evaluate_models(run, dataset(), {"m": linear}, settings, attacked=found)
    same(arrays(tmp_path / "merged"), arrays(tmp_path / "whole"))
    assert without_seconds(metrics) == without_seconds(expected)


def test_only_shards_of_one_evaluation_are_merged(quick, tmp_path: Path) -> None:
    def shard(name: str, **changes: Any) -> Path:
        attack_toy(tmp_path / name, dataclasses.replace(SETTINGS, **changes))
        return tmp_path / name

    one, two = shard("one", shard=Shard(1, 2)), shard("two", shard=Shard(2, 2))
    other = shard("other", shard=Shard(2, 2), eps=0.05)
    with pytest.raises(UserError, match=r"one and .*other differ in eps \(0.03 and 0.05\)"):
        common_config([one, other])
    with pytest.raises(UserError, match="holds no run"):
        common_config([one, tmp_path])

    def merge(*folders: Path) -> None:
        common_config(folders)
        merged(folders, SETTINGS.threat_models("m"))

    with pytest.raises(UserError, match="overlap"):
        merge(one, one)
    with pytest.raises(UserError, match="30 of 60 images; some are missing"):
        merge(two)
    with pytest.raises(Killed):
        attack_toy(
            tmp_path / "late",
            dataclasses.replace(SETTINGS, shard=Shard(2, 2)),
            progress=killing(3),
        )
    with pytest.raises(UserError, match=r"late is not finished .*attack --run-dir .* --resume"):
        merge(one, tmp_path / "late")
    (two / "evaluation-m.npz").write_bytes((two / "evaluation-m.npz").read_bytes()[:-60])
    with pytest.raises(UserError, match="damaged"):
        merge(one, two)


def test_a_truncated_piece_is_named_and_done_again(quick, unbroken, tmp_path: Path, capsys) -> None:
    with pytest.raises(Killed):
        attack_toy(tmp_path, progress=killing(6))
    piece = min((tmp_path / "state-m").glob("*.npz"))
    piece.write_bytes(piece.read_bytes()[:100])
    attack_toy(tmp_path)
    assert f"{piece} is damaged; that part of the evaluation is done again" in (
        capsys.readouterr().err
    )
    same(arrays(tmp_path), arrays(unbroken[0]))


def test_truncated_settings_of_a_state(quick, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        attack_toy(tmp_path, progress=killing(6))
    file = tmp_path / "state-m" / "settings.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:30])
    attack_toy(tmp_path)  # by its copy
    (file.parent / ".copy-settings.json").unlink()
    (tmp_path / "evaluation-m.npz").unlink()
    file.write_bytes(whole[:30])
    with pytest.raises(UserError, match=r"settings\.json is cut short"):
        attack_toy(tmp_path)


@pytest.mark.parametrize(
    ("full_at", "pieces"),
    [("settings.json", 0), ("0001-0.npz", 2), ("evaluation-m.npz", 6), ("metrics.json", 0)],
)
def test_a_full_disk_loses_nothing(
    quick, unbroken, tmp_path: Path, monkeypatch, full_at: str, pieces: int
) -> None:
    """Full at the settings of the state, a piece of it, the arrays, and the metrics."""
    real = files._to_disk

    def full(path: Path) -> None:
        if path.name == f"{files.PARTIAL_PREFIX}{full_at}":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(files, "_to_disk", full)
    with pytest.raises(files.DiskFull, match=r"No space left on device.*make room") as caught:
        attack_toy(tmp_path)
    assert "\n" not in str(caught.value) and full_at in str(caught.value)
    assert not list(tmp_path.rglob(".partial*"))
    done = {piece: piece.read_bytes() for piece in tmp_path.rglob("00*.npz")}
    assert len(done) == pieces
    monkeypatch.setattr(files, "_to_disk", real)
    metrics = attack_toy(tmp_path)
    assert all(piece.read_bytes() == content for piece, content in done.items())
    assert without_seconds(metrics) == without_seconds(unbroken[1])
    same(arrays(tmp_path), arrays(unbroken[0]))
