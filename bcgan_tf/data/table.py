"""A user's own images named by a table, `csv:FILE`: the columns path, label and perhaps split."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from bcgan_tf.data import image_files
from bcgan_tf.data.dataset import Dataset
from bcgan_tf.data.image_files import PARTS, TEST, TRAIN, VALIDATION, ImageFile, Listing
from bcgan_tf.errors import UserError
from bcgan_tf.settings.images import ImageSettings

_COLUMNS = "path,label or path,label,split"


def load(
    path: str | os.PathLike[str],
    settings: ImageSettings | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """The images that a CSV file names.

    Its first line is ``path,label`` or ``path,label,split``. A path is relative to the file's
    folder; the classes are the sorted labels, by value where all are integers; a split is train,
    validation (or val) or test. Without that column the splits are drawn
    (:func:`image_files.split_parts`).

    Args:
        path: of the file, in UTF-8.
        settings: what the images become; the defaults without.
        cache_dir: see :func:`image_files.load`.
        seed: chooses the validation images.

    Raises:
        UserError: all that is wrong with the table and the images, in one message.
    """
    file = Path(path).expanduser()
    rows = _rows(file)
    faults: list[str] = []
    labels = sorted({row["label"] for row in rows})
    if all(label.lstrip("-").isdecimal() for label in labels):
        labels.sort(key=int)
    for column, what in (("path", "no path"), ("label", "no label")):
        if lines := [str(number) for number, row in enumerate(rows, 2) if not row[column]]:
            faults.append(f"{file}: {what} in line {', '.join(lines[:9])}; fill it in")
    if not all(label.isprintable() for label in labels):
        faults.append(f"{file}: a label that cannot be printed; use text in UTF-8")
    if len(labels) < 2:
        faults.append(f"{file}: {len(labels)} label(s); a classifier needs at least 2")
    splits = {row["split"] for row in rows}
    if unknown := sorted(splits - PARTS.keys() - {""}):
        faults.append(
            f"{file}: split {', '.join(map(repr, unknown))}; use train, validation and test"
        )
    elif splits != {""} and not {TRAIN, TEST} <= splits:
        missing = " and ".join(sorted({TRAIN, TEST} - splits))
        faults.append(f"{file}: no row has the split {missing}; leave out the column to draw them")
    elif splits != {""} and "" in splits:
        faults.append(f"{file}: some rows have no split; fill it in, or leave out the column")
    order = ["", TRAIN, VALIDATION, TEST]
    files = [
        ImageFile(
            file.parent / row["path"], labels.index(row["label"]), PARTS.get(row["split"], "")
        )
        for row in rows
    ]
    files.sort(key=lambda one: order.index(one.part))
    listing = Listing(f"csv-{file.stem}", file.parent, tuple(labels), files, faults)
    chosen = settings or ImageSettings()
    return image_files.load(listing, chosen, cache_dir=cache_dir, seed=seed)


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows as path, label and split, without the space around them."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
            missing = {"path", "label"} - columns.keys()
            found = [] if missing else list(reader)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file; give a CSV file with {_COLUMNS}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: no readable CSV file in UTF-8 ({error}); mend it") from error
    if missing or not found:
        what = f"no column {' and no column '.join(sorted(missing))}" if missing else "no row"
        raise UserError(f"{file}: {what}; its first line must be {_COLUMNS}")
    return [
        {
            name: (row.get(columns.get(name, "")) or "").strip()
            for name in ("path", "label", "split")
        }
        for row in found
    ]
