"""When the suite ``fast`` is not to be believed: reasons to go on with ``standard``."""

from __future__ import annotations

from bcgan_tf.evaluation.gradient_health import DEAD, gradient_health
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask

# The share of the images that a random search may break after attacks that follow gradients.
BLIND = 0.002
# Images whose gradients are looked at.
_LOOKED_AT = 200


def why_standard(task: EvaluationTask, found: Evaluation) -> str | None:
    """What says that gradients mislead on a model, as a clause; None where nothing does.

    - The model draws random numbers.
    - The gradient is missing, or for more than 1 % of the first 200 images zero or not finite, of
      the margin too, which the attacks of ``fast`` follow. Behind flat preprocessing it is that of
      the stand-in.
    - An attack without gradients broke more than 0.2 % of the images, which attacks that follow
      them had left.

    Args:
        task: the model and the images.
        found: what the suite ``fast`` found on them.
    """
    if task.calls > 1:
        return "the model draws random numbers"
    model = task.model if task.through_preprocessing is None else task.through_preprocessing
    health = gradient_health(model, task.images[:_LOOKED_AT], task.labels[:_LOOKED_AT])
    if health.missing:
        return "the model has no gradient"
    if health.dead > DEAD:
        return f"no loss has a usable gradient for {100 * health.dead:.0f} % of the images"
    blind = [result for result in found.results if not result.uses_gradients]
    broken = sum(int(found.broken_by(result).sum()) for result in blind)
    if broken > BLIND * found.n:
        names = ", ".join(result.attack for result in blind)
        return f"{names} broke {broken} that attacks along the gradient had left"
    return None
