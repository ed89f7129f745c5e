"""Help answers at once, and every option stands for a setting that exists."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from bcgan_tf.cli import COMMANDS, attack, boundary, run, toy
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.settings.defenses import DEFENSES
from bcgan_tf.settings.fields import settings_of
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
    answer = ask("-h", *(f"{command} --help" for command in COMMANDS))
    assert answer.stderr == ""
    assert answer.stdout.count("Usage: bcgan-tf") == len(COMMANDS) + 1
    ends = [line for line in answer.stdout.splitlines() if line.startswith("exit:")]
    assert ends == ["exit: 0 []"] * (len(COMMANDS) + 1)


def test_a_wrong_dataset_is_reported_without_loading_tensorflow() -> None:
    answer = ask("train --dataset mnits")
    assert answer.stdout == "exit: 1 []\n"
    assert answer.stderr.count("\n") == 1 and answer.stderr.startswith("Error: ")
    assert "mnits" in answer.stderr


def test_the_group_lists_every_command(cli) -> None:
    text = cli("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert cli("--version").stdout.startswith("bcgan-tf, version ")


def test_every_setting_has_its_help_and_is_an_option() -> None:
    for command, kinds in (
        (run.command, [Recipe]),
        (attack.command, [EvaluationConfig]),
        (toy.command, [ToySettings]),
        (boundary.command, [BoundarySettings]),
    ):
        options = {param.name: getattr(param, "help", "") for param in command.params}
        for kind in kinds:
            for name, entry in settings_of(kind).items():
                assert name in options, (kind.__name__, name)
                if entry.help and name != "seed":
                    assert str(options[name]).startswith(entry.help.split("  [")[0])
    for kind in (*DEFENSES.values(), EvaluationConfig, ToySettings, BoundarySettings):
        assert all(entry.help for entry in settings_of(kind).values()), kind.__name__


def test_the_page_of_settings_is_what_the_command_prints(cli) -> None:
    """Renew it with ``bcgan-tf settings > docs/settings.md``."""
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert cli("settings").stdout == page.read_text(encoding="utf-8")
