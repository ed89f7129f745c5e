"""README's script: short, and runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_script_runs_as_it_stands(tmp_path):
    (script,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(script.splitlines()) <= 25
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Verdict: ")
    assert "hardened against original: robust accuracy +" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "saved_models" / "digits" / "1" / "export.json").is_file()
