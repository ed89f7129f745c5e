"""A setting's range: what it holds, what it says, and that every setting has one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import pytest

from bcgan_tf.attacks import APGD, FAB, FGSM, PGD, CarliniWagnerL2, Square
from bcgan_tf.defenses.presets import DEFENSES, defense
from bcgan_tf.errors import UserError
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.classifiers import deep_cnn, strided_cnn
from bcgan_tf.networks.wgan import wgan_critic
from bcgan_tf.reproduction.ablation_settings import AblationSettings
from bcgan_tf.reproduction.protocol import PROTOCOLS, RefinementSettings
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.fields import Checked, OneOf, Range, Setting, parsed, settings_of
from bcgan_tf.settings.figures import BoundarySettings, ToySettings
from bcgan_tf.settings.presets import Recipe, recipe

NAN, INF = float("nan"), float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tried(Checked):
    """One of each kind."""

    epochs: Annotated[int, Range(1, 1000)] = 3
    rate: Annotated[float, Range(0, 1, above=True)] = 0.5
    decay: Annotated[float, Range(0, 1, below=True)] = 0.0
    way: Annotated[str, OneOf("up", "down")] = "up"
    most: Annotated[int, Range(1, 9)] | None = None
    betas: tuple[Annotated[float, Range(0, 5)], ...] = (0.0, 1.0)
    on: bool = False
    free: float = 0.0

    def conflicts(self) -> Iterator[str]:
        if self.on and self.way == "down":
            yield "on and down do not go together"


@pytest.mark.parametrize(
    "good",
    [
        {"epochs": 1000, "rate": 1, "decay": 0, "most": None, "betas": [5]},
        {"epochs": np.int32(4), "rate": np.float32(0.5), "on": np.True_, "most": np.uint8(9)},
        {"decay": 0.999, "free": -1e300},
    ],
)
def test_what_is_in_range_is_taken_numpy_numbers_too(good) -> None:
    found = {name: getattr(Tried(**good), name) for name in good}
    assert found == good
    kinds = {"epochs": int, "most": int, "rate": float, "decay": float, "free": float}
    assert all(value is None or type(value) is kinds[k] for k, value in found.items() if k in kinds)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", 0, "0; choose a whole number from 1 to 1,000"),
        ("epochs", 2.0, "2.0; choose a whole number"),
        ("epochs", True, "True; choose a whole number"),
        ("epochs", "3", "'3'; choose a whole number"),
        ("epochs", None, "None; choose a whole number"),
        pytest.param("epochs", 10**5000, "a number of thousands of digits; choose", id="huge"),
        ("rate", 0.0, "0.0; choose a number above 0, at most 1"),
        ("rate", NAN, "nan; choose a number above 0"),
        ("decay", 1, "1; choose a number from 0, below 1"),
        ("decay", np.float32("inf"), "inf; choose"),
        ("free", INF, "inf; choose a number that is finite"),
        ("free", -INF, "-inf; choose a number that is finite"),
        ("free", 10**400, "choose a number that is finite"),
        ("way", "left", "'left'; choose up or down"),
        ("most", 0, "0; choose a whole number from 1 to 9, or none"),
        ("betas", (0.1, NAN), "0.1,nan; choose one or more, each a number from 0 to 5"),
        ("betas", (), "(); choose one or more"),
        ("betas", 0.1, "0.1; choose one or more"),
        ("on", 1, "1; choose true or false"),
    ],
)
def test_what_is_not_is_refused(name, value, wanted) -> None:
    with pytest.raises(UserError) as error:
        Tried(**{name: value})
    assert wanted in str(error.value) and str(error.value).startswith(f"{name} is ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_all_that_is_wrong_is_in_one_message() -> None:
    with pytest.raises(UserError, match=r"^epochs is 0; .*\. rate is nan; .*\. way is '\\n'; "):
        Tried(epochs=0, rate=NAN, way="\n")
    with pytest.raises(UserError, match=r"^on and down do not go together$"):
        Tried(on=True, way="down")
    given = {"epochs": "0", "rate": "8/0", "decay": "0.5", "colour": "red", "betas": "1,x"}
    with pytest.raises(UserError) as error:
        parsed("it", settings_of(Tried), given)
    for part in ("no setting 'colour'", "epochs is 0;", "rate is '8/0';", "betas is '1,x';"):
        assert part in str(error.value)
    assert "decay is" not in str(error.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Checked):
    """Types that a class of a user's own may have, which have no range."""

    table: dict[str, int] = dataclasses.field(default_factory=dict)
    call: Callable[[int], int] | None = None
    either: int | str = 1
    pair: tuple[int, str] = (1, "a")
    which: tuple[int, ...] = ()


def test_types_without_a_range_are_left_alone_and_an_empty_tuple_may_be_the_default() -> None:
    own = Own(table={"a": 1}, call=abs, either="b", pair=(2, "c"))
    assert own.which == () and Own(which=(1, 2)).which == (1, 2)
    with pytest.raises(UserError, match="which is "):
        Own(which=("x",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="betas is "):
        Tried(betas=())


def test_texts_stand_for_values() -> None:
    given = {"epochs": " 7 ", "rate": "1/4", "most": "none", "betas": "0.5, 8/4", "on": "yes"}
    found = parsed("it", settings_of(Tried), given)
    assert found == {"epochs": 7, "rate": 0.25, "most": None, "betas": (0.5, 2.0), "on": True}


def _all_settings() -> Iterator[tuple[type, Setting]]:
    attacks = (APGD, FAB, FGSM, PGD, CarliniWagnerL2, Square)
    others = (Recipe, EvaluationConfig, ToySettings, BoundarySettings, AblationSettings)
    reproduction = (*PROTOCOLS.values(), RefinementSettings)
    for kind in (*DEFENSES.values(), *attacks, *others, *reproduction):
        for setting in settings_of(kind).values():
            yield kind, setting


def test_every_number_of_every_setting_is_bounded_on_both_sides() -> None:
    for kind, setting in _all_settings():
        if setting.type in (int, float):
            assert isinstance(setting.allowed, Range) and setting.allowed != Range(), (
                kind.__name__,
                setting.name,
            )
            for value in (NAN, INF, -INF, 10**30, 1e30, -1, "1", True):
                one = (value,) if setting.many else value
                assert not setting.fits(one), (kind.__name__, setting.name, value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgd-at", {"learning_rate": "-1"}, "learning_rate is -1.0"),
        ("pgd-at", {"learning_rate": float("inf")}, "learning_rate is inf"),
        ("pgd-at", {"ramp_epochs": "nan"}, "ramp_epochs is nan"),
        ("pgd-at", {"ema_decay": "1"}, "ema_decay is 1.0; choose .*below 1"),
        ("pgd-at", {"step_ratio": "-2"}, "step_ratio is -2"),
        ("distillation", {"temperature": "1e20"}, r"temperature is 1e\+20; .* to 10,000"),
        ("bcgan", {"beta": "-1"}, "beta is -1"),
        ("bcgan", {"dropout": "nan"}, "dropout is nan"),
        ("bcgan", {"generator_width": "inf"}, "generator_width is inf"),
        ("bcgan-at", {"gan.real_target": "7"}, "gan.real_target is 7"),
        ("bcgan-at", {"gan.beta": ""}, "gan.beta is ''"),
        ("defense-gan", {"gan_learning_rate": "nan"}, "gan_learning_rate is nan"),
        ("bcgan-at", {"fakes": "none", "gan.beta": "1"}, "does not read gan.beta"),
        ("bcgan-at", {"fakes": "plain", "gan.beta": "1"}, "does not read gan.beta"),
        ("bcgan-ibp", {"fakes": "duplicates", "oracle_epochs": "1"}, "does not read oracle_ep"),
        ("bcgan-trades", {"fakes": "none", "fake_ratio": "1"}, "does not read fake_ratio"),
    ],
)
def test_a_defence_refuses_nonsense_and_what_it_would_ignore(name, options, message) -> None:
    with pytest.raises(UserError, match=message):
        defense(name, "digits", options=options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: strided_cnn((8, 8, 1), 10, width=NAN), "width is nan"),
        (lambda: deep_cnn((8, 8, 1), 10, width=INF, threshold=NAN), "width is inf.*threshold is"),
        (lambda: acgan_generator((8, 8, 1), 10, width=1e9), "width is 1000000000.0; .* to 16"),
        (lambda: acgan_discriminator((8, 8, 1), 10, dropout=NAN), "dropout is nan"),
        (lambda: wgan_critic((8, 8, 1), width=-1), "width is -1"),
        (lambda: FGSM(NAN), "eps is nan"),
        (lambda: PGD(0.1, steps=10**12, step_size=INF), "step_size is inf.*steps is 10000"),
        (lambda: FAB(0.1, eta=INF), "eta is inf"),
        (lambda: CarliniWagnerL2(learning_rate=1e9), "learning_rate is 1000000000.0"),
    ],
)
def test_networks_and_attacks_ask_the_same_ranges(build, message) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_an_option_that_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match="small_cnn has no threshold; strided_cnn, deep_cnn have"):
        recipe("mnist").changed({"threshold": 0.3})
    with pytest.raises(UserError, match="resnet18 has no threshold"):
        recipe("cifar10").changed({"threshold": 0.3})
    with pytest.raises(UserError, match="small_cnn has no architecture_width"):
        Recipe(dataset="mnist", preset="quick", architecture_width=0.5)
    # What only the preset said goes with the preset's network.
    plain = recipe("mnist", "robust").changed({"architecture": "small_cnn"})
    assert (plain.threshold, plain.architecture_width) == (0.0, 1.0)
    kept = recipe("mnist", "robust").changed({"architecture": "strided_cnn"})
    assert (kept.threshold, kept.architecture_width) == (0.4, 0.5)
