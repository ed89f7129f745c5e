"""Requests that no server should get, sent to an export in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Of images of any size: no batch axis, other ranks, other sides, and none of them fits.
MALFORMED_SHAPES = (
    [],
    [0],
    [64],
    [2, 64],
    [8, 8, 1],
    [28, 28, 1],
    [1, 28, 28],
    [0, 0, 0, 0],
    [1, 0, 0, 1],
    [1, 1, 1, 1],
    [1, 9, 8, 1],
    [1, 29, 28, 1],
    [1, 28, 28, 3],
    [1, 300, 300, 1],
    [1, 1, 8, 8, 1],
    [1, 1, 28, 28, 1],
)

_SCRIPT = """
import json, sys
import tensorflow as tf
for folder in sys.argv[2:]:
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    for shape in json.loads(sys.argv[1]):
        try:
            serve(images=tf.zeros(shape))
            answer = "an answer"
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines()]
            told = next((line for line in lines if line.startswith("Shape of tensor")), lines[0])
            answer = f"{type(error).__name__}: {told}"
        print(json.dumps([folder, str(shape), answer]), flush=True)
"""


def answers_to_malformed_shapes(folders: Sequence[Path]) -> list[dict[str, str]]:
    """For each export what ``serving_default`` says to zeros of each shape.

    Asserts that the process lives on.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(MALFORMED_SHAPES), *map(str, folders)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died after {lines}: {done.stderr[-500:]}"
    return [{shape: answer for own, shape, answer in lines if own == str(f)} for f in folders]
