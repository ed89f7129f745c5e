"""The per-example files beside a report: which belongs to what, and what their arrays mean."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.report import evaluation_findings as findings
from bcgan_tf.report import markup
from bcgan_tf.runs.directory import RunDirectory

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
_DISTANCE_ARRAYS = (
    ("fgsm, multi, best", "float64 [N]", "distance in each reading: 0 where the image is "
     "misclassified as it is, infinite where nothing was found"),
    ("clean_correct", "bool [N]", "the image is classified right as it is"),
    ("zero_gradient", "bool [N]", "it is, and the gradient of the cross entropy is exactly zero"),
    ("found_by", "text [N]", "the search that found the best"),
    ("adversarials", "float32 [N, ...]", "the points at that distance, in [0, 1]"),
)  # fmt: skip
# What a report reads of a file, and how much of it: 256 MiB, the labels of 15 million images.
_READ, _LARGEST_READ = ("labels", "worst_case", "settings"), 2**28


def largest_class(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> float | None:
    """Share of the most frequent class: of the labels beside the report, else as diagnosed."""
    labels = arrays(run, name, evaluation).get("labels")
    if labels is not None and labels.size:
        return float(np.bincount(labels).max() / labels.size)
    for flag in findings.flags_of(evaluation):
        if flag.get("check") == "large eps":
            return flag.get("threshold")
    return None


def array_file(
    run: RunDirectory, name: str, evaluation: Mapping[str, Any], kind: str = "evaluation"
) -> Path | None:
    """The file of per-example arrays of one model under one threat model; None: there is none.

    A model's second reading of one eps has a name of its own: ``evaluation-NAME~11.npz``.
    """
    plain = f"{kind}-{name}"
    # Looked for among what is there: a name from elsewhere cannot lead out of the run's folder.
    found = run.path.glob(f"{kind}-*.npz")
    files = {file.stem: file for file in found if file.is_file() and not file.is_symlink()}
    others = [stem for stem in files if stem.startswith(f"{plain}~")]
    if not others:
        return files.get(plain)
    for stem in (plain, *sorted(others)):
        main = stem.replace(kind, "evaluation", 1)
        settings = _read(run.path / f"{main}.npz").get("settings", {})
        keys = ("eps", "norm", "suite")
        if stem in files and all(settings.get(key) == evaluation.get(key) for key in keys):
            return files[stem]
    return None


def arrays(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """``labels``, ``worst_case`` and the parsed ``settings``; ``{}`` where they cannot be read."""
    file = array_file(run, name, evaluation)
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


def described(run: RunDirectory, name: str, evaluation: Mapping[str, Any]) -> Iterable[str]:
    """Links to a model's files, and tables of what their arrays mean."""
    tables = {
        "evaluation": ("every image under every attack", _ARRAYS),
        "perturbation": ("every image's smallest perturbation", _DISTANCE_ARRAYS),
    }
    for kind, (content, meanings) in tables.items():
        file = array_file(run, name, evaluation, kind)
        if file is None:
            continue
        yield f"<p>{markup.file_link(file.name)}: {content}, for numpy.load.</p>"
        rows = [[markup.text(cell) for cell in row] for row in meanings]
        table = markup.table(("array", "type", "meaning"), rows)
        yield markup.folded(f"What the arrays of {file.name} mean", table)
