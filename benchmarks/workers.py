"""A suite on several workers against one, and with workers killed: rows, seconds and their ratio.

    python benchmarks/workers.py MODEL.keras --dataset mnist --eps 0.3 --n 500 --workers local:2
    python benchmarks/workers.py MODEL.keras --dataset digits --eps 0.1 --n 300 --workers local:3 \
        --suite fast --kills 20

Without `--kills`: one worker on one processor, then the workers on one processor each (N from
`local:N`; of a Ray cluster as many as it has). With it: so many evaluations, in each of which a
third of the workers, at least one, are killed with SIGKILL at random moments of the time that the
first evaluation took; the rows of each must be those of this process. Needs prepared data
(TFDS_DATA_DIR).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from attacks import machine

from bcgan_tf.data import load_dataset
from bcgan_tf.distribute.workers import LocalWorkers, Workers, workers
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask

# What the commands of workers say.
_LOCAL, _RAY = "popen_loky", "ray::_RayWorker"


def pids(said: str) -> list[int]:
    """Processes with this in their command, of the same user."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = folder.stat().st_uid == os.getuid()
            if ours and said in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def kill_some(
    said: str, share: float, within: float, draws: random.Random, killed: list[int]
) -> None:
    """Kills a share of the workers at random moments; adds whom to ``killed``."""
    while not (there := pids(said)):
        time.sleep(0.1)
    started = time.monotonic()
    count = max(1, round(share * len(there)))
    for moment in sorted(draws.uniform(0, within) for _ in range(count)):
        time.sleep(max(0.0, started + moment - time.monotonic()))
        if there := pids(said):  # else the evaluation has ended
            killed.append(draws.choice(there))
            os.kill(killed[-1], signal.SIGKILL)


def same_rows(one: Evaluation, other: Evaluation) -> bool:
    """Whether every array of every attack is the same to the bit."""
    names = ("clean_correct", "attacked", "success", "linf", "l2")
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and np.array_equal(a.adversarials[a.success], b.adversarials[b.success])
        for a, b in zip(one.results, other.results, strict=True)
        for name in names
    )


def main() -> None:
    """Parses the arguments, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a .keras file of logits")
    parser.add_argument("--dataset", default="mnist", help="default mnist")
    parser.add_argument("--n", type=int, default=500, help="test images (default 500)")
    parser.add_argument("--eps", type=float, default=0.3, help="Linf radius (default 0.3)")
    parser.add_argument("--suite", default="standard", help="default standard")
    parser.add_argument("--workers", default="local:2", help="default local:2")
    parser.add_argument("--kills", type=int, default=0, help="evaluations with kills (default 0)")
    options = parser.parse_args()

    print(machine())
    print(f"{options.model}, {options.suite}, Linf eps {options.eps:g}, n {options.n}, float32")
    test = load_dataset(options.dataset).test.take(options.n, seed=0)
    model = keras.models.load_model(options.model)

    def evaluated(engine: Workers | None) -> tuple[Evaluation, float]:
        task = EvaluationTask(model, test.images, test.labels, eps=options.eps, precision="float32")
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state"
            started = time.perf_counter()
            found = run_suite(task, options.suite, state=state, workers=engine)
            seconds = time.perf_counter() - started
            for result in found.results:  # before the folder goes
                vars(result)["adversarials"] = np.asarray(result.adversarials)
        return found, seconds

    engine = workers(options.workers)
    if not options.kills:
        every = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(every)})
        one, alone = evaluated(LocalWorkers(1))
        os.sched_setaffinity(0, every)
        found, shared = evaluated(engine)
        print(
            f"1 worker, 1 processor: {alone:.1f} s; {options.workers}, a processor each: "
            f"{shared:.1f} s, {shared / alone:.2f} of it; robust {one.robust_accuracy:.4f}; "
            f"rows {'equal' if same_rows(one, found) else 'DIFFERENT'}"
        )
        return
    alone, _ = evaluated(None)
    _, usual = evaluated(engine)
    draws, said = random.Random(0), _LOCAL if options.workers.startswith("local") else _RAY
    equal, ended = 0, 0
    for number in range(options.kills):
        killed: list[int] = []
        killer = threading.Thread(
            target=kill_some, args=(said, 1 / 3, usual, draws, killed), daemon=True
        )
        killer.start()
        found, seconds = evaluated(engine)
        killer.join(1)
        same = same_rows(alone, found)
        equal, ended = equal + same, ended + len(killed)
        print(
            f"{number + 1}: {len(killed)} killed, {seconds:.1f} s, rows "
            f"{'equal' if same else 'DIFFERENT'}",
            flush=True,
        )
    print(
        f"{options.workers}: {equal} of {options.kills} evaluations with equal rows, {ended} "
        f"workers killed; without kills {usual:.1f} s"
    )


if __name__ == "__main__":
    main()
