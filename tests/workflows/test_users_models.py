"""Keras classifiers as users make them, attacked, hardened and exported as they are.

What is done with each, docs/own-classifier.md says in a table; this file holds it to that.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from helpers.as_it_is import as_it_is, short_attack
from helpers.keras_applications import APPLICATIONS
from helpers.users_models import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "own-classifier.md"


# What comes out and what goes in are converted apart from each other: one model shows both.
WITH_PIXELS = {
    "one sigmoid unit": "pixels of -1 to 1",
    "two outputs": "standardized pixels",
    "log-softmax": "pixels of 0 to 255",
}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITH_PIXELS.values()])
def test_as_it_is(name: str, tmp_path: Path) -> None:
    case = MODELS[name]
    if name in WITH_PIXELS:
        pixels = MODELS[WITH_PIXELS[name]]
        convention = dataclasses.replace(pixels.convention, output=case.output)
        case = dataclasses.replace(case, shown=pixels.shown, convention=convention)
    with short_attack():
        as_it_is(case, tmp_path)


def test_the_page_lists_what_is_tested() -> None:
    """Each row with what has to be said, and with the message where something cannot be done."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in PAGE.read_text().split("| model | attack |")[1].split("\n\n")[0].splitlines()
    ]
    listed = {row[0]: row[1:] for row in cells[2:]}
    tested = MODELS | APPLICATIONS
    assert list(listed) == list(tested)
    for name, case in tested.items():
        done = [
            f"no: {case.refused[command]}" if command in case.refused else "yes"
            for command in ("harden", "export")
        ]
        said = f"`{case.options}`" if case.options else ""
        assert listed[name] == ["yes", *done, said]
