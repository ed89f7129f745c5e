"""README's script: short, and runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bcgan_tf.attacks import suites
from bcgan_tf.evaluation import suite_run
from bcgan_tf.workflows import evaluate
from helpers.suites import planned_diagnosis

README = Path(__file__).parents[1] / "README.md"


def test_the_script_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    """With few gradients in place of the usual suite's, and a planned diagnosis."""

    def fast(_: str, *arguments: Any, **options: Any) -> Any:
        return suites.suite("fast", *arguments, **options)

    (script,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(script.splitlines()) <= 25
    monkeypatch.setattr(suite_run, "suite", fast)
    monkeypatch.setattr(evaluate, "diagnose", planned_diagnosis)
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    said = capsys.readouterr().out
    assert said.startswith("Verdict: ")
    assert "hardened against original: robust accuracy +" in said
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "saved_models" / "digits" / "1" / "export.json").is_file()
