"""The suite `fast` against `standard`: robust accuracy, disagreements and time, on one model.

    python benchmarks/fast_suite.py MODEL.keras --dataset mnist --eps 0.3 --n 500

Both search in the precision that this machine is fastest in (`--precision` chooses another). Prints
each attack's share and seconds, the images that only one of the suites finds robust, and the ratio
of the times, tracing included. Needs prepared data (TFDS_DATA_DIR).
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from attacks import machine

import bcgan_tf

SUITES = ("fast", "standard")


def main() -> None:
    """Parses the arguments, runs both, prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .keras file of logits")
    parser.add_argument("--dataset", default="mnist", help="default mnist")
    parser.add_argument("--n", type=int, default=500, help="test images (default 500)")
    parser.add_argument("--eps", type=float, default=0.3, help="radius (default 0.3)")
    parser.add_argument("--norm", default="linf", help="default linf")
    parser.add_argument("--precision", default="auto", help="default auto")
    options = parser.parse_args()

    print(machine())
    print(f"{options.model}, {options.norm} eps {options.eps:g}, n {options.n}")
    test = bcgan_tf.load_dataset(options.dataset).test.take(options.n, seed=0)
    survived: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for suite in SUITES:
        model = keras.models.load_model(options.model)  # nothing that the other suite prepared
        started = time.perf_counter()
        found = bcgan_tf.evaluate(
            model, test, eps=options.eps, norm=options.norm, suite=suite, diagnose=False,
            precision=options.precision,
        )  # fmt: skip
        seconds[suite] = time.perf_counter() - started
        survived[suite] = found.worst_case
        print(
            f"{found.suite}, searched in {found.precision}: clean {found.clean_accuracy:.4f}, "
            f"robust {found.robust_accuracy:.4f}, {seconds[suite]:.1f} s"
        )
        for attack in found.to_dict()["attacks"]:
            spent = " and ".join(
                f"{count / max(attack['attacked'], 1):.0f} {kind}"
                for kind, count in attack["passes"].items()
            )
            print(
                f"    {attack['attack']:20} left {attack['left']:.4f}, {attack['seconds']:.1f} s, "
                f"{spent} passes an image"
            )
        if found.fallback:
            print(f"    {found.fallback}")
    fast, standard = (survived[suite] for suite in SUITES)
    print(
        f"robust for fast alone {int((fast & ~standard).sum())}, for standard alone "
        f"{int((standard & ~fast).sum())}; standard takes "
        f"{seconds['standard'] / seconds['fast']:.1f} times as long"
    )


if __name__ == "__main__":
    main()
