"""Help answers at once, and every option stands for a setting that exists."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys

import pytest

from bcgan_tf.cli import boundary, options, toy
from bcgan_tf.cli.group import _COMMANDS
from bcgan_tf.settings.figures import BoundarySettings, ToySettings
from bcgan_tf.settings.presets import Recipe

HEAVY = ("tensorflow", "keras", "matplotlib", "cleverhans", "tensorflow_datasets", "sklearn")
CODE = f"""
import sys
from bcgan_tf.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split(), prog_name="bcgan-tf")
    except SystemExit as end:
        print("exit:", end.code, [name for name in {HEAVY} if name in sys.modules])
"""


def ask(*lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *lines], capture_output=True, text=True, timeout=60
    )


def test_help_takes_less_than_half_a_second() -> None:
    """Of processor time, which a busy machine does not stretch."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ask("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(times) < 0.5, times


def test_help_loads_nothing_heavy() -> None:
    answer = ask("-h", *(f"{command} --help" for command in _COMMANDS))
    assert answer.stderr == ""
    assert answer.stdout.count("Usage: bcgan-tf") == len(_COMMANDS) + 1
    ends = [line for line in answer.stdout.splitlines() if line.startswith("exit:")]
    assert ends == ["exit: 0 []"] * (len(_COMMANDS) + 1)


def test_a_wrong_dataset_is_reported_without_loading_tensorflow() -> None:
    answer = ask("train --dataset mnits")
    assert answer.stdout == "exit: 1 []\n"
    assert answer.stderr.count("\n") == 1 and answer.stderr.startswith("Error: ")
    assert "mnits" in answer.stderr


def test_the_group_lists_every_command(cli) -> None:
    text = cli("--help").stdout
    assert all(f"\n  {name} " in text for name in _COMMANDS)
    assert cli("--version").stdout.startswith("bcgan-tf, version ")


def test_every_setting_of_a_recipe_is_an_option() -> None:
    named = [name for stage in options.RECIPE_HELP.values() for name in stage]
    assert len(set(named)) == len(named)
    assert set(named) == {f.name for f in dataclasses.fields(Recipe)} - {"dataset", "preset"}


@pytest.mark.parametrize(
    ("table", "settings"), [(toy.SETTINGS, ToySettings), (boundary.SETTINGS, BoundarySettings)]
)
def test_every_setting_of_a_figure_is_an_option(table, settings) -> None:
    assert set(table) == {field.name for field in dataclasses.fields(settings)} - {"seed"}
