"""One suite on one set of images at work: chunk by chunk, and in a chunk attack by attack."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bcgan_tf.attacks.attack import Attack, PreparedAttack
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.preprocessing import ADAPTIVE
from bcgan_tf.attacks.result import AttackResult, joined_results
from bcgan_tf.attacks.suites import suite
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import EvaluationState
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.lazy_images import rows_of
from bcgan_tf.progress import Progress

# Suites whose answer is to be believed, not to be compared with the paper's.
_THOROUGH = ("standard", "plus", "fast")


@dataclasses.dataclass
class SuiteRun:
    """Attacks on images, of which each chunk is finished by itself.

    Attributes:
        attacks: in their order.
        images: float32 ``[N, ...]``, perhaps lazy.
        evaluation: their labels and the settings. Images that it knows to be certified are not
            attacked.
        standing: bool ``[N]``: what attacks before these left.
        before: how many those were.
        chunk: images of which all attacks are finished before the next are begun.
        state: where each attack's result on each chunk is kept.
        progress: told while an attack is at work.
    """

    attacks: list[PreparedAttack]
    images: Any
    evaluation: Evaluation
    standing: np.ndarray
    before: int
    chunk: int
    state: EvaluationState
    progress: Progress | None = None
    # By position of the attack, the images of the chunks before that it got.
    _tried: Counter[int] = dataclasses.field(default_factory=Counter)

    @property
    def survivors_only(self) -> bool:
        """Whether an attack gets only what those before it left."""
        return self.evaluation.suite not in (None, "paper")

    @property
    def chunks(self) -> range:
        """The numbers of the chunks."""
        return range(math.ceil(len(self.images) / self.chunk))

    @property
    def pieces(self) -> list[list[str]]:
        """Of each chunk the names that its results, one an attack, are kept by."""
        positions = range(self.before, self.before + len(self.attacks))
        return [[f"{number:04d}-{position}" for position in positions] for number in self.chunks]

    def finish(self) -> tuple[tuple[AttackResult, ...], tuple[float, ...]]:
        """Runs what is not finished: each attack's result on all images, and its seconds."""
        chunks = [self.finish_chunk(number) for number in self.chunks]
        attacks = list(zip(*chunks, strict=True))
        results = tuple(joined_results([result for result, _ in parts]) for parts in attacks)
        return results, tuple(sum(took for _, took in parts) for parts in attacks)

    def finish_chunk(self, number: int) -> list[tuple[AttackResult, float]]:
        """The results of all attacks on one chunk, and their seconds: found now, or kept before."""
        rows = slice(number * self.chunk, (number + 1) * self.chunk)
        certified = self.evaluation.certified
        left = self.standing[rows].copy()
        spared = np.zeros_like(left) if certified is None else certified[rows]
        nearness = np.full(len(left), -np.inf)
        found = []
        for position, attack in enumerate(self.attacks):
            # What is proved within eps says nothing of an attack that goes further.
            mask = left & ~spared if self._within(attack.attack) else left
            if attack.attack.near is not None:
                mask = mask & (nearness > -attack.attack.near)
            if attack.attack.first is not None:
                mask = mask & (np.arange(rows.start, rows.start + len(left)) < attack.attack.first)
            found.append(self._piece(number, position, rows, mask))
            self._tried[position] += int(mask.sum())
            result = found[-1][0]
            nearness = np.maximum(nearness, result.nearness)
            if self.survivors_only:
                left = left & result.clean_correct & ~self.evaluation.broken_by(result)
        return found

    def _within(self, attack: Attack) -> bool:
        """Whether an attack stays within the radius for which images are certified."""
        eps, own = self.evaluation.eps, getattr(attack, "eps", None)
        linf = getattr(attack, "norm", None) == "linf"
        return linf and eps is not None and own is not None and own <= eps

    def _piece(
        self, number: int, position: int, rows: slice, mask: np.ndarray
    ) -> tuple[AttackResult, float]:
        """One attack on one chunk, and its seconds."""
        attack, name = self.attacks[position], self.pieces[number][position]
        images = rows_of(self.images, rows)
        kept = self.state.load(name, attack.attack, images)
        if kept is not None:
            return kept
        started = time.monotonic()
        result = attack(
            images[:],
            self.evaluation.labels[rows],
            mask=mask,
            indices=self.evaluation.indices[rows],
            progress=self._reporter(position, rows.start, mask),
        )
        seconds = time.monotonic() - started
        return self.state.save(name, result, images, seconds), seconds

    def _reporter(self, position: int, start: int, mask: np.ndarray) -> Progress | None:
        """One attack's progress on one chunk as progress through everything."""
        progress, attacks, rows = self.progress, len(self.attacks), len(mask)
        if progress is None:
            return None
        text = self.attacks[position].attack.name
        if self.survivors_only:
            text += f": on {self._tried[position] + int(mask.sum()):,} of {start + rows:,} images"

        def report(done: int, to_do: int, _: str) -> None:
            share = done / to_do if to_do else 1.0
            finished = start * attacks + round(rows * (position + share))
            progress(finished, len(self.images) * attacks, text)

        return report


def prepared_attacks(task: EvaluationTask, attacks: str | Sequence[Attack]) -> list[PreparedAttack]:
    """The attacks on the task's model, of a thorough suite also behind its preprocessing."""
    if not isinstance(attacks, str):
        return [task.prepared(attack) for attack in attacks]
    chosen = suite(
        attacks,
        task.eps or 0.0,
        norm=task.norm,
        num_classes=task.num_classes,
        seed=task.seed,
        batch_size=task.batch_size,
        precision=task.searched_in,
    )

    thorough = attacks in _THOROUGH
    if thorough and task.has_box:
        bounded = (attack for attack in chosen if isinstance(attack, BoundedAttack))
        return [task.prepared_in_box(one, one.searched_in or task.searched_in) for one in bounded]
    prepared = [task.prepared(one, one.searched_in or task.searched_in) for one in chosen]
    through = task.through_preprocessing if thorough else None
    if through is not None:
        blind = (i for i, attack in enumerate(chosen) if not attack.uses_gradients)
        place = next(blind, len(chosen))
        prepared[place:place] = [
            adaptive(**vars(attack)).prepare(through)
            for attack in chosen
            if (adaptive := ADAPTIVE.get(type(attack)))
        ]
    return prepared
