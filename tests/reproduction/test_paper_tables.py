"""The paper's figures, and the bound that some of them break."""

from __future__ import annotations

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper


def test_the_tables_have_the_same_rows():
    for table in (paper.TABLE_1, paper.TABLE_2):
        assert set(table) == {"mnist", "fashion_mnist", "cifar10"} == set(paper.FGSM_EPS)
        for rows in table.values():
            assert tuple(rows) == paper.ROWS


def test_the_bound_of_the_grey_image():
    assert paper.largest_mean_rho("[0, 1]") == pytest.approx(0.55)
    assert paper.largest_mean_rho("[-1, 1]") == pytest.approx(1.10)
    assert paper.largest_mean_rho("[0, 1]", classes=2) == pytest.approx(0.75)
    with pytest.raises(UserError, match="no unit"):
        paper.largest_mean_rho("0 ... 255")


@pytest.mark.parametrize("dataset", paper.TABLE_1)
def test_which_rows_are_impossible_in_either_unit(dataset):
    """Distillation's and BCGAN's rho in both units; CW above clean for BCGAN on Fashion-MNIST."""
    in_both = {
        row
        for row in paper.ROWS
        if sum("rho" in reason for reason in paper.impossible(dataset, row)) == 2
    }
    assert in_both == {"distillation", "bcgan"}
    above_clean = {
        row for row in paper.ROWS if any("CW" in r for r in paper.impossible(dataset, row))
    }
    expected = {"mnist": set(), "fashion_mnist": {"pgd-at", "bcgan"}, "cifar10": set()}
    assert above_clean == expected[dataset]
    assert not paper.impossible(dataset, "original")
