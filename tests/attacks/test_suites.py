"""What each suite is made of: the budgets of the published AutoAttack."""

from __future__ import annotations

import pytest

from bcgan_tf.attacks.suites import suite
from bcgan_tf.errors import UserError
from bcgan_tf.settings.kinds import SUITES


def _told(name, **options):
    attacks = suite(name, 0.3, num_classes=10, **options)
    return {attack.name: attack.config() for attack in attacks}


def test_standard_is_autoattacks_order_and_budget():
    attacks = _told("standard")
    assert list(attacks) == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert attacks["APGD-CE"]["steps"] == 100 and attacks["APGD-CE"]["restarts"] == 1
    assert attacks["APGD-T"]["steps"] == 100 and attacks["APGD-T"]["target_classes"] == 9
    assert attacks["FAB-T"]["steps"] == 100 and attacks["FAB-T"]["target_classes"] == 9
    fab = attacks["FAB-T"]
    assert (fab["alpha_max"], fab["eta"], fab["beta"]) == (0.1, 1.05, 0.9)
    assert attacks["Square"]["queries"] == 5000 and attacks["Square"]["p_init"] == 0.8


def test_plus_has_five_restarts_and_the_targeted_attacks():
    attacks = _told("plus")
    assert list(attacks) == ["APGD-CE", "APGD-DLR", "FAB", "Square", "APGD-T", "FAB-T"]
    assert [attacks[name]["restarts"] for name in ("APGD-CE", "APGD-DLR", "FAB")] == [5, 5, 5]


def test_fast_is_two_cheap_attacks_and_standard_on_what_they_brought_near():
    attacks = _told("fast")
    assert list(attacks) == ["CR", "Square (short)", "CR (near)", "APGD-T (near)", "Square (near)"]
    relaxed, short, again, targeted, square = attacks.values()
    assert (relaxed["targets"], relaxed["cycles"], relaxed["restarts"]) == (3, 5, 0)
    assert (again["targets"], again["cycles"], again["restarts"]) == (3, 5, 4)
    standard = _told("standard")
    assert (targeted, square) == (standard["APGD-T"], standard["Square"])
    assert short == standard["Square"] | {"queries": 500}
    got = [(attack.near, attack.first) for attack in suite("fast", 0.3, num_classes=10)]
    assert got == [(None, None), (None, None), (0.1, None), (0.05, None), (0.25, None)]
    assert suite("fast", 0.3, num_classes=2)[0].config()["targets"] == 1


@pytest.mark.parametrize(("name", "targets"), [("standard", 9), ("plus", 9), ("fast", 1)])
def test_a_search_in_bfloat16_ends_with_a_short_targeted_apgd(name, targets):
    plain = suite(name, 0.3, num_classes=10)
    *same, last = suite(name, 0.3, num_classes=10, precision="bfloat16")
    assert tuple(same) == plain
    config = last.config()
    sample = " (sample)" if name == "fast" else ""
    assert (last.name, config["steps"]) == ("APGD-T in float32" + sample, 20)
    assert last.first == (200 if sample else None)
    assert config["target_classes"] == targets
    assert suite("rand", 0.3, num_classes=10, precision="bfloat16") == suite(
        "rand", 0.3, num_classes=10
    )


def test_rand_and_paper():
    assert list(_told("rand")) == ["APGD-CE", "APGD-DLR"]
    assert list(_told("paper")) == ["FGSM", "PGD-40", "CW-L2"]


@pytest.mark.parametrize("name", SUITES)
def test_eps_norm_and_seed_reach_every_attack_that_has_them(name):
    for attack in suite(name, 0.5, norm="l2", num_classes=10, seed=7, batch_size=11):
        config = attack.config()
        assert config["seed"] == 7 and config["batch_size"] == 11
        assert config.get("eps", 0.5) == 0.5 and config.get("norm", "l2") == "l2"


def test_there_are_no_more_targets_than_other_classes():
    attacks = _told("standard")
    few = {attack.name: attack.config() for attack in suite("standard", 0.3, num_classes=4)}
    assert few["APGD-T"]["target_classes"] == 3 < attacks["APGD-T"]["target_classes"]


def test_unknown_suites_and_radii_are_refused():
    with pytest.raises(UserError, match="no suite 'strong'; choose one of standard"):
        suite("strong", 0.3, num_classes=10)
    with pytest.raises(UserError, match="eps is -1"):
        suite("standard", -1, num_classes=10)
