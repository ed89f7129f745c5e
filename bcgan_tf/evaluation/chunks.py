"""The work of an evaluation: chunk by chunk, and within a chunk attack by attack."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from bcgan_tf.attacks.attack import Attack, AttackResult, PreparedAttack
from bcgan_tf.evaluation.pieces import Pieces
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.progress import Progress

_CHUNK = 1000


@dataclasses.dataclass
class Chunks:
    """One evaluation on its way; what is finished is kept in pieces and not done again.

    Attributes:
        attacks: in their order.
        survivors_only: whether an attack gets only what those before it left.
        pieces: where each attack's result on each chunk is kept.
        progress: told while an attack is at work.
        evaluation: the evaluation's labels and settings, still without results. Images that it
            knows to be certified are not attacked.
    """

    attacks: list[PreparedAttack]
    survivors_only: bool
    pieces: Pieces
    progress: Progress | None
    evaluation: Evaluation

    def run(self, images: np.ndarray) -> Evaluation:
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(images), _CHUNK)]
        found: list[list[AttackResult]] = [[] for _ in self.attacks]
        seconds = [0.0] * len(self.attacks)
        standing = 0
        certified = self.evaluation.certified
        for number, rows in enumerate(chunks):
            left = np.ones(len(images[rows]), bool)
            spared = np.zeros(len(left), bool)
            if certified is not None:
                spared = certified[rows]
                standing += int(spared.sum())
            for position, attack in enumerate(self.attacks):
                done = (rows.start * len(self.attacks), len(images[rows]), position, standing)
                # What is proved within eps says nothing of an attack that goes further.
                given = left & ~spared if self._within(attack.attack) else left
                result, took = self._piece(
                    f"{number:04d}-{position}", attack, images, rows, given, done
                )
                found[position].append(result)
                seconds[position] += took
                if self.survivors_only:
                    part = dataclasses.replace(self.evaluation, results=(result,))
                    left = left & result.clean_correct & ~part.broken_by(result)
            standing += int((left & ~spared).sum())
        return dataclasses.replace(
            self.evaluation,
            results=tuple(_joined(parts) for parts in found),
            seconds=tuple(seconds),
        )

    def _within(self, attack: Attack) -> bool:
        """Whether an attack stays within the radius for which images are certified."""
        eps = self.evaluation.eps
        own = getattr(attack, "eps", None)
        linf = getattr(attack, "norm", None) == "linf"
        return linf and eps is not None and own is not None and own <= eps

    def _piece(
        self,
        name: str,
        attack: PreparedAttack,
        images: np.ndarray,
        rows: slice,
        left: np.ndarray,
        done: tuple[int, int, int, int],
    ) -> tuple[AttackResult, float]:
        finished = self.pieces.load(name, attack.attack, images[rows])
        if finished is not None:
            return finished
        started = time.monotonic()
        result = attack(
            images[rows],
            self.evaluation.labels[rows],
            mask=left,
            indices=self.evaluation.indices[rows],
            progress=self._reporter(attack.attack, len(images), left, done),
        )
        seconds = time.monotonic() - started
        self.pieces.save(name, result, images[rows], seconds)
        return result, seconds

    def _reporter(
        self, attack: Attack, total: int, left: np.ndarray, at: tuple[int, int, int, int]
    ) -> Progress | None:
        """One attack's progress on one chunk as progress through everything."""
        progress = self.progress
        if progress is None:
            return None
        base, rows, position, standing = at
        text = attack.name
        if self.survivors_only:
            survivors = standing + int(left.sum())
            text = f"{text}: {survivors:,} of {base // len(self.attacks) + rows:,} left"

        def report(done: int, to_do: int, _: str) -> None:
            share = done / to_do if to_do else 1.0
            progress(base + round(rows * (position + share)), total * len(self.attacks), text)

        return report


def _joined(parts: list[AttackResult]) -> AttackResult:
    fields = ("adversarials", "clean_correct", "attacked", "success", "linf", "l2")
    return dataclasses.replace(
        parts[0],
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields},
    )
