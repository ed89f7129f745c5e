"""history.csv: the numbers of every epoch of every stage, one row a number."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcgan_tf.errors import UserError
from bcgan_tf.files import replace_file

_HEADER = ("stage", "epoch", "metric", "value")


class History:
    """A CSV file with the columns stage, epoch (from 1), metric, value.

    Stages have different metrics, so a row holds one number. Values are written with all their
    digits: two equal runs give equal files.

    Args:
        file: the CSV file; made by the first :meth:`append`.
        appended: called after every :meth:`append`.
    """

    def __init__(self, file: Path, appended: Callable[[], None] | None = None) -> None:
        self.file = file
        self._appended = appended

    def append(self, stage: str, epoch: int, values: Mapping[str, Any]) -> None:
        """Adds the numbers of one finished epoch, on disk when it returns.

        Args:
            stage: such as ``"train"``.
            epoch: epochs finished, from 1.
            values: metric to number.
        """
        rows = [(stage, epoch, metric, repr(float(value))) for metric, value in values.items()]
        new = not self.file.exists() or self.file.stat().st_size == 0
        with self.file.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_text([_HEADER, *rows] if new else rows))
            stream.flush()
            os.fsync(stream.fileno())
        if self._appended is not None:
            self._appended()

    def write(self, stage: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Puts a whole training's logs in place of what the file has of the stage.

        Args:
            stage: such as ``"train"``.
            records: one dict an epoch: ``epoch``, counted from 0 as Keras does, and the metrics.
        """
        rows = [row for row in self._rows() if row[0] != stage]
        for record in records:
            for metric, value in record.items():
                if metric != "epoch":
                    rows.append([stage, str(record["epoch"] + 1), metric, repr(float(value))])
        replace_file(self.file, _text([_HEADER, *rows]).encode())

    def keep(self, stage: str, epochs: int) -> None:
        """Drops a stage's rows past its first ``epochs`` epochs, and a half-written last row.

        A stage calls it when it starts (0) or resumes: the rows of epochs that will be trained
        again must not stand twice.
        """
        if self.file.exists():
            rows = [row for row in self._rows() if row[0] != stage or int(row[1]) <= epochs]
            replace_file(self.file, _text([_HEADER, *rows]).encode())

    def read(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """``{stage: {metric: [(epoch, value), ...]}}``; empty when there is no file.

        Raises:
            UserError: a row is damaged (a half-written last one is left out instead).
        """
        result: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for stage, epoch, metric, value in self._rows():
            points = result.setdefault(stage, {}).setdefault(metric, [])
            points.append((int(epoch), float(value)))
        return result

    def _rows(self) -> list[list[str]]:
        if not self.file.exists():
            return []
        text = self.file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a kill can leave half a row: it has no line end
        rows = list(csv.reader(io.StringIO(whole)))[1:]
        for row in rows:
            if not _sound(row):
                raise UserError(
                    f"{self.file} is damaged at the row {','.join(row)!r}; remove that row"
                )
        return rows


def _sound(row: Sequence[str]) -> bool:
    if len(row) != len(_HEADER) or not row[1].isdigit():
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
