"""Figures 2 and 4 of the reproduction: their pages say what was computed, and nothing is redone."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from bcgan_tf.data import Dataset, Split
from bcgan_tf.data import load_dataset as load_data
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import picture_pages, pictures
from bcgan_tf.reproduction import toy as toys
from bcgan_tf.reproduction.workspace import Workspace
from bcgan_tf.workflows import boundary as boundaries
from bcgan_tf.workflows.boundary import BoundarySettings

TINY = {"betas": (0.0, 5.0), "steps": 3, "classifier_steps": 3, "samples": 20}
QUICK = BoundarySettings(samples=8, resolution=41, extent=2.0, pgd_steps=5)


# ---- Figure 2


def test_what_the_data_have_by_calculation():
    data = load_data("gaussians").test  # 10,000 points: three standard errors below
    points, expected = data.scaled(), picture_pages.expected_of_data()
    score = points.astype("float64").sum(axis=1)
    p = 1 / (1 + np.exp(-3 * score))
    measured = {
        "mean_distance": np.abs(score) / np.sqrt(2),
        "kl_to_uniform": -np.log(2) - (np.log(p) + np.log1p(-p)) / 2,
        "bayes_accuracy": (score > 0) == data.labels,
    }
    assert expected.keys() == measured.keys()
    for name, values in measured.items():
        error = 3 * values.std() / np.sqrt(len(values))
        assert expected[name] == pytest.approx(values.mean(), abs=error), name
    assert expected["mean_distance"] == pytest.approx(2.1335, abs=1e-3)


def panel(beta: float, distance: float, divergence: float, truth: float) -> dict[str, float]:
    return {
        "beta": beta,
        "mean_distance": distance,
        "kl_to_uniform": divergence,
        "bayes_accuracy": truth,
        "classifier_accuracy": truth,
    }


def test_what_holds_and_what_does_not():
    expected = picture_pages.expected_of_data()
    good = [panel(0, 2.1, 3.9, 0.98), panel(1, 1.0, 1.5, 0.9), panel(5, 0.3, 0.2, 0.6)]
    held = picture_pages.figure2_findings(good, expected)
    assert len(held) == 4 and all("Holds:" in sentence for sentence in held)
    assert "0.98 times as far" in held[0] and "2.10, 1.00, 0.30" in held[1]
    bad = [panel(0, 1.0, 1.0, 0.9), panel(1, 1.2, 1.0, 0.95)]
    failed = picture_pages.figure2_findings(bad, expected)
    assert len(failed) == 4 and all("Does not hold:" in sentence for sentence in failed)
    assert picture_pages.figure2_findings(good[1:2], expected) == []  # nothing to compare


def test_figure2_is_resumed_after_a_kill_and_its_page_has_the_numbers_of_the_run(
    tmp_path, monkeypatch
):
    trained: list[float] = []
    real = toys.train_gan

    def stopped(data, classifier, beta, settings):
        if beta == 5.0 and len(trained) == 1:
            trained.append(-1.0)
            raise KeyboardInterrupt
        trained.append(beta)
        return real(data, classifier, beta, settings)

    monkeypatch.setattr(toys, "train_gan", stopped)
    results, cache = tmp_path / "results", tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        pictures.figure2(results, cache, 3, **TINY)
    assert not (results / "figure2.md").exists()
    page = pictures.figure2(results, cache, 3, command="this command", **TINY)
    assert trained == [0.0, -1.0, 5.0]
    text = page.read_text()
    (metrics,) = [toys.RunDirectory.open(path).metrics() for path in cache.iterdir()]
    for found in metrics["toy"]:
        assert f"| beta {found['beta']:g} | {found['mean_distance']:.3f} |" in text
    for words in ("    this command", "![Figure 2](figure2.png)", "Seed 3", "TensorFlow", "cores"):
        assert words in text, words

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(toys, "train_gan", never)
    monkeypatch.setattr(toys, "train_classifier", never)
    page.unlink()
    (results / "figure2.png").unlink()
    again = pictures.figure2(results, cache, 3, command="this command", **TINY)
    assert again.read_text() == text
    assert (results / "figure2.png").read_bytes() == next(
        cache.glob("gaussians-toy-*/figures/toy.png")
    ).read_bytes()
    with pytest.raises(AssertionError, match="trained again"):  # other settings, another run
        pictures.figure2(results, cache, 4, **TINY)


# ---- Figure 4


def linear(direction: np.ndarray, offset: float) -> keras.Model:
    """Two classes of 4x4 images; class 1 where ``direction @ (x - 0.5) > offset``."""
    inputs = keras.Input((4, 4, 1))
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    slope = np.stack([np.zeros(16), direction], axis=1)
    dense.set_weights([slope, np.array([0.0, -offset - 0.5 * direction.sum()])])
    return model


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Grey images, of which the second is class 0 to the models below."""
    images = np.full((2, 4, 4, 1), 128, np.uint8)
    images[0] = 255
    split = Split(images, np.array([1, 0]))
    data = Dataset("digits", split, split, split, ("dark", "light"))
    return Workspace(data=data, preset="quick", seed=0, cache=tmp_path / "cache", devices=None)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that were asked for; boundaries at 0.3, and 0.7 along another direction."""
    u, v = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 2)))[0].T
    models = {"original": linear(u, 0.3), "bcgan": linear(v, 0.7), "pgd-at": linear(u, 0.5)}
    asked: list[str] = []

    def file_of(_workspace: Workspace, row: str) -> Path:
        asked.append(row)
        file = tmp_path / f"{row}.keras"
        if not file.exists():
            models[row].save(file)
        return file

    monkeypatch.setattr(pictures.table_rows, "trained", file_of)
    return asked


def test_figure4_draws_the_original_first_and_leaves_defense_gan_out(tmp_path, workspace, trained):
    rows = ("bcgan", "defense-gan", "pgd-at")
    page = pictures.figure4(workspace, tmp_path / "results", rows, settings=QUICK)
    assert trained == ["original", "bcgan", "pgd-at"]
    text = page.read_text()
    assert page.name == "figure4-digits.md" and "Left out: defense-gan" in text
    assert "--seed 0 --rows bcgan,defense-gan,pgd-at\n" in text and "Test image 1 (" in text
    own = {
        model: float(text.split(f"| own directions | {model} | ")[1].split(" |")[0])
        for model in ("original", "bcgan", "pgd-at")
    }
    assert own == pytest.approx({"original": 0.3, "bcgan": 0.7, "pgd-at": 0.5}, abs=0.02)
    # The bcgan model's boundary is orthogonal to the original's direction: out of the shared plane.
    assert "| directions of original | bcgan | beyond 2 |" in text
    assert "bcgan: along original's averaged gradient beyond 2, along its own at 0." in text
    assert "Its own direction is the shorter way" in text
    for kind in ("gradient-shared", "gradient-own", "pgd-shared", "pgd-own"):
        picture = tmp_path / "results" / f"figure4-digits-{kind}.png"
        assert f"({picture.name})" in text
        assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size < 1_000_000


def test_figure4_is_not_drawn_again(tmp_path, workspace, trained, monkeypatch):
    results = tmp_path / "results"
    text = pictures.figure4(workspace, results, ["bcgan"], settings=QUICK).read_text()
    for file in results.iterdir():
        file.unlink()

    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(boundaries, "boundary_plane", never)
    monkeypatch.setattr(boundaries, "choose_image", never)
    again = pictures.figure4(workspace, results, ["bcgan"], settings=QUICK)
    assert again.read_text() == text and len(list(results.iterdir())) == 5
    other = pictures.BoundarySettings(samples=9, resolution=41, extent=2.0, pgd_steps=5)
    with pytest.raises(AssertionError, match="computed again"):
        pictures.figure4(workspace, results, ["bcgan"], settings=other)


def test_rows_that_cannot_be_drawn_side_by_side(tmp_path, workspace, trained):
    with pytest.raises(UserError, match="6 models"):
        pictures.figure4(
            workspace, tmp_path, ["bcgan", "pgd-at", "trades", "fgsm-at-1", "fgsm-at-2"]
        )
    with pytest.raises(UserError, match="no row 'ours'"):
        pictures.figure4(workspace, tmp_path, ["ours"])
    assert trained == []


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        (1.0, 1.05, "no farther in either"),
        (2.0, 1.0, "only where the original's gradient points"),
        (None, 1.5, "overstates the gain"),
        (2.0, 2.0, "moved away in its own direction"),
        (None, None, "moved away in its own direction"),
        (2.0, 0.5, "came nearer"),
    ],
)
def test_what_the_two_planes_say_together(there, here, words):
    planes = [
        {"plane": plane, "model": model, "boundary_distance": d, "used_margin_gradient": False}
        for plane, model, d in (
            ("directions of a", "a", 1.0),
            ("directions of a", "b", there),
            ("own directions", "a", 1.0),
            ("own directions", "b", here),
            ("PGD on a", "a", 1.0),
            ("PGD on a", "b", there),
            ("own PGD", "a", 1.0),
            ("own PGD", "b", here),
        )
    ]
    found = picture_pages.figure4_findings({"original": "a", "planes": planes}, 8.0)
    assert len(found) == 4 and words in found[1] and words in found[3]
    assert found[0] == "a: along its averaged gradient the boundary lies at 1.00."


def test_a_gradient_that_leads_nowhere_is_said():
    def plane(name: str, model: str, distance: float | None, margin: bool = False) -> dict:
        return {
            "plane": name,
            "model": model,
            "boundary_distance": distance,
            "used_margin_gradient": margin,
        }

    planes = [
        plane("directions of a", "a", 1.0),
        plane("directions of a", "b", 2.0),
        plane("own directions", "a", 1.0),
        plane("own directions", "b", None, margin=True),
        plane("PGD on a", "a", 3.0),
        plane("PGD on a", "b", 6.0),
        plane("own PGD", "a", 3.0),
        plane("own PGD", "b", 5.0),
    ]
    found = picture_pages.figure4_findings({"original": "a", "planes": planes}, 8.0)
    assert "b: its own gradient at the image does not lead" in found[4] and "at 5.00" in found[4]
    assert found[3].endswith("Its PGD had no gradient to follow: that says nothing.")
    assert found[5].startswith("b: the cross entropy has no gradient") and len(found) == 6
    alone = [planes[0], planes[4]]
    assert len(picture_pages.figure4_findings({"original": "a", "planes": alone}, 8.0)) == 2
