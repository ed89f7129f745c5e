"""report.html stands alone, holds what was measured, and copes with what was not."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.files import COPY_PREFIX
from bcgan_tf.report import figures, write_evaluation_report, write_report
from bcgan_tf.runs.directory import RunDirectory
from helpers.html_pages import Page


@pytest.fixture
def run(tmp_path: Path, metrics: dict[str, Any]) -> RunDirectory:
    config = {"dataset": "mnist", "preset": "quick", "seed": 7, "radii": [0.1, 0.3]}
    line = 'bcgan-tf run --dataset "<mnist>"'
    run = RunDirectory.create(tmp_path / "a-run", "run", config, command_line=line)
    run.write_metrics(metrics)
    for epoch in (1, 2):
        run.history.append("train", epoch, {"loss": 1 / epoch, "accuracy": 0.5})
        run.history.append("gan", epoch, {"kl": 1 / epoch})
    images = np.zeros((4, 8, 8, 1), np.float32)
    grid = figures.image_grid(images, run.figures / "boundary_samples.png").read_bytes()
    (run.figures / "boundary_plane.png").write_bytes(grid)
    (run.figures / "gan").mkdir()
    for epoch in range(1, 10):
        (run.figures / "gan" / f"samples_epoch_{epoch:04d}.png").write_bytes(grid)
    run.finish_stage("train")
    run.close()
    return run


def test_the_page_stands_alone(run: RunDirectory) -> None:
    page = write_report(run)
    assert page == run.path / "report.html"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text
    images = [attrs for tag, attrs in Page(page).tags if tag == "img"]
    # radii, samples, 4 of 9 grids, plane, 2 stages of curves
    assert len(images) == 1 + 1 + 4 + 1 + 2
    assert all(str(attrs["src"]).startswith("data:image/png;base64,iVBOR") for attrs in images)
    assert all(attrs["alt"] for attrs in images)


def test_the_page_tells_the_whole_story(run: RunDirectory) -> None:
    text = Page(write_report(run)).text
    for words in (
        "hardened: Linf eps 0.3, suite standard, 500 images Robust",
        "original: Linf eps 0.3, suite standard, 500 images Not robust",
        "Accuracy under one attack (PGD-40, 100 images) over its Linf radius, with 95 % intervals. "
        "Each point is an upper bound of the robust accuracy at that eps.",
        "mean L2 distance of the adversarial examples found 1.400 n = 90 2.250 n = 90",
        "hardened against original: robust accuracy 70.0 % instead of 0.0 % (+70.0 points)",
        "oracle accuracy on c 83.0 %",
        'bcgan-tf run --dataset "<mnist>"',
        "Exported model: saved_models/mnist-bcgan/1",
        "radii 0.1, 0.3",
        "tensorflow 2.",
        "seed 7",
    ):
        assert words in text, words
    assert text.index("original: Linf") < text.index("hardened: Linf")


PGD = {
    "defense": {"defense": "pgd-at", "eps": 0.15, "steps": 7},
    "titles": {"pgd-at": "PGD training"},
}


def test_the_defence_has_its_settings_there(run: RunDirectory) -> None:
    assert "Settings of the defence" not in Page(write_report(run)).text
    with RunDirectory.create(run.path, "run", run.config, resume=True) as again:
        again.history.append("pgd-at", 1, {"loss": 0.5})
        again.finish_stage("harden", PGD)
    text = Page(write_report(run)).text
    assert "Settings of the defence defense pgd-at eps 0.15 steps 7" in text
    assert "PGD training" in text


def test_the_curves_are_kept_as_files(run: RunDirectory) -> None:
    write_report(run)
    made = {file.name for file in run.figures.glob("*.png")}
    assert {"curves-train.png", "curves-gan.png", "radii.png"} <= made


def test_radii_of_another_norm_are_not_in_the_figure(
    run: RunDirectory, metrics: dict[str, Any]
) -> None:
    metrics["models"]["original"]["evaluations"][0]["radii"]["norm"] = "l2"
    run.write_metrics(metrics)
    page = Page(write_report(run))
    assert "over its L2 radius" in page.text and page.row("eps 0.1") == ["60.0 % (50.0 to 70.0)"]


def test_evaluations_without_a_run_have_a_page(tmp_path: Path, metrics: dict[str, Any]) -> None:
    metrics["models"]["<b>"] = metrics["models"].pop("hardened")
    path = write_evaluation_report(tmp_path / "new" / "report.html", metrics)
    page = Page(path)
    assert path == tmp_path / "new" / "report.html" and list(path.parent.iterdir()) == [path]
    assert "Evaluation: mnist" in page.text and "<b>: Linf eps 0.3" in page.text
    assert page.row("worst case")[3] == "0.0 % (-3.1 to 2.6)"
    assert "How to repeat it" not in page.text and "Training" not in page.text
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 1 and str(images[0]["src"]).startswith("data:image/png")
    kept = tmp_path / "figures"
    write_evaluation_report(path, metrics, figures=kept)
    assert [file.name for file in kept.iterdir()] == ["radii.png"]


def test_a_run_without_results_has_a_page(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "b", "train", {"dataset": "digits"}) as run:
        reader = Page(write_report(run))
    assert "train: digits" in reader.text and "How to repeat it" in reader.text
    assert "Accuracy" not in reader.text and "Boundary samples" not in reader.text


def test_a_file_that_a_stage_left_and_that_is_gone_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.create(tmp_path / "a", "attack", {"dataset": "digits"}) as run:
        file = run.path / "evaluation-m.npz"
        np.savez(file, labels=np.arange(3))
        run.finish_stage("evaluate-m", files=[file])
        assert "damaged" not in Page(write_report(run)).text
        file.unlink()
        line = f"{file} is damaged or gone, and what it holds is left out; bcgan-tf attack"
        assert line in Page(write_report(run)).text and line in capsys.readouterr().err


def test_an_unfinished_evaluation_is_said(run: RunDirectory, metrics: dict[str, Any]) -> None:
    run.write_metrics(metrics | {"unfinished": True})
    line = "The evaluation is not finished; go on with: bcgan-tf "
    assert line in Page(write_report(run)).text
    run.write_metrics(metrics)
    assert line not in Page(write_report(run)).text


def test_a_toy_run_has_its_table(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "b", "toy", {"dataset": "gaussians"}) as run:
        run.write_metrics({"toy": [{"beta": 0.0, "distance": 2.1234567}, {"beta": 5.0}]})
        text = Page(write_report(run)).text
    assert "beta distance 0 2.123 5 -" in text


def test_a_boundary_run_has_its_table(tmp_path: Path) -> None:
    plane = {"plane": "own", "model": "a", "boundary_distance": None, "used_margin_gradient": True}
    with RunDirectory.create(tmp_path / "b", "boundary", {"dataset": "mnist"}) as run:
        run.write_metrics({"boundary": {"index": 3, "planes": [plane]}})
        text = Page(write_report(run)).text
    assert "plane model boundary distance used margin gradient own a - yes" in text


def test_names_cannot_break_the_page(tmp_path: Path, metrics: dict[str, Any]) -> None:
    metrics["models"]["<b>&"] = metrics["models"].pop("hardened")
    with RunDirectory.create(tmp_path / "b", "attack", {"dataset": "<i>"}) as run:
        run.write_metrics(metrics)
        reader = Page(write_report(run))
    assert "<b>&" in reader.text and "attack: <i>" in reader.text


def test_links_out_of_a_run_are_not_followed(run: RunDirectory, tmp_path: Path) -> None:
    secret = figures.image_grid(np.ones((1, 8, 8, 1), np.float32), tmp_path / "secret.png")
    picture = run.figures / "boundary_samples.png"
    picture.unlink()
    picture.symlink_to(secret)
    page = write_report(run)
    assert "boundary_samples.png is left out: a link, which is not followed." in Page(page).text
    assert base64.b64encode(secret.read_bytes()).decode() not in page.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"root:x:0:0", "it is no PNG"), (b"\x89PNG\r\n\x1a\n" + bytes(2**24), "more than 16.0 MiB")],
)
def test_what_is_no_picture_is_left_out(run: RunDirectory, content: bytes, words: str) -> None:
    (run.figures / "boundary_plane.png").write_bytes(content)
    page = write_report(run)
    assert f"boundary_plane.png is left out: {'it has ' if 'MiB' in words else ''}{words}" in (
        Page(page).text
    )
    assert len([tag for tag, _ in Page(page).tags if tag == "img"]) == 8


def test_a_report_writes_into_its_run_alone(run: RunDirectory, tmp_path: Path) -> None:
    """Neither through a link in place of its figures, nor where a stage is named like a path."""
    before = {path for path in tmp_path.rglob("*") if run.path not in path.parents}
    history = run.path / "history.csv"
    rows = history.read_text()
    history.write_text(f"{rows}/../../../planted,1,loss,0.5\n")
    with pytest.raises(UserError, match="planted' cannot name a stage of"):
        write_report(run)
    history.write_text(rows)
    away = tmp_path / "away"
    run.figures.rename(away)
    run.figures.symlink_to(away)
    kept = sorted(away.iterdir())
    with pytest.raises(UserError, match="names figures, which lies outside it"):
        write_report(run)
    assert sorted(away.iterdir()) == kept
    after = {path for path in tmp_path.rglob("*") if run.path not in path.parents}
    assert {path for path in after - before if away not in (path, *path.parents)} == set()


def test_names_that_utf8_cannot_write(run: RunDirectory, metrics: dict[str, Any]) -> None:
    metrics["dataset"] = "\ud800"
    metrics["models"]["a\ud800\0b"] = metrics["models"].pop("hardened")
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    (run.path / f"{COPY_PREFIX}metrics.json").unlink()
    assert "a?" in Page(write_report(run)).text
