"""The paper's published figures, as printed, to stand beside what is measured.

"Enhancing the Robustness of Deep Neural Networks by Boundary Conditional GAN", Tables 1 and 2.
Accuracies in percent; eps and rho in the paper's own pixel unit, which it does not state.
"""

from __future__ import annotations

from bcgan_tf.errors import UserError

# Columns of Table 1 after "clean": FGSM at two eps, PGD, Carlini-Wagner L2.
FGSM_EPS: dict[str, tuple[float, float]] = {
    "mnist": (0.2, 0.4),
    "fashion_mnist": (0.05, 0.15),
    "cifar10": (0.01, 0.03),
}
PGD_STEPS = {"mnist": 40, "fashion_mnist": 40, "cifar10": 8}
# 1 in [0, 1] pixels is 2 in [-1, 1] pixels.
UNITS: dict[str, float] = {"[0, 1]": 1.0, "[-1, 1]": 0.5}

# Row -> clean, FGSM small, FGSM large, PGD, CW.
TABLE_1: dict[str, dict[str, tuple[float, float, float, float, float]]] = {
    "mnist": {
        "original": (99.2, 74.5, 31.3, 11.0, 32.6),
        "fgsm-at-1": (99.3, 96.2, 84.7, 73.3, 85.2),
        "fgsm-at-2": (98.8, 96.3, 92.3, 44.5, 96.3),
        "pgd-at": (99.1, 97.1, 92.6, 93.6, 96.4),
        "distillation": (96.9, 96.0, 96.0, 96.0, 2.1),
        "defense-gan": (90.1, 83.1, 71.2, 77.0, 34.4),
        "bcgan": (97.7, 97.4, 97.3, 97.4, 97.5),
    },
    "fashion_mnist": {
        "original": (90.9, 60.7, 18.6, 0.0, 0.0),
        "fgsm-at-1": (90.3, 81.1, 58.5, 2.0, 54.4),
        "fgsm-at-2": (89.0, 80.5, 76.0, 14.9, 82.3),
        "pgd-at": (83.5, 81.5, 77.7, 67.3, 84.9),
        "distillation": (88.1, 80.4, 80.2, 80.1, 0.0),
        "defense-gan": (83.5, 78.9, 69.0, 49.8, 37.9),
        "bcgan": (85.4, 83.8, 83.8, 83.6, 85.9),
    },
    "cifar10": {
        "original": (81.7, 44.9, 23.0, 1.6, 0.1),
        "fgsm-at-1": (81.0, 67.9, 46.1, 25.4, 6.3),
        "fgsm-at-2": (78.5, 69.1, 53.0, 35.5, 21.6),
        "pgd-at": (76.2, 68.3, 54.3, 38.9, 34.4),
        "distillation": (84.9, 75.7, 75.5, 75.1, 0.0),
        "defense-gan": (44.0, 43.1, 42.3, 41.8, 42.2),
        "bcgan": (80.9, 80.3, 80.2, 80.2, 80.7),
    },
}
# Row -> mean rho (eq. 9 and 10).
TABLE_2: dict[str, dict[str, float]] = {
    "mnist": {
        "original": 0.40,
        "fgsm-at-1": 0.77,
        "fgsm-at-2": 0.86,
        "pgd-at": 0.88,
        "distillation": 1.67,
        "defense-gan": 0.10,
        "bcgan": 1.94,
    },
    "fashion_mnist": {
        "original": 0.15,
        "fgsm-at-1": 0.27,
        "fgsm-at-2": 0.47,
        "pgd-at": 0.58,
        "distillation": 1.65,
        "defense-gan": 0.11,
        "bcgan": 1.70,
    },
    "cifar10": {
        "original": 0.16,
        "fgsm-at-1": 0.22,
        "fgsm-at-2": 0.33,
        "pgd-at": 0.41,
        "distillation": 1.84,
        "defense-gan": 0.12,
        "bcgan": 2.00,
    },
}
ROWS = tuple(TABLE_1["mnist"])


def largest_mean_rho(unit: str, classes: int = 10) -> float:
    """The largest mean minimum perturbation (Linf) that any deterministic classifier can have.

    Every image lies within half the pixel range of the constant grey image, and that has one
    label: for all but its class half the range suffices, for the rest the whole range does.

    Args:
        unit: ``"[0, 1]"`` or ``"[-1, 1]"``.
        classes: of equal frequency.

    Raises:
        UserError: no such unit.
    """
    if unit not in UNITS:
        raise UserError(f"there is no unit {unit!r}; choose one of {', '.join(UNITS)}")
    others = (classes - 1) / classes
    return (others * 0.5 + (1 - others) * 1.0) / UNITS[unit]


def impossible(dataset: str, row: str) -> list[str]:
    """What in the paper's figures of one row no deterministic classifier can have, in words."""
    found = []
    rho = TABLE_2[dataset][row]
    for unit in UNITS:
        bound = largest_mean_rho(unit)
        if rho > bound:
            found.append(
                f"rho {rho:.2f} exceeds {bound:.2f}, the largest possible in {unit} pixels"
            )
    clean, *_, carlini_wagner = TABLE_1[dataset][row]
    if carlini_wagner > clean:
        found.append(
            f"the accuracy under CW, {carlini_wagner:.1f} %, exceeds the clean one, {clean:.1f} %"
        )
    return found
