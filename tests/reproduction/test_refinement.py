"""The curve against the refinement's steps: what is counted, what is kept, what is extrapolated."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bcgan_tf.data import Dataset
from bcgan_tf.defenses import BCGANTraining
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import refinement as module
from bcgan_tf.reproduction.protocol import RefinementSettings
from bcgan_tf.reproduction.refinement import marks_of, refinement
from bcgan_tf.reproduction.refinement_page import ZERO_AT, extrapolated
from bcgan_tf.reproduction.workspace import Workspace

TINY = RefinementSettings(gan_epochs=1, epochs=1, generated_batches=4, pgd_n=20, suite_n=20)


def curve(gaps: dict[int, float]) -> list[dict[str, float]]:
    return [{"steps": steps, "median_gap": gap} for steps, gap in gaps.items()]


def test_the_marks_are_spread_over_the_powers_of_ten():
    assert marks_of(3) == [0, 1, 2, 3]
    assert marks_of(480) == [0, 1, 2, 5, 10, 20, 50, 100, 200, 480]


def test_a_power_law_is_extrapolated_to_where_half_of_the_gradients_are_gone():
    """A gap of the root of the steps passes 103.3 after 103.3 squared steps."""
    found = extrapolated(curve({0: 0.1, 1000: 1000**0.5, 2000: 2000**0.5, 5000: 5000**0.5}))
    assert found == pytest.approx((0.5, ZERO_AT**2))


@pytest.mark.parametrize(
    "gaps",
    [
        {},
        {0: 1.0, 1000: 30.0, 2000: 40.0},  # two points
        {0: 1.0, 10: 9.0, 2000: 30.0, 5000: 40.0},  # the third is not within a tenfold
        {1000: 40.0, 2000: 40.0, 5000: 40.0},  # no growth
        {1000: 40.0, 2000: 90.0, 5000: 200.0},  # there already
        {10: 20.0, 20: 20.01, 50: 20.02},  # in more steps than there are numbers for
        {1000: None, 2000: 40.0, 5000: 50.0},  # of one point no gap is known
    ],
)
def test_nothing_else_is_extrapolated(gaps):
    assert extrapolated(curve(gaps)) is None


@pytest.fixture
def workspace(digits, tmp_path) -> Workspace:
    """Embedded digits under the name of a data set that has the preset."""
    train = digits.train.take(300, seed=0)
    data = Dataset("mnist", train, digits.validation, digits.test, digits.class_names)
    return Workspace(data, "quick", 0, tmp_path / "cache")


def test_both_ways_are_measured_after_as_many_steps(workspace, tmp_path, counted):
    """Six real batches an epoch: ten steps with the generated ones, twelve of the control.

    The control on another machine, without the cache of the first: it needs no GAN, and joins the
    other on its page.
    """

    def published(*ways: str, **changed) -> tuple[str, dict]:
        place = dataclasses.replace(workspace, **changed)
        page = refinement(place, TINY, ways, results=tmp_path, command="again")
        assert page.with_suffix(".png").exists()
        return page.read_text(), json.loads(page.with_suffix(".json").read_text())

    _, first = published("generated")
    assert list(first["ways"]) == ["generated"]
    trained = counted(BCGANTraining, "train_gan")
    page, document = published("real", cache=tmp_path / "elsewhere")
    assert trained == []
    assert list(document["ways"]) == ["generated", "real"]
    assert document["ways"]["generated"] == first["ways"]["generated"]
    assert document["steps"] == {"generated": 4, "real": 6}
    with_fakes, control = (document["ways"][way]["points"] for way in ("generated", "real"))
    assert [one["steps"] for one in with_fakes] == [0, 10]
    assert [one["steps"] for one in control] == [0, 12]  # whole epochs
    assert with_fakes[0] == control[0] != with_fakes[-1]
    for one in (*with_fakes, *control):
        assert one["fast"] <= one["clean"] and 0 <= one["zero_gradient"] <= 1
        assert one["median_gap"] > 0 and one["largest_logit"] > 0
    assert "## Generated and real images" in page and "## Real images alone" in page
    assert "4 batches of 50 generated images" in page and "(6 batches)" in page
    # What is there already is not measured again.
    measured = counted(module, "_measured")
    assert published("generated") == (page, document)
    assert measured == []
    # In other numbers of images it cannot be measured again.
    more = dataclasses.replace(TINY, pgd_n=30, suite_n=10)
    with pytest.raises(UserError, match="measured with -o pgd_n=20 -o suite_n=20"):
        refinement(workspace, more, results=tmp_path / "more", command="again")
    assert not (tmp_path / "more" / "refinement-mnist.json").exists()
    _, both = published()  # both ways, the control in this cache for the first time
    for way, found in both["ways"].items():
        assert found["points"] == document["ways"][way]["points"]
    # The dtype and the epochs are the GAN's: it is no other control.
    assert len(measured) > 0
    measured.clear()
    other = dataclasses.replace(TINY, dtype="mixed_bfloat16", gan_epochs=2)
    refinement(workspace, other, ("real",), results=tmp_path / "bfloat16", command="again")
    assert measured == []
