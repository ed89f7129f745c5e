"""The smallest change of each image that changes its class: the paper's eq. 9 and 10."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.logits import check_digits, masked_classes, without_classes
from bcgan_tf.data.arrays import as_images
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.nearest_point import NearestAdversarial
from bcgan_tf.perturbation.perturbation_search import PerturbationSearch
from bcgan_tf.progress import Progress

# What a change of at most eps may exceed it by in float32.
_ROUNDING = 1e-6
_ROWS = ("fgsm", "multi", "best", "zero_gradient", "adversarials")
_STEP = {"linf": 0.01, "l2": 0.05}


@dataclasses.dataclass(frozen=True, eq=False)
class MinimumPerturbation:
    """The smallest perturbation found of each of ``N`` images, in three readings.

    Each is 0 where the clean image is misclassified, and infinite where nothing was found up to
    ``limit``: the true value is then unknown, not small. Per example ``best <= multi <= fgsm``.

    Attributes:
        norm: ``"linf"`` or ``"l2"``, in units of the [0, 1] pixel range.
        limit: perturbations larger than this were not looked for.
        step: of the grid that ``fgsm`` is searched on.
        fgsm: float64 ``[N]``: the first step along the gradient of the cross entropy (its sign, or
            for L2 itself) at which the class changes; the step's length, not what clipping to
            [0, 1] left of it. A grid value, so up to ``step`` too large.
        multi: float64 ``[N]``: the least distance to a point of another class on many lines.
        best: float64 ``[N]``: the least distance found by anything: the headline.
        clean_correct: bool ``[N]``: the clean image is classified right.
        zero_gradient: bool ``[N]``: it is, and the gradient of the cross entropy is exactly zero.
        adversarials: float32 ``[N, ...]``, the points at distance ``best``; the clean image where
            none was found or none was needed.
        found_by: object ``[N]``, the search that found ``best``, or "".
    """

    norm: str
    limit: float
    step: float
    fgsm: np.ndarray
    multi: np.ndarray
    best: np.ndarray
    clean_correct: np.ndarray
    zero_gradient: np.ndarray
    adversarials: np.ndarray
    found_by: np.ndarray

    def robust_accuracy(self, eps_grid: Any) -> np.ndarray:
        """Share of all images whose smallest perturbation found is larger than eps.

        At eps 0 it is the clean accuracy. From Linf 0.5 on it is at most the share of the largest
        class: every image is within 0.5 of the gray one, which has one class.

        Args:
            eps_grid: numbers of at least 0, of any shape.

        Raises:
            UserError: for a number below 0, or above ``limit``, where nothing was searched.
        """
        eps = np.asarray(eps_grid, np.float64)
        if eps.size and not (eps.min() >= 0 and eps.max() <= self.limit):
            raise UserError(
                f"eps lies in [{eps.min():g}, {eps.max():g}]; perturbations were searched from 0 "
                f"to {self.limit:g}"
            )
        bound = np.where(eps > 0, eps + _ROUNDING, 0.0)
        return (self.best > bound[..., None]).mean(axis=-1)

    def curve(self, eps_grid: Sequence[float] | None = None) -> list[list[float]]:
        """Pairs of eps and robust accuracy, JSON-able; None: 0, 0.01 ... 0.5 within ``limit``."""
        if eps_grid is None:
            eps_grid = [i / 100 for i in range(51) if i / 100 <= self.limit]
        accuracies = self.robust_accuracy(eps_grid).tolist()
        return [list(pair) for pair in zip(eps_grid, accuracies, strict=True)]

    def rows(self) -> dict[str, np.ndarray]:
        """The arrays by the names that they have in ``evaluation-NAME.npz``."""
        found = {name: getattr(self, name) for name in _ROWS}
        return {f"minimum_{name}": array for name, array in found.items()} | {
            "minimum_found_by": self.found_by.astype(str)
        }

    def to_dict(self) -> dict[str, Any]:
        """Settings and summaries, JSON-able, without the arrays.

        ``rho_fgsm`` is over the correctly classified images, as the paper's Table 2 probably is,
        and counts those whose class never changed (``capped_share``) as ``limit``. ``rho_multi``
        and ``rho_best`` are over all images, clean errors as 0, and ``mean_correct`` and
        ``median_correct`` without those. Where nothing was found (``censored_share``), the mean is
        None, since all that is known is that it is larger than the mean of the rest
        (``mean_found``); the median is None where it falls there.
        """
        fgsm = self.fgsm[self.clean_correct]
        zero = self.zero_gradient[self.clean_correct]
        return {
            "norm": self.norm,
            "limit": self.limit,
            "step": self.step,
            "n": len(self.best),
            "clean_accuracy": float(self.clean_correct.mean()),
            "rho_fgsm": {
                "n": len(fgsm),
                "mean": _mean(np.minimum(fgsm, self.limit)),
                "median": _median(np.minimum(fgsm, self.limit)),
                "capped_share": _mean(np.isinf(fgsm)),
                "zero_gradient_share": _mean(zero),
            },
            "rho_multi": self._summary(self.multi),
            "rho_best": self._summary(self.best) | {"found_by": self._counts()},
        }

    def _summary(self, distances: np.ndarray) -> dict[str, Any]:
        correct = distances[self.clean_correct]
        return {
            "n": len(distances),
            "mean": _mean(distances),
            "median": _median(distances),
            "mean_found": _mean(distances[np.isfinite(distances)]),
            "censored_share": _mean(np.isinf(distances)),
            "n_correct": len(correct),
            "mean_correct": _mean(correct),
            "median_correct": _median(correct),
        }

    def _counts(self) -> dict[str, int]:
        names, counts = np.unique(
            self.found_by[self.found_by != ""].astype(str), return_counts=True
        )
        order = np.argsort(-counts, kind="stable")
        return {str(names[i]): int(counts[i]) for i in order}


def minimum_perturbation(
    task: EvaluationTask,
    *,
    limit: float | None = None,
    step: float | None = None,
    attacks: bool = True,
    known: Sequence[np.ndarray] = (),
    progress: Progress | None = None,
) -> MinimumPerturbation:
    """Searches the smallest perturbation that changes the class of each image.

    Three searches, each starting from what the one before it found:

    - ``fgsm``: along the gradient of the cross entropy, on a grid. It fits the paper's Table 2, and
      reads masked gradients as robustness.
    - ``multi``: along many lines, refined by bisection: FGSM's; the gradients of the cross entropy
      (in either norm's shape), of the margin, and of one wrong class after the other; 100 of
      random signs; towards the gray, the black and the white image; and towards the nearest image
      of each other class. A random line is looked at in one point, a little nearer than what is
      known; the others in steps of ``step``, eight at most, up to there.
    - ``best``: FAB, CW, APGD at radii that are bisected
      (:func:`~bcgan_tf.perturbation.radius_search.search_radius`), and ``known``; each point
      found is brought nearer on its line to the image.

    The attacks search in the precision of the task, None being ``"auto"``. The model decides what
    counts.

    All figures bound the true smallest perturbation from above. Gradients that are missing or not
    finite count as zero here.

    Args:
        task: the model, the images and the norm; its radius is not used.
        limit: the largest perturbation looked for; None: 1 for Linf, the square root of the number
            of pixel values for L2, beyond which there is nothing.
        step: of the grids; None: 0.01 for Linf, 0.05 for L2.
        attacks: False leaves the attacks out, for a first look that takes a few forward passes:
            ``best`` is then ``multi``, or better where ``known`` is.
        known: arrays ``[N, ...]`` of images that may be misclassified, such as the adversarials of
            finished attacks; they count for ``best``.
        progress: called with (searches done, searches, text).

    Raises:
        UserError: a setting or an array is unfit, or an offset of the logits leaves no digits.

    Example:
        >>> rho = minimum_perturbation(EvaluationTask(classifier, images, labels))
        >>> rho.best.mean(), rho.robust_accuracy([0.1, 0.3])
    """
    task = task.take(slice(None))
    limit, step = _checked(task, limit, step)
    others = [_checked_images(array, task.images.shape) for array in known]
    zero_gradient = np.zeros(task.n, bool)
    check_digits(task.logits)
    correct = task.correct
    readings = [_clean(task)] * 3

    if (rows := np.flatnonzero(correct)).size:
        logits_fn = without_classes(task.attacked, masked_classes(task.logits))
        attacked = task.in_precision(task.precision or "auto")
        search = PerturbationSearch(
            task.take(rows).with_logits(logits_fn),
            limit,
            attacked=attacked.take(rows),
            attacks=attacks,
            progress=progress,
        )
        searched = [search.along_gradient(step), search.along_lines(step)]
        searched.append(search.with_attacks([array[rows] for array in others]))
        standing = readings[0]
        for number, reading in enumerate(searched):
            answers = task.predict(reading.points, total=task.n).argmax(-1)
            wrong = answers != task.labels[rows]
            standing = readings[number] = _improved(standing, rows, reading, wrong)
        zero_gradient[rows] = search.zero_gradient
    fgsm, multi, best = readings
    return MinimumPerturbation(
        norm=task.norm,
        limit=limit,
        step=step,
        fgsm=fgsm.distance,
        multi=multi.distance,
        best=best.distance,
        clean_correct=correct,
        zero_gradient=zero_gradient,
        adversarials=best.points,
        found_by=best.found_by,
    )


def _clean(task: EvaluationTask) -> NearestAdversarial:
    """Before any search: 0 for the misclassified, nothing found for the others."""
    nobody = np.full(task.n, "", object)
    return NearestAdversarial(np.where(task.correct, np.inf, 0.0), task.images.copy(), nobody)


def _improved(
    before: NearestAdversarial, rows: np.ndarray, found: NearestAdversarial, wrong: np.ndarray
) -> NearestAdversarial:
    """``before [N]``, and in its place what was ``found [M]`` where it is nearer, and holds.

    Where the model, run again, is right (``wrong [M]`` is false), as one that draws may be, what
    stood before stands; so the readings keep their order.
    """
    better = wrong & (found.distance <= before.distance[rows]) & np.isfinite(found.distance)
    after = NearestAdversarial(*(array.copy() for array in before))
    for array, new in zip(after, found, strict=True):
        array[rows[better]] = new[better]
    return after


def _checked(task: EvaluationTask, limit: float | None, step: float | None) -> tuple[float, float]:
    limit = task.whole if limit is None else limit
    step = _STEP[task.norm] if step is None else step
    checks.check_number("limit", limit, above=0)
    checks.check_number("step", step, above=0)
    if step > limit:
        raise UserError(f"step is {step:g}, larger than limit, {limit:g}; make it smaller")
    return min(float(limit), task.whole), float(step)


def _checked_images(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = as_images(array)
    if array.shape != shape:
        raise UserError(
            f"an array of images found has shape {array.shape}; give one image for each of the "
            f"{shape}"
        )
    return array


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _median(values: np.ndarray) -> float | None:
    if not values.size:
        return None
    middle = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]]
    return _mean(middle)
