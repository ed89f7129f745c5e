"""Figure 4 for several models: which image, which planes, known distances, resume."""

from __future__ import annotations

from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest

from bcgan_tf import data as datasets
from bcgan_tf.data import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.workflows import boundary as boundaries
from bcgan_tf.workflows.boundary import BoundarySettings, boundary, choose_image

QUICK = BoundarySettings(samples=8, resolution=41, extent=2.0, pgd_steps=5)
SHAPE = (4, 4, 1)


def linear(direction: np.ndarray, offset: float) -> keras.Model:
    """Two classes; class 1 where ``direction @ (x - 0.5) > offset``, for a unit direction."""
    inputs = keras.Input(SHAPE)
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    slope = np.stack([np.zeros(16), direction], axis=1)
    dense.set_weights([slope, np.array([0.0, -offset - 0.5 * direction.sum()])])
    return model


@pytest.fixture(scope="module")
def directions() -> np.ndarray:
    """Two orthonormal directions of 16 pixels, ``[2, 16]``."""
    random = np.random.default_rng(0).standard_normal((16, 2))
    return np.linalg.qr(random)[0].T


@pytest.fixture(scope="module")
def models(directions) -> dict[str, keras.Model]:
    """Boundaries at 0.3 along one direction, and at 0.7 along the other, from the grey image."""
    return {"original": linear(directions[0], 0.3), "hardened": linear(directions[1], 0.7)}


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Test image 0 is grey with a wrong label, image 2 grey with its right one."""
    images = np.full((4, *SHAPE), 128, np.uint8)
    images[1] = 255
    test = Split(images, np.array([1, 1, 0, 0]))
    return Dataset("grey", test, test, test, ("dark", "light"))


def entry(metrics: dict, plane: str, model: str) -> dict:
    rows = metrics["boundary"]["planes"]
    (found,) = [row for row in rows if (row["plane"], row["model"]) == (plane, model)]
    return found


def test_two_linear_models(tmp_path, data, models):
    with RunDirectory.create(tmp_path / "run", "boundary", QUICK.to_dict()) as run:
        metrics = boundary(run, data, models, QUICK)
        assert run.metrics() == metrics
    # Grey 128 is 0.00196 above 0.5 in each pixel: less than 0.008 along any unit direction.
    close = {"abs": 0.01}
    own = entry(metrics, "own directions", "original")
    assert own["boundary_distance"] == pytest.approx(0.3, **close)
    assert own["label_share"] == pytest.approx((2 + 0.3) / 4, abs=0.03)
    assert own["used_random_orthogonal"] and not own["used_margin_gradient"]
    hardened = entry(metrics, "own directions", "hardened")
    assert hardened["boundary_distance"] == pytest.approx(0.7, **close)
    # On the original's directions the other model's boundary is orthogonal to u: out of sight.
    assert entry(metrics, "directions of original", "original") == {
        **own,
        "plane": "directions of original",
    }
    assert entry(metrics, "directions of original", "hardened")["boundary_distance"] is None
    # PGD in Linf goes along the signs: further in L2 than the straight way, and still through.
    for model, straight in (("original", 0.3), ("hardened", 0.7)):
        assert straight - 0.01 < entry(metrics, "own PGD", model)["boundary_distance"] < 2
    pictures = sorted(path.stem for path in (tmp_path / "run" / "figures").glob("*.png"))
    kinds = ["gradient_own", "gradient_shared", "pgd_own", "pgd_shared"]
    assert pictures == [f"boundary_plane_{kind}" for kind in kinds]


def test_the_first_image_that_all_classify_right(data, models):
    assert choose_image(data, {"original": models["original"]}) in (1, 2)
    assert choose_image(data, {"a": models["original"], "b": models["hardened"]}, 2) == 2
    right = [
        i
        for i in range(4)
        if all(
            np.argmax(m(data.test.scaled(i, i + 1))) == data.test.labels[i] for m in models.values()
        )
    ]
    assert choose_image(data, models) == right[0] and 0 not in right


def test_unfit_images(tmp_path, data, models, directions):
    with pytest.raises(UserError, match="image 0 is of class light, but original says dark"):
        choose_image(data, models, 0)
    with pytest.raises(UserError, match="no test image 4; choose 0 to 3"):
        choose_image(data, models, 4)
    # Everything is light to this one, everything but white is dark to the original.
    light = linear(directions[0], -9.0)
    grey = Dataset("grey", *[Split(data.test.images[2:], data.test.labels[2:])] * 3, ("d", "l"))
    with pytest.raises(UserError, match="no test image is classified right by all"):
        choose_image(grey, {**models, "light": light})
    with (
        RunDirectory.create(tmp_path / "run", "boundary", {}) as run,
        pytest.raises(UserError, match="vectors, not images"),
    ):
        boundary(run, datasets.load_dataset("gaussians"), models, QUICK)


def test_wrong_settings():
    with pytest.raises(UserError, match="index"):
        BoundarySettings(index=-1)
    with pytest.raises(UserError, match="eps"):
        BoundarySettings(eps=0.0)


def test_one_model_has_no_planes_of_others(tmp_path, data, models):
    with RunDirectory.create(tmp_path / "run", "boundary", {}) as run:
        metrics = boundary(run, data, {"original": models["original"]}, QUICK)
    assert [row["plane"] for row in metrics["boundary"]["planes"]] == [
        "directions of original",
        "PGD on original",
    ]


def test_a_stopped_run_keeps_the_planes_that_are_done(tmp_path, data, models, monkeypatch):
    with RunDirectory.create(tmp_path / "whole", "boundary", {}) as run:
        expected = boundary(run, data, models, QUICK)

    drawn: list[Path] = []
    real = boundaries.planes.boundary_planes

    def stopped(planes, path, **options):
        if len(drawn) == 2:
            drawn.append(Path("stop"))
            raise KeyboardInterrupt
        drawn.append(path)
        return real(planes, path, **options)

    monkeypatch.setattr(boundaries.planes, "boundary_planes", stopped)
    with (
        RunDirectory.create(tmp_path / "stopped", "boundary", {}) as run,
        pytest.raises(KeyboardInterrupt),
    ):
        boundary(run, data, models, QUICK)
    with RunDirectory.create(tmp_path / "stopped", "boundary", {}, resume=True) as run:
        assert boundary(run, data, models, QUICK) == expected
    assert len(drawn) == 5 and len(set(drawn)) == 5
    for name in ("gradient_shared", "pgd_own"):
        whole, resumed = (
            matplotlib.image.imread(tmp_path / run / "figures" / f"boundary_plane_{name}.png")
            for run in ("whole", "stopped")
        )
        np.testing.assert_array_equal(whole, resumed)
