"""A setting is declared once: its name, type, range, default and help.

A dataclass of settings inherits from :class:`Checked`::

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Training(Checked):
        epochs: Annotated[int, Range(1, 1000)] = setting(3, "Epochs of training.")
        augment: Annotated[str, OneOf("none", "flip")] = setting("none", "Change of each image.")

From that come its checks, its docstring, the command line's options, ``-o NAME=VALUE``, TOML
files, environment variables, JSON, and docs/settings.md. The arguments of a function decorated
with :func:`checked` have the same ranges.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, Self, TypeVar

from bcgan_tf.errors import UserError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LONGEST = 60
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds; ``above`` and ``below`` leave out the bound itself."""

    least: float = -sys.float_info.max
    most: float = sys.float_info.max
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        low = self.least < value if self.above else self.least <= value
        return bool(low and (value < self.most if self.below else value <= self.most))

    def __str__(self) -> str:
        if self == Range():
            return "that is finite"
        if not self.above and not self.below:
            return f"from {_number(self.least)} to {_number(self.most)}"
        low = f"{'above' if self.above else 'from'} {_number(self.least)}"
        return f"{low}, {'below' if self.below else 'at most'} {_number(self.most)}"


class OneOf(tuple[str, ...]):
    """Names to choose from."""

    def __new__(cls, *names: str) -> OneOf:
        return super().__new__(cls, names)

    def __str__(self) -> str:
        return " or ".join([", ".join(self[:-1]), self[-1]] if len(self) > 1 else self)


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    by_dataset: Mapping[str, Any] | None = None,
) -> Any:
    """A field of a dataclass of settings.

    Args:
        default: the value where none is given; without one, a value must be given.
        help: one or more sentences for the command line, the docstring and the docs.
        by_dataset: data set to default, where named presets and the command line differ from
            ``default``.
    """
    about = {"help": help, "by_dataset": by_dataset or {}}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one setting may be.

    Attributes:
        name: the field's or argument's.
        type: of its value, or of each of its values. A type of one's own may have a class method
            ``parse`` from text, of which its ``str`` is the inverse, and ``exists``, whether there
            is such a value; ``WANTED`` is its values in words.
        allowed: which values of that type.
        optional: None is allowed too.
        many: a tuple of values.
        default: the value where none is given; None too where one must be.
        help: what it does.
        by_dataset: data set to default.
    """

    name: str
    type: type
    allowed: Range | OneOf | None = None
    optional: bool = False
    many: bool = False
    default: Any = None
    help: str = ""
    by_dataset: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, name: str, hint: Any, default: Any = None, help: str = "", **more: Any) -> Setting:
        """The setting that a type with a range declares."""
        optional = many = False
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
            optional = len(kinds) < len(typing.get_args(hint))
            hint = kinds[0] if len(kinds) == 1 else object
        if typing.get_origin(hint) is tuple:
            kinds = set(typing.get_args(hint)) - {...}
            hint, many = kinds.pop() if len(kinds) == 1 else object, True
        kind, allowed = hint, None
        if typing.get_origin(hint) is typing.Annotated:
            kind, allowed = typing.get_args(hint)
        if not isinstance(kind, type) or typing.get_origin(kind):  # of a user's own: anything
            kind = object
        if allowed is None and kind in (int, float):
            allowed = Range()
        return cls(name, kind, allowed, optional, many, default, help, **more)

    @property
    def wanted(self) -> str:
        """The values it may have, in words."""
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        text = words.get(self.type) or getattr(self.type, "WANTED", f"a {self.type.__name__}")
        if isinstance(self.allowed, OneOf):
            text = str(self.allowed)
        elif self.allowed is not None:
            text += f" {self.allowed}"
        if self.many:
            text = f"one or more, each {text}"
        return f"{text}, or none" if self.optional else text

    def fits(self, value: Any) -> bool:
        """Whether it is of the type, finite and within the range; NumPy's numbers count."""
        if value is None:
            return self.optional
        if not self.many:
            return self._fits(value)
        some = isinstance(value, tuple | list) and (bool(value) or self.default == ())
        return some and all(map(self._fits, value))

    def _fits(self, value: Any) -> bool:
        truth = type(value).__name__ in ("bool", "bool_")
        if self.type is bool:
            return truth
        if self.type in (int, float):
            kind = numbers.Integral if self.type is int else numbers.Real
            return isinstance(value, kind) and not truth and self._allows(value)
        exists = getattr(value, "exists", True)
        return isinstance(value, self.type) and exists and self._allows(value)

    def _allows(self, value: Any) -> bool:
        return self.allowed is None or value in self.allowed

    def parse(self, text: str) -> Any:
        """The value that a text stands for; a number may be a fraction such as ``8/255``.

        Raises:
            ValueError, ZeroDivisionError: it stands for none.
        """
        if self.optional and text.strip().lower() == "none":
            return None
        if self.many:
            return tuple(self._parse(part.strip()) for part in text.split(","))
        return self._parse(text.strip())

    def text(self, value: Any) -> str:
        """What :meth:`parse` makes the value of."""
        if value is None:
            return "none"
        if self.many:
            return ",".join(map(self._text, value))
        return self._text(value)

    def _text(self, value: Any) -> str:
        if self.type is bool:
            return "true" if value else "false"
        return repr(float(value)) if self.type is float else str(value)

    def _parse(self, text: str) -> Any:
        if parse := getattr(self.type, "parse", None):
            return parse(text)
        if self.type is bool:
            if text.lower() not in _TRUTH:
                raise ValueError(text)
            return _TRUTH[text.lower()]
        if self.type is int:
            return int(text)
        if self.type is float:
            above, slash, below = text.partition("/")
            return float(above) / float(below) if slash else float(text)
        return text

    def read(self, given: Any, name: str | None = None) -> tuple[Any, str]:
        """The value that is given, as it is or as text; and what is wrong with it, or ``""``.

        Args:
            given: a value, or a text that stands for one.
            name: what the message calls the setting.
        """
        try:
            value = self.parse(given) if isinstance(given, str) else given
            value = tuple(value) if self.many and isinstance(value, list) else value
        except (ValueError, ZeroDivisionError):
            return None, self.fault(given, name)
        return value, "" if self.fits(value) else self.fault(value, name)

    def fault(self, value: Any, name: str | None = None) -> str:
        """What is wrong, and what to choose."""
        return f"{name or self.name} is {_shown(value)}; choose {self.wanted}"


class Checked:
    """A dataclass whose values are checked when it is made.

    Raises:
        UserError: values of another type or out of range, or values that do not go together; all
            are named.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        fields = {}
        for base in reversed(cls.__mro__):
            fields |= vars(base).get("__dataclass_fields__", {})
        fields |= {name: value for name, value in vars(cls).items() if _is_field(value)}
        helps = {name: field.metadata.get("help") for name, field in fields.items()}
        if lines := [f"    {name}: {text}" for name, text in helps.items() if text]:
            cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Args:", *lines])

    def __post_init__(self) -> None:
        known = settings_of(type(self))
        values = {name: getattr(self, name) for name in known}
        refuse(_faults(type(self), values))
        for name, value in values.items():
            kind = known[name].type
            if kind in (int, float) and isinstance(value, numbers.Real):  # of NumPy, or an int
                plain: Any = value
                object.__setattr__(self, name, kind(plain))
        refuse(self.conflicts())

    def conflicts(self) -> Iterator[str]:
        """What is wrong with values that are in range, each for itself: a sentence each."""
        return iter(())

    def to_dict(self) -> dict[str, Any]:
        """All settings, JSON-able."""
        values = {name: getattr(self, name) for name in settings_of(type(self))}
        return {name: _for_json(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote; other keys are left aside.

        Raises:
            UserError: values out of range; all are named.
        """
        known = settings_of(cls)
        given = {name: value for name, value in values.items() if name in known}
        for name, value in given.items():
            if issubclass(known[name].type, Checked) and isinstance(value, Mapping):
                given[name] = known[name].type.from_dict(value)
        return cls(**parsed(cls.__name__, known, given))


def check(owner: Any, **values: Any) -> None:
    """Checks arguments by hand: for an ``__init__``, whose signature Keras looks at.

    Raises:
        UserError: as :func:`checked`.
    """
    refuse(_faults(owner, values))


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Checks the arguments that have a range in their type before the function is called.

    Raises:
        UserError: one is of another type or out of range; all such are named.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        check(function, **signature.bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return call


@functools.cache
def settings_of(owner: Any) -> dict[str, Setting]:
    """The settings of a dataclass, or the arguments of a function that have a range."""
    hints = typing.get_type_hints(owner, include_extras=True)
    if not dataclasses.is_dataclass(owner):
        return {name: Setting.of(name, hint) for name, hint in hints.items() if _has_range(hint)}
    found = {}
    for field in dataclasses.fields(owner):
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        about = {key: field.metadata[key] for key in ("help", "by_dataset") if field.metadata}
        found[field.name] = Setting.of(field.name, hints[field.name], default, **about)
    return found


def parsed(owner: str, known: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, some of them as text, as what the settings of those names are.

    Args:
        owner: whose settings they are, for the message.
        known: the settings there are.
        given: values, or texts that stand for them.

    Raises:
        UserError: names that are none, texts that stand for nothing, values out of range: all
            are named.
    """
    found: dict[str, Any] = {}
    faults = []
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(map(_shown, unknown))
        faults.append(f"{owner} has no setting {names}; it has {', '.join(known)}")
    for name, value in given.items():
        if name in known:
            found[name], fault = known[name].read(value, name)
            faults.append(fault)
    refuse(faults)
    return found


def refuse(faults: Iterable[str]) -> None:
    """Raises a UserError that names all faults, where there is one."""
    if text := ". ".join(filter(None, faults)):
        raise UserError(text)


def gathered(*checks: Callable[[], Any]) -> list[Any]:
    """What each check returns; where some raise a UserError, one that names the faults of all."""
    found, faults = [], []
    for check in checks:
        try:
            found.append(check())
        except UserError as error:
            faults.append(str(error))
    refuse(faults)
    return found


def _faults(owner: Any, values: Mapping[str, Any]) -> list[str]:
    known = settings_of(owner)
    return [
        known[name].fault(value)
        for name, value in values.items()
        if name in known and not known[name].fits(value)
    ]


def _for_json(value: Any) -> Any:
    if isinstance(value, Checked):
        return value.to_dict()
    if hasattr(value, "parse"):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _is_field(value: Any) -> bool:
    return isinstance(value, dataclasses.Field)


def _has_range(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated or any(
        typing.get_origin(part) is typing.Annotated for part in typing.get_args(hint)
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list) and value and not hasattr(value, "parse"):
        return ",".join(map(_shown, value))[:_LONGEST]
    try:
        text = repr(value if isinstance(value, bool | int | float | str) else str(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    if not isinstance(value, bool | int | float | str) and not hasattr(value, "parse"):
        text = text[1:-1]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
