"""A small draw of each campaign of injected faults: nothing lost, no traceback.

All of them: ``python -m benchmarks.faults``. The kills are left to tests/cli.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # benchmarks/ is not installed

from benchmarks.faults import core, files, folders, invocations, malice, requests
from helpers import broken


def bad(outcomes: Iterable[tuple[str, core.Outcome]]) -> list[str]:
    return [
        f"{what}: {outcome.kind}: {outcome.note}"
        for what, outcome in outcomes
        if outcome.kind in (core.LOST, core.TRACEBACK)
    ]


def here(campaign: ModuleType, faults: list[core.Fault]) -> list[str]:
    """What was lost or broke, the faults injected into this process, where TensorFlow is loaded."""
    tried = [(f.name, core.attempt(campaign, faults, row)) for row, f in enumerate(faults)]
    assert tried
    return bad(tried)


@pytest.mark.parametrize(
    ("campaign", "count", "seed"),
    [
        pytest.param(invocations, 15, 0, id="invocations"),
        pytest.param(malice, 6, 3, id="malice"),  # none of gigabytes
        pytest.param(folders, 3, 9, id="folders"),
    ],
)
def test_nothing_is_lost(campaign: ModuleType, count: int, seed: int, tmp_path: Path) -> None:
    campaign.prepare(tmp_path)
    assert here(campaign, campaign.faults(tmp_path, count, seed)) == []


def test_damaged_files_of_a_training(tmp_path: Path) -> None:
    part = ["a finished training"]
    files.prepare(tmp_path, part)
    assert here(files, files.faults(tmp_path, 5, 0, part)) == []


def test_requests_to_an_export(tmp_path: Path) -> None:
    """In a process of its own, which the request may kill, and which lacks the package."""
    found = core.outcomes(requests, tmp_path, 15, 0)
    assert bad((what, outcome) for _, what, outcome in found) == []


@pytest.mark.parametrize(
    ("code", "stderr", "error", "kind"),
    [
        (0, "run: r\n", None, core.SURVIVED),
        (1, "run: r\nError: it is full; make room\n", SystemExit(1), core.REFUSED),
        (2, "Usage: x\nTry -h\n\nError: no\n", SystemExit(2), core.REFUSED),
        (1, "Error: two\nlines\n", SystemExit(1), core.TRACEBACK),
        (1, "Error: one\nError: two\n", SystemExit(1), core.TRACEBACK),
        (1, "", ValueError("x"), core.TRACEBACK),
        (0, "Traceback (most recent call last)", None, core.TRACEBACK),
        (134, "", SystemExit(134), core.TRACEBACK),
    ],
)
def test_how_a_command_ended(code, stderr, error, kind) -> None:
    assert core.Answer(code, "", stderr, error).outcome().kind == kind


def test_a_process_that_dies_or_hangs_is_an_outcome(tmp_path: Path) -> None:
    found = [outcome for _, _, outcome in core.outcomes(broken, tmp_path, 4, 0)]
    assert [outcome.kind for outcome in found] == ["survived", "traceback", "traceback", "survived"]
    assert "exit code -6" in found[1].note and "hung for 1 s" in found[2].note
