"""The sizes and radii of a protocol, and what it refuses."""

from __future__ import annotations

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper, protocol


def test_the_rows_are_those_that_can_be_trained():
    assert (*paper.ROWS, "trades") == protocol.ROWS


def test_both_pixel_units():
    radii = protocol.protocol("mnist").radii()
    assert radii["[0, 1]"] == {"fgsm-1": 0.2, "fgsm-2": 0.4, "pgd": 0.4}
    assert radii["[-1, 1]"] == {"fgsm-1": 0.1, "fgsm-2": 0.2, "pgd": 0.2}


@pytest.mark.parametrize("dataset", protocol.DATASETS)
def test_what_the_paper_states_is_as_it_states_it(dataset):
    found = protocol.protocol(dataset, "paper")
    assert found.fgsm_eps == paper.FGSM_EPS.get(dataset, (0.1, 0.2))
    assert found.pgd_steps == paper.PGD_STEPS.get(dataset, 40)
    assert (found.n, found.cw_n, found.standard_n, found.rho_n) == (0, 1000, 1000, 1000)
    assert (found.cw_steps, found.cw_learning_rate) == (1000, 0.01)


def test_options_are_numbers_or_text():
    found = protocol.protocol("digits", options={"eps": "8/255", "n": "12", "cw_n": 3})
    assert (found.eps, found.n, found.cw_n) == (8 / 255, 12, 3)
    assert found.to_dict()["fgsm_eps"] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nn": "3"}, "no setting 'nn'"),
        ({"fgsm_eps": "0.1"}, "no setting 'fgsm_eps'"),
        ({"n": "many"}, "n is 'many'; choose a whole number"),
        ({"eps": "1/0"}, "eps is '1/0'; choose a number"),
        ({"eps": "2"}, "eps is 2.0"),
        ({"eps": "nan"}, "eps is nan"),
        ({"n": "-1"}, "n is -1"),
        ({"cw_steps": "0"}, "cw_steps is 0"),
        ({"answers": "1"}, "answers is 1; choose a whole number from 2"),
    ],
)
def test_other_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        protocol.protocol("digits", options=options)


def test_other_data_sets_and_rows_are_refused():
    with pytest.raises(UserError, match="no data set 'gaussians'; choose one of mnist"):
        protocol.protocol("gaussians")
    with pytest.raises(UserError, match="no row 'magic'; choose from original"):
        protocol.check_rows(["original", "magic"])


def test_rows_are_put_in_the_tables_order():
    assert protocol.check_rows([]) == protocol.ROWS
    assert protocol.check_rows(["trades", "original"]) == ("original", "trades")
