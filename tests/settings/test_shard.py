"""The shard of a job, as the scheduler numbers it."""

from __future__ import annotations

import pytest

from bcgan_tf.settings.kinds import Shard

NAMES = (
    *(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MAX", "COUNT")),
    *("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)


def slurm(number: int, largest: int, count: int) -> dict[str, int]:
    return dict(zip(NAMES[:3], (number, largest, count), strict=True))


def kubernetes(index: int, completions: int) -> dict[str, int]:
    return dict(zip(NAMES[3:], (index, completions), strict=True))


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (slurm(1, 8, 8), Shard(1, 8)),
        (slurm(8, 8, 8), Shard(8, 8)),
        (kubernetes(0, 3), Shard(1, 3)),
        (kubernetes(2, 3), Shard(3, 3)),
    ],
)
def test_auto_is_the_number_of_the_job(monkeypatch, environment, shard):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert Shard.parse("auto") == shard


@pytest.mark.parametrize(
    "environment",
    [
        {},
        slurm(0, 7, 8),  # from 0
        slurm(3, 5, 2),  # two of a larger array, done again
        {"SLURM_ARRAY_TASK_ID": 1},
        {"JOB_COMPLETION_INDEX": 1},
        kubernetes(3, 3),
    ],
)
def test_jobs_that_are_not_numbered_so_are_no_shards(monkeypatch, environment):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=r"."):
        Shard.parse("auto")
