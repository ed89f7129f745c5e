"""The sizes and radii of a protocol, and what it refuses."""

from __future__ import annotations

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import paper, protocol
from bcgan_tf.reproduction.rows import defense_of_row


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


def test_rows_of_accumulated_gradients_are_of_the_authors_protocol_alone():
    known = protocol.AuthorsProtocol.rows
    assert known == (
        *protocol.ROWS,
        *(f"{r}-accumulated" for r in ("fgsm-at-1", "fgsm-at-2", "pgd-at")),
    )
    assert protocol.check_rows(["pgd-at-accumulated", "bcgan"], known)[-1] == "pgd-at-accumulated"
    with pytest.raises(UserError, match="no row 'pgd-at-accumulated'"):
        protocol.check_rows(["pgd-at-accumulated"])


@pytest.mark.parametrize(
    "row, dataset, eps",
    [
        ("fgsm-at-1-accumulated", "mnist", 0.1),
        ("fgsm-at-2-accumulated", "fashion_mnist", 0.075),
        ("pgd-at-accumulated", "mnist", 0.15),
        ("pgd-at-accumulated", "cifar10", 0.04),  # 8 steps of 0.005
    ],
)
def test_they_learn_from_the_whole_path_at_the_radius_of_the_code(row, dataset, eps):
    found = defense_of_row(row, dataset)
    assert found.accumulate and found.clean_weight == 0 and found.eps == pytest.approx(eps)
    plain = defense_of_row(row.removesuffix("-accumulated"), dataset)
    assert type(plain) is type(found) and not plain.accumulate
