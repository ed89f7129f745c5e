"""The per-example files beside a report: which belongs to what, and what their arrays mean."""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.report import findings
from bcgan_tf.report.table import Table, TableRow

_ARRAYS = (
    ("labels", "int [N]", "true classes"),
    ("indices", "int [N]", "each image's position in the set that was evaluated"),
    ("clean_correct", "bool [N]", "the image is classified right as it is"),
    ("worst_case", "bool [N]", "it is, and survives every attack: its mean is the robust accuracy"),
    ("broken_rows", "int [M]", "rows of the images that an attack broke"),
    ("adversarials", "float32 [M, ...]", "what broke them, in [0, 1], in the order of broken_rows"),
    (
        "certified",
        "bool [N]",
        "it was not attacked: no attack could break it; only where asked for",
    ),
    ("0_attacked, 1_attacked, ...", "bool [N]", "whether the first, second, ... attack tried it"),
    ("0_success, ...", "bool [N]", "whether that attack broke it"),
    ("0_linf, 0_l2, ...", "float64 [N]", "size of its change, in [0, 1] pixel units"),
    ("settings", "JSON text", "threat model, seconds, and every setting of each attack"),
)
_MINIMUM_ARRAYS = (
    ("minimum_fgsm, minimum_multi, minimum_best", "float64 [N]", "smallest perturbation in each "
     "reading: 0 where the image is misclassified as it is, infinite where nothing was found"),
    ("minimum_zero_gradient", "bool [N]", "the image is classified right, and the gradient of the "
     "cross entropy is exactly zero"),
    ("minimum_found_by", "text [N]", "the search that found the best"),
    ("minimum_adversarials", "float32 [N, ...]", "the points at that distance, in [0, 1]"),
)  # fmt: skip
# What a report reads of a file, and how much of it: 256 MiB, the labels of 15 million images.
_READ, _LARGEST_READ = ("labels", "worst_case", "settings"), 2**28


def largest_class(folder: Path | None, name: str, evaluation: Mapping[str, Any]) -> float | None:
    """Share of the most frequent class: of the labels beside the report, else as diagnosed."""
    labels = arrays(folder, name, evaluation).get("labels")
    if labels is not None and labels.size:
        return float(np.bincount(labels).max() / labels.size)
    for flag in findings.flags_of(evaluation):
        if flag.get("check") == "large eps":
            return flag.get("threshold")
    return None


def array_file(folder: Path | None, name: str, evaluation: Mapping[str, Any]) -> Path | None:
    """The file of per-example arrays of one model under one threat model; None: there is none.

    A model's second threat model of one suite has a name of its own: ``evaluation-NAME~11.npz``.
    """
    if folder is None:
        return None
    plain = f"evaluation-{name}"
    # Looked for among what is there: a name from elsewhere cannot lead out of the run's folder.
    found = folder.glob("evaluation-*.npz")
    files = {file.stem: file for file in found if file.is_file() and not file.is_symlink()}
    others = [stem for stem in files if stem.startswith(f"{plain}~")]
    if not others:
        return files.get(plain)
    for stem in (plain, *sorted(others)):
        settings = _read(files[stem]).get("settings", {}) if stem in files else {}
        keys = ("eps", "norm", "suite")
        if settings and all(settings.get(key) == evaluation.get(key) for key in keys):
            return files[stem]
    return None


def arrays(folder: Path | None, name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """``labels``, ``worst_case`` and the parsed ``settings``; ``{}`` where they cannot be read."""
    file = array_file(folder, name, evaluation)
    return {} if file is None else _read(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as content:
            sizes = [content.zip.getinfo(f"{name}.npy").file_size for name in _READ]
            if sum(sizes) > _LARGEST_READ:
                return {}
            return {
                "labels": content["labels"],
                "worst_case": content["worst_case"],
                "settings": json.loads(str(content["settings"])),
            }
    except (
        OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error
    ):  # fmt: skip
        return {}


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """A file beside the report: its name, and what its arrays mean."""

    name: str
    arrays: Table


def array_files(
    folder: Path | None, name: str, evaluation: Mapping[str, Any]
) -> Iterator[ArrayFile]:
    """The file of one model under one threat model, if there is one."""
    if (file := array_file(folder, name, evaluation)) is not None:
        minimum = _MINIMUM_ARRAYS if evaluation.get("minimum_perturbation") else ()
        rows = tuple(TableRow.of(*row) for row in (*_ARRAYS, *minimum))
        yield ArrayFile(file.name, Table(("array", "type", "meaning"), rows))
