"""The tables of results: each stands here once, and is rendered on pages, in a terminal, as text.

Nothing here needs a run's folder, a figure or TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NORMS = {"linf": "Linf", "l2": "L2"}
# The rows of a table of classes where there are more of them.
WORST_CLASSES, BEST_CLASSES = 10, 3


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        text: a number or a few words.
        detail: in small type behind it, such as an interval.
        explanation: in small type below it, on pages only.
        severity: ``"good"``, ``"open"``, ``"bad"`` or ``"none"`` gives it a color on pages; ``""``
            leaves it plain.
    """

    text: str
    detail: str = ""
    explanation: str = ""
    severity: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip()


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row; its first cell is its heading.

    Attributes:
        cells: as many as the table has columns.
        strong: whether it is stressed.
    """

    cells: tuple[Cell, ...]
    strong: bool = False

    @classmethod
    def of(cls, *cells: Cell | object, strong: bool = False) -> TableRow:
        """A row of cells and of what is shown as it prints."""
        made = (cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in cells)
        return cls(tuple(made), strong)


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and rows.

    Attributes:
        head: the columns' titles; none for a table of names and values.
        rows: none: there is nothing to show.
    """

    head: tuple[str, ...]
    rows: tuple[TableRow, ...] = ()

    def __str__(self) -> str:
        """The table as aligned plain text, a line a row."""
        lines = [self.head] if self.head else []
        lines += [tuple(map(str, row.cells)) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                text.rjust(width) if number else text.ljust(width)
                for number, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def percent(share: float) -> str:
    """``0.974`` as ``97.4 %``."""
    return f"{100 * share:.1f} %"


def eps_text(eps: float) -> str:
    """An eps in [0, 1] pixel units as it was meant: ``0.3``, ``8/255``."""
    levels = eps * 255
    if len(f"{eps:g}") > 5 and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{eps:.4g}"


def interval_of(found: Mapping[str, Any], name: str = "") -> tuple[float, float] | None:
    """The 95 % interval ``{name}interval95`` of a dict; None where it has none."""
    ends = found.get(f"{name}interval95")
    return (float(ends[0]), float(ends[1])) if ends else None


def accuracy(
    found: Mapping[str, Any], name: str = "", key: str = "", *, n: int | None = None
) -> Cell:
    """``93.0 % (91.2 to 94.4)``.

    Args:
        found: holds the share, and its interval as ``{name}interval95``.
        name: what both keys begin with, such as ``"clean_"``.
        key: of the share; by default ``{name}accuracy``.
        n: images, to be shown too.
    """
    share = found.get(key or f"{name}accuracy")
    return Cell("not measured") if share is None else _share(share, interval_of(found, name), n)


def _share(share: float, interval: tuple[float, float] | None, n: int | None = None) -> Cell:
    parts = []
    if interval is not None:
        parts.append(f"({100 * interval[0]:.1f} to {100 * interval[1]:.1f})")
    if n is not None:
        parts.append(f"n = {n:,}")
    return Cell(percent(share), ", ".join(parts))


def attack_table(evaluation: Mapping[str, Any]) -> Table:
    """What each attack of an evaluation broke and left, and the worst case.

    The accuracy under an attack alone is known where it was tried on every image that is
    classified right; later attacks are tried on the survivors only.

    Args:
        evaluation: ``Evaluation.to_dict()``.
    """
    n, clean = evaluation.get("n"), evaluation.get("clean_accuracy")
    unattacked = accuracy(evaluation, "clean_")
    rows = [TableRow.of("no attack", "", "", unattacked, unattacked, "", "")]
    for attack in evaluation.get("attacks") or []:
        tried, broke = attack.get("attacked"), attack.get("broken")
        alone: Cell | str = "survivors only"
        if n and clean is not None and tried == round(clean * n) and broke is not None:
            alone = _share(clean - broke / n, interval_of(attack))
        seconds = attack.get("seconds")
        rows.append(
            TableRow.of(
                attack.get("attack", ""),
                _tried(attack),
                count(broke),
                alone,
                accuracy(attack, "left_", "left"),
                _passes(attack),
                "-" if seconds is None else f"{seconds:.1f} s",
            )
        )
    worst = accuracy(evaluation, "robust_")
    rows.append(TableRow.of("worst case", "", "", "", worst, "", "", strong=True))
    head = ("", "tried on", "broke", "accuracy under it alone", "accuracy left so far")
    return Table((*head, "forward / backward passes an image", "time"), tuple(rows))


def _tried(attack: Mapping[str, Any]) -> Cell:
    """How many images, and how many of them twice."""
    again = attack.get("searched_again")
    return Cell(count(attack.get("attacked")), f"{count(again)} again in float32" if again else "")


def _passes(attack: Mapping[str, Any]) -> str:
    """What an attack spent on each image that it was tried on."""
    passes, tried = attack.get("passes"), attack.get("attacked")
    if not passes or not tried:
        return "-"
    return " / ".join(count(round(passes[kind] / tried)) for kind in ("forward", "backward"))


def class_table(evaluation: Mapping[str, Any]) -> Table:
    """The clean and the robust accuracy of each class, as shares with counts.

    Of more than thirteen classes, the ten least robust and the three most robust.

    Args:
        evaluation: an entry of ``evaluations`` in metrics.json.
    """
    found = evaluation.get("classes")
    if not found:
        return Table(())
    rows = [*zip(found["names"], found["n"], found["clean"], found["robust"], strict=True)]
    if len(rows) > WORST_CLASSES + BEST_CLASSES:
        ranked = sorted(rows, key=lambda row: (row[3] / row[1], row[2] / row[1]))
        rows = [*ranked[:WORST_CLASSES], *ranked[-BEST_CLASSES:]]

    def share(right: int, n: int) -> Cell:
        return Cell(percent(right / n), f"{right:,} of {n:,}")

    cells = (
        TableRow.of(name, share(clean, n), share(robust, n)) for name, n, clean, robust in rows
    )
    return Table(("class", "clean accuracy", "robust accuracy"), tuple(cells))


def count(number: int | None) -> str:
    """``1000`` as ``1,000``; ``-`` for None."""
    return "-" if number is None else f"{number:,}"


def clean_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """The clean accuracy of the models that were not attacked, or not on all of its images.

    Args:
        models: the ``models`` of metrics.json.
    """
    chosen = {
        name: model
        for name, model in models.items()
        if model.get("n") not in [entry.get("n") for entry in model.get("evaluations", ())]
    }
    if not chosen:
        return Table(())
    cells = (accuracy(model, "clean_", n=model.get("n")) for model in chosen.values())
    return Table(("", *chosen), (TableRow.of("clean accuracy", *cells),))


def radii_table(radii: Mapping[str, Mapping[str, Any]]) -> Table:
    """Accuracy over the radii of an attack, a column a model, and the mean distance it needs.

    Args:
        radii: model to its ``radii`` in metrics.json.
    """
    found = {
        name: {point["eps"]: accuracy(point) for point in model["points"]}
        for name, model in radii.items()
    }
    rows = [
        TableRow.of(f"eps {eps_text(eps)}", *(found[name].get(eps, "-") for name in radii))
        for eps in sorted({eps for points in found.values() for eps in points})
    ]
    if any(model.get("mean_distance") for model in radii.values()):
        cells = (_mean_distance(model.get("mean_distance") or {}) for model in radii.values())
        rows.append(TableRow.of("mean L2 distance of the adversarial examples found", *cells))
    return Table(("", *radii), tuple(rows)) if rows else Table(())


def _mean_distance(found: Mapping[str, Any]) -> Cell:
    if found.get("l2") is None:
        return Cell("none found" if found else "-")
    return Cell(f"{found['l2']:.3f}", f"n = {found['n']:,}" if found.get("n") is not None else "")


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Dicts of numbers, a row each."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(
        tuple(name.replace("_", " ") for name in names),
        tuple(TableRow.of(*(_value(row.get(name)) for name in names)) for row in rows),
    )


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pairs_table(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values."""
    return Table((), tuple(TableRow.of(name, value) for name, value in pairs))
