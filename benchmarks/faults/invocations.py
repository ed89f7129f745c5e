"""Every option of every command with odd values: as a flag, in a TOML file, in a variable."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults import stubs
from benchmarks.faults.core import (
    LOST,
    REFUSED,
    SURVIVED,
    TRACEBACK,
    Answer,
    Fault,
    Outcome,
    command,
)

TITLE = "odd invocations of the commands"
COUNT = 3_531
LIMIT = 60
# What each command is called with, so that the odd value alone is wrong.
_BASE: dict[str, list[str]] = {
    "run": ["--dataset", "digits", "--defense", "bcgan"],
    "train": ["--dataset", "digits"],
    "harden": ["--dataset", "digits", "--classifier", "m.keras", "--defense", "bcgan"],
    "attack": ["m.keras", "--dataset", "digits"],
    "attack merge": ["nowhere"],
    "report": ["nowhere"],
    "export": ["m.keras"],
    "toy": [],
    "boundary": ["m.keras", "--dataset", "digits"],
    "reproduce": ["table1", "--dataset", "digits"],
    "datasets": [],
    "settings": [],
}
# Numbers that no setting can have: where one is taken, nonsense is computed without a word.
_NONSENSE = ("nan", "inf", "-inf", "1e400", "-1", "-1e30")
_VALUES = (
    *_NONSENSE, "0", "-0", "1e-400", str(10**30), "8/0", "0/0", "1/", "1,", ",", "1,,2", "", " ",
    "ä", "\udcff", "..", "/proc", ".", "~", "--", "-", "x" * 5000, "1" * 5000, "a\nb", "<b>", "%s",
    "null", "True", "folder", "fifo", "m.keras", "empty", "0x10", "1_0", "٣", "1e308", "{}", "a=b",
)  # fmt: skip
_TOML = (
    "nan", "inf", "-inf", "-1", "0", "1e308", str(10**30), "true", '""', '" "', '"nan"',
    '"\\u0000"', '"a\\u0000b"', '".."', "[]", "[[]]", "[nan]", "{}", "{a = 1}", "1979-05-27",
    '"' + "x" * 5000 + '"', '["a", 1]', '["a=\\u0000"]', '"8/0"', "[" * 2000 + "]" * 2000,
)  # fmt: skip
_TOML_FILES = (
    b"\0", b"seed = \0", b"\xff\xfe", b"\xef\xbb\xbfseed = 1", b"seed", b"seed = ", b"= 1",
    b"[a]\nb = 1", b"seed = 1\nseed = 2", b"seed = " + b"[" * 100_000, b"a." * 5000 + b"b = 1",
    b"seed = " + b"9" * 10_000, b'"" = 1', b"nothing = 1", b'"se\\u0000ed" = 1', b"", b"#",
    b"seed = 'a", b"config = 'c.toml'", b"debug = true", b"help = true", b"x = '''" * 3,
)  # fmt: skip


def prepare(folder: Path) -> None:
    """The files that odd values may name."""
    stubs.network().save(folder / "m.keras")


def faults(folder: Path, count: int, seed: int) -> list[Fault]:
    """A draw of all combinations; more than there are repeat some."""
    found = [
        Fault(
            f"{name}: {what}", functools.partial(_inject, folder, name, arguments, env, toml, odd)
        )
        for name, what, arguments, env, toml, odd in _combinations()
    ]
    rng = np.random.default_rng(seed)
    return [found[row] for row in rng.permutation(max(count, len(found)))[:count] % len(found)]


def forget() -> None:
    """Drops what Keras keeps of the models that were read."""
    import keras

    keras.backend.clear_session()


def _commands() -> dict[str, Any]:
    import click

    from bcgan_tf.cli import main, merge

    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {**found, "attack merge": merge.command}


def _combinations() -> Iterator[tuple[str, str, list[str], Mapping[str, str], bytes | None, bool]]:
    """(command, what is odd, arguments, variables, TOML file, whether it must not be taken)."""
    import click

    for name, found in sorted(_commands().items()):
        base = _BASE[name]
        for parameter in found.params:
            if not isinstance(parameter, click.Option):
                for value in _VALUES:
                    yield name, f"argument {value[:40]!r}", [value, *base[1:]], {}, None, False
                continue
            flag = max(parameter.opts, key=len)
            key = flag.lstrip("-")
            numeric = parameter.type.name.split()[0] in ("integer", "float", "number", "numbers")
            for value in () if parameter.is_flag else _VALUES:
                odd = numeric and value in _NONSENSE
                if (flag, value) != ("--config", "fifo"):  # a shell's <(...) is one: it may wait
                    yield name, f"{flag} {value[:40]!r}", [*base, flag, value], {}, None, odd
            for value in _VALUES if parameter.envvar and key != "run-dir" else ():
                env = {f"BCGAN_TF_{key.upper().replace('-', '_')}": value}
                shown = f"{next(iter(env))}={value[:40]!r}"
                yield name, shown, _without(base, flag), env, None, numeric and value in _NONSENSE
            for value in _TOML:
                text = f"{key} = {value}".encode()
                odd = numeric and value in _NONSENSE
                yield name, f"TOML {text[:60]!r}", _without(base, flag), {}, text, odd
        for text in _TOML_FILES:
            yield name, f"TOML {text[:60]!r}", base, {}, text, False
    yield from _defense_options()


def _defense_options() -> Iterator[tuple[str, str, list[str], dict[str, str], None, bool]]:
    """Every setting of every defence as -o NAME=VALUE, and malformed ones."""
    from bcgan_tf.defenses import presets

    base = _without(_BASE["run"], "--defense")
    for defense in presets.DEFENSES:
        chosen = presets.defense(defense, "digits", "quick", options=None, seed=0, devices=None)
        hints = typing.get_type_hints(type(chosen))
        for field in dataclasses.fields(chosen):
            hint = hints[field.name]
            numeric = bool({int, float} & {hint, *typing.get_args(hint)})
            for value in _VALUES:
                odd = numeric and value in _NONSENSE
                what = f"--defense {defense} -o {field.name}={value[:40]!r}"
                option = ["--defense", defense, "-o", f"{field.name}={value}"]
                yield "run", what, [*base, *option], {}, None, odd
    for value in ("", "=", "eps", "eps=", "=1", "eps==1", "EPS=1", "e ps=1", "__class__=1", "ä=1"):
        yield "run", f"-o {value!r}", [*base, "--defense", "pgd-at", "-o", value], {}, None, False


def _without(base: list[str], flag: str) -> list[str]:
    """Arguments without an option: what comes from elsewhere must count."""
    if flag not in base:
        return base
    place = base.index(flag)
    return base[:place] + base[place + 2 :]


def _inject(
    models: Path,
    name: str,
    arguments: list[str],
    env: Mapping[str, str],
    toml: bytes | None,
    odd: bool,
) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=models))
    try:
        shutil.copy(models / "m.keras", folder)
        (folder / "folder").mkdir()
        (folder / "empty").touch()
        os.mkfifo(folder / "fifo")
        if toml is not None:
            (folder / "c.toml").write_bytes(toml)
            arguments = [*arguments, "--config", "c.toml"]
        before = _files(folder)
        with stubs.heavy_work():
            answer = command(*name.split(), *arguments, folder=folder, env={**_OFFLINE, **env})
        return _judged(answer, odd, _files(folder) - before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _judged(answer: Answer, odd: bool, new: set[Path]) -> Outcome:
    outcome = answer.outcome()
    if outcome.kind == SURVIVED and odd:
        return Outcome(LOST, "nonsense was taken for a setting")
    if outcome.kind == REFUSED and new:
        left = ", ".join(sorted(path.name for path in new))
        return Outcome(TRACEBACK, f"left behind: {left[:200]} ({outcome.note})")
    return outcome
