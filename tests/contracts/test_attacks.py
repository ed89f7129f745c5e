"""Every attack holds the contract."""

from __future__ import annotations

import inspect

import pytest

from bcgan_tf import attacks
from bcgan_tf.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    Attack,
    CarliniWagnerL2,
    ConstraintRelaxation,
    Square,
)
from helpers.contracts import assert_attack_contract

ATTACKS = {
    "fgsm": FGSM(0.02),
    "fgsm-l2": FGSM(0.12, norm="l2"),
    "pgd-restarts": PGD(0.02, steps=5, restarts=2),
    "pgd-l2": PGD(0.12, steps=10, norm="l2"),
    "cw": CarliniWagnerL2(steps=20, binary_search_steps=3, learning_rate=0.1, initial_const=1.0),
    "apgd": APGD(0.02, steps=20),
    "apgd-t-l2": APGD(0.12, norm="l2", steps=20, loss="dlr", targeted=True, target_classes=2),
    "cr": ConstraintRelaxation(0.02, targets=2, cycles=2, restarts=1),
    "cr-l2": ConstraintRelaxation(0.12, norm="l2", targets=2, cycles=1, restarts=0),
    "fab-t": FAB(0.01, steps=8, target_classes=2, restarts=2),
    "fab-l2": FAB(0.05, norm="l2", steps=8, targeted=False, restarts=2),
    "fab-t-unbounded": FAB(None, steps=6, target_classes=2, restarts=2),
    "square": Square(0.05, queries=150),
    "square-l2": Square(0.25, norm="l2", queries=150),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_one(name):
    # Near a boundary a rounding turns an L2 step by a little.
    assert_attack_contract(ATTACKS[name], atol=1e-4 if name in ("apgd-t-l2", "cr-l2") else 1e-5)


def test_every_attack_is_in_the_table():
    public = {
        kind
        for kind in vars(attacks).values()
        if inspect.isclass(kind) and issubclass(kind, Attack) and not inspect.isabstract(kind)
    }
    assert public == {type(attack) for attack in ATTACKS.values()}
