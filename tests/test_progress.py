"""Progress goes to stderr."""

from __future__ import annotations

import io
import sys

import pytest

from bcgan_tf.progress import told


def test_what_is_at_work_is_a_line_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    with told("original") as progress:
        progress(0, 4, "PGD: 9 of 9 left")
        progress(1, 4, "PGD: 9 of 9 left")
        progress(2, 4, "Square: 5 of 9 left")
        progress(3, 4, "")
        progress(4, 4, "")
    lines = ["original: PGD: 9 of 9 left", "original: Square: 5 of 9 left", "original: 4 of 4"]
    assert capsys.readouterr() == ("", "\n".join(lines) + "\n")


def test_a_terminal_gets_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with told("hardened") as progress:
        progress(3, 4, "Square: 5 of 9 left")
    text = sys.stderr.getvalue()
    assert "hardened: Square: 5 of 9 left" in text and "75%" in text
