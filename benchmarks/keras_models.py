"""Networks of keras.applications, attacked, hardened and exported as they are.

    python benchmarks/keras_models.py [MobileNetV3Small ...]

What takes minutes of the table in docs/own-classifier.md; its other rows are tests
(tests/workflows/test_users_models.py), and what is asked of each is the same: the clean accuracy
is the user's own, and what is exported answers as the model does, to 1e-5.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.as_it_is import as_it_is, short_attack
from helpers.keras_applications import APPLICATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all, or some of {', '.join(APPLICATIONS)}")
    for name in parser.parse_args().names or APPLICATIONS:
        with tempfile.TemporaryDirectory() as folder, short_attack():
            found = as_it_is(APPLICATIONS[name], Path(folder))
        shares = (f"{key} {100 * found[key]:.1f} %" for key in ("accuracy", "robust", "hardened"))
        seconds = f"training {found['training']:.0f} s, the rest {found['rest']:.0f} s"
        print(f"{name}: {', '.join(shares)}; {seconds}", flush=True)


if __name__ == "__main__":
    main()
