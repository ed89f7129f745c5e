"""The headline table: what was measured, one row a measurement, one column a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        value: a share in [0, 1] or, in rows of the kind ``"distance"``, a mean L2 distance; None
            when it was not measured.
        interval: its 95 % interval, where there is one.
        n: examples it was measured on.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    n: int | None = None

    def text(self, kind: str) -> str:
        """As people read it: ``97.1 % (96.0 to 97.9), n = 1,000``."""
        if self.value is None:
            return "not measured" if kind != "distance" else "none found"
        if kind == "distance":
            return f"{self.value:.3f}"
        parts = [percent(self.value)]
        if self.interval is not None:
            parts.append(f"({100 * self.interval[0]:.1f} to {100 * self.interval[1]:.1f})")
        return " ".join(parts) + (f", n = {self.n:,}" if self.n is not None else "")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement of every model.

    Attributes:
        label: such as ``"PGD-40, eps 0.3"``.
        kind: ``"accuracy"`` (higher is better), ``"success"`` (of the attack) or ``"distance"``.
        cells: model to number.
        eps: of the attack, in [0, 1] pixel units; None where there is none.
        worst: whether it is the worst case over attacks.
    """

    label: str
    kind: str
    cells: dict[str, Cell]
    eps: float | None = None
    worst: bool = False


def percent(share: float) -> str:
    """``0.974`` as ``97.4 %``."""
    return f"{100 * share:.1f} %"


def eps_text(eps: float) -> str:
    """An eps in [0, 1] pixel units as it was meant: ``0.3``, ``8/255``."""
    levels = eps * 255
    if len(f"{eps:g}") > 5 and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{eps:.4g}"


def attack_label(attack: Mapping[str, Any]) -> str:
    """An attack's name with the settings that a reader must know, eps in [0, 1].

    The name says the norm when it is not Linf, and PGD's says its steps.
    """
    config = attack.get("config", {})
    name, steps, restarts = str(attack["attack"]), config.get("steps"), config.get("restarts")
    parts = [name]
    if config.get("eps") is not None:
        parts.append(f"eps {eps_text(config['eps'])}")
    if steps is not None and str(steps) not in name:
        parts.append(f"{steps} steps")
    if restarts is not None and restarts > 1:
        parts.append(f"{restarts} restarts")
    return ", ".join(parts)


def headline_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Clean accuracy, each attack of a given eps, the worst case for each eps, then CW-l2.

    An attack without eps is not bounded: it is read by its success and by how far it went, not by
    an accuracy, which is near 0 for every model.

    Args:
        metrics: see :mod:`bcgan_tf.report.page`.
    """
    models: Mapping[str, Any] = metrics.get("models", {})
    clean = {
        name: Cell(
            model.get("clean_accuracy"), _interval(model.get("clean_interval95")), model.get("n")
        )
        for name, model in models.items()
    }
    rows = [Row("clean", "accuracy", clean)]
    bounded: dict[str, Row] = {}
    unbounded: dict[str, tuple[Row, Row]] = {}
    for name, model in models.items():
        for attack in model.get("attacks", []):
            label = attack_label(attack)
            eps, n = attack.get("config", {}).get("eps"), attack.get("n")
            if eps is None:
                success, distance = unbounded.setdefault(
                    label,
                    (
                        Row(f"{label}: success", "success", {}),
                        Row(f"{label}: mean L2 of the successes", "distance", {}),
                    ),
                )
                success.cells[name] = Cell(attack.get("success_rate"), n=n)
                distance.cells[name] = Cell(attack.get("mean_l2"))
            else:
                row = bounded.setdefault(label, Row(label, "accuracy", {}, eps))
                interval = _interval(attack.get("interval"))
                row.cells[name] = Cell(attack.get("robust_accuracy"), interval, n)
    rows += bounded.values()
    rows += _worst(models)
    for pair in unbounded.values():
        rows += pair
    return rows


def _worst(models: Mapping[str, Any]) -> list[Row]:
    rows: dict[str, Row] = {}
    for name, model in models.items():
        for worst in model.get("worst_case", []):
            label = f"worst case at eps {eps_text(worst['eps'])}"
            row = rows.setdefault(label, Row(label, "accuracy", {}, worst["eps"], worst=True))
            interval = _interval(worst.get("interval"))
            row.cells[name] = Cell(worst.get("robust_accuracy"), interval, worst.get("n"))
    return list(rows.values())


def _interval(found: Any) -> tuple[float, float] | None:
    return (float(found[0]), float(found[1])) if found else None
