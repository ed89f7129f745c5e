"""The numbers of every epoch of every stage: in history.csv, and in the checkpoints.

history.csv is for people. Each checkpoint holds the logs of all epochs of its stage, with a
checksum; rows of history.csv that are damaged or missing are restored from them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.errors import UserError
from bcgan_tf.files import DamagedFile, check_seal, note, replace_file

# In a checkpoint: the logs of all epochs up to it.
LOGS = "history.json"
# Marks a folder of checkpoints that another run trained: their logs are not this run's.
ELSEWHERE = "trained-elsewhere"
_HEADER = ("stage", "epoch", "metric", "value")
_CHECKPOINT = re.compile(r"epoch-(\d{4,})(?:-step-(\d+))?")
# The text of each value, by (epoch, metric).
_Numbers = dict[tuple[int, str], str]


def checkpoint_name(epochs: int, steps: int = 0) -> str:
    """The folder of a checkpoint after so many epochs, and steps of the next one."""
    return f"epoch-{epochs:04d}" + (f"-step-{steps:06d}" if steps else "")


def checkpoints_in(directory: Path) -> list[tuple[int, int, Path]]:
    """``(epochs done, steps done of the next one, folder)`` of each checkpoint, the newest last."""
    return sorted(
        (int(match[1]), int(match[2] or 0), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := _CHECKPOINT.fullmatch(path.name))
    )


def checkpoint_logs(folder: Path) -> list[dict[str, Any]]:
    """One dict an epoch that a checkpoint holds: ``epoch``, counted from 0, and the metrics.

    Raises:
        DamagedFile: they are damaged or gone.
    """
    check_seal(folder, LOGS)
    try:
        logs = json.loads((folder / LOGS).read_bytes())
        return [{"epoch": int(log.pop("epoch")), **_floats(log)} for log in logs]
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DamagedFile(f"{folder / LOGS} is damaged or gone") from error


def _floats(log: Mapping[str, Any]) -> dict[str, float]:
    return {metric: float(value) for metric, value in log.items()}


class History:
    """A CSV file with the columns stage, epoch (from 1), metric, value.

    Stages have different metrics, so a row holds one number. Values are written with all their
    digits: two equal runs give equal files.

    Args:
        file: the CSV file; made by the first :meth:`append`.
        appended: called after every :meth:`append`.
        checkpoints: the folder of the stages' checkpoints, a folder each.
    """

    def __init__(
        self,
        file: Path,
        appended: Callable[[], None] | None = None,
        checkpoints: Path | None = None,
    ) -> None:
        self.file = file
        self.checkpoints = checkpoints
        self._appended = appended

    def append(self, stage: str, epoch: int, values: Mapping[str, Any]) -> None:
        """Adds the numbers of one finished epoch, on disk when it returns.

        Args:
            stage: such as ``"train"``.
            epoch: epochs finished, from 1.
            values: metric to number.
        """
        rows = [(stage, epoch, metric, repr(float(value))) for metric, value in values.items()]
        before = self.file.read_bytes() if self.file.is_file() else b""
        replace_file(self.file, before + _text(rows if before else [_HEADER, *rows]).encode())
        if self._appended is not None:
            self._appended()

    def keep(self, stage: str, epochs: int) -> None:
        """Drops a stage's rows after its first ``epochs`` epochs, and repairs damaged rows.

        A stage calls it when it starts (0) or resumes, so that no epoch has its rows twice.
        """
        rows = [row for row in self._rows() if row[0] != stage or int(row[1]) <= epochs]
        if rows or self.file.is_file():
            replace_file(self.file, _text([_HEADER, *rows]).encode())

    def mend(self) -> None:
        """Rewrites the file if rows are damaged or missing that the checkpoints have.

        Raises:
            UserError: the file is damaged, and no checkpoint has those numbers.
        """
        if rows := self._rows():
            text = _text([_HEADER, *rows]).encode()
            if not self.file.is_file() or self.file.read_bytes() != text:
                replace_file(self.file, text)

    def read(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """``{stage: {metric: [(epoch, value), ...]}}``; empty when there is no file.

        Raises:
            UserError: the file is damaged, and no checkpoint has those numbers.
        """
        result: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for stage, epoch, metric, value in self._rows():
            points = result.setdefault(stage, {}).setdefault(metric, [])
            points.append((int(epoch), float(value)))
        return result

    def _rows(self) -> list[list[str]]:
        rows, damage = self._rows_in_file()
        known = self._numbers_in_checkpoints()
        found: dict[str, _Numbers] = {}
        for stage, epoch, metric, value in rows:
            found.setdefault(stage, {})[int(epoch), metric] = value
        contradicted = any(
            found.get(stage, {}).get(key) != value
            for stage, numbers in known.items()
            for key, value in numbers.items()
        )
        if not damage and not contradicted:
            return rows
        if damage and not known:
            raise UserError(damage)
        note(f"{self.file} is damaged or gone; its rows are taken from the checkpoints")
        return [
            [stage, str(epoch), metric, value]
            for stage, numbers in known.items()
            for (epoch, metric), value in numbers.items()
        ]

    def _rows_in_file(self) -> tuple[list[list[str]], str]:
        """The sound rows, and what is wrong with others."""
        if not self.file.is_file():
            return [], ""
        text = self.file.read_bytes().decode(errors="replace")
        whole = text[: text.rfind("\n") + 1]  # a kill could leave half a row: it has no line end
        try:
            header, *rows = list(csv.reader(io.StringIO(whole))) or [list(_HEADER)]
        except csv.Error as error:
            return [], f"{self.file} is damaged ({error}); remove it"
        unsound = [row for row in rows if not _sound(row)]
        if tuple(header) != _HEADER:
            unsound.insert(0, header)
        damage = ""
        if unsound:
            row = ",".join(unsound[0])
            damage = f"{self.file} is damaged at the row {row!r}; remove that row"
        return [row for row in rows if _sound(row)], damage

    def _numbers_in_checkpoints(self) -> dict[str, _Numbers]:
        """By stage, in the order in which they were trained."""
        if self.checkpoints is None or not self.checkpoints.is_dir():
            return {}
        trained: list[tuple[float, str, _Numbers]] = []
        for directory in self.checkpoints.iterdir():
            if (directory / ELSEWHERE).exists():
                continue
            for _, _, folder in reversed(checkpoints_in(directory)):
                try:
                    logs = checkpoint_logs(folder)
                except DamagedFile:
                    continue
                trained.append((folder.stat().st_mtime, directory.name, _numbers(logs)))
                break
        return {stage: numbers for _, stage, numbers in sorted(trained, key=lambda one: one[:2])}


def _numbers(logs: Iterable[Mapping[str, Any]]) -> _Numbers:
    return {
        (log["epoch"] + 1, metric): repr(float(value))
        for log in logs
        for metric, value in log.items()
        if metric != "epoch"
    }


def _sound(row: Sequence[str]) -> bool:
    if len(row) != len(_HEADER) or not (row[1].isascii() and row[1].isdigit()):
        return False
    try:
        float(row[3])
    except ValueError:
        return False
    return True


def _text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
