"""When a cheap search is not to be believed: reasons to go on with a whole suite in float32."""

from __future__ import annotations

from bcgan_tf.attacks.suites import IN_FLOAT32, SAMPLE, SAMPLE_SIZE, SHORT
from bcgan_tf.evaluation.gradient_health import DEAD, gradient_health
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.task import EvaluationTask

# The share of the images that a random search may break after attacks that follow gradients, and
# an attack in float32 after a search in bfloat16. A short one breaks up to 0.6 % on networks
# without other signs of masking (saved_models/fashion_mnist-trades, Linf 0.1, 500 images).
_BY_CHANCE, _BY_ROUNDING = 0.0075, 0.002
# Images whose gradients are looked at.
_LOOKED_AT = 200


def why_go_on(task: EvaluationTask, found: Evaluation) -> str | None:
    """What says that a cheap search misled on a model, as a clause; None where nothing does.

    Of the suite ``fast``:

    - The model draws random numbers.
    - The gradient is missing, or for more than 1 % of the first 200 images zero or not finite, of
      the margin too, which the attacks of ``fast`` follow. Behind flat preprocessing it is that of
      the stand-in.

    - A short attack without gradients broke more than one image, and more than 0.75 % of all, which
      attacks that follow gradients had left.

    Of ``fast``, and of any suite that searched in bfloat16:

    - The last attack, in float32, broke more than one image, and more than 0.2 % of those that it
      may get (of ``fast``: the first 200), which the search in bfloat16 had left.

    Args:
        task: the model and the images.
        found: what the suite found on them.
    """
    fast = found.suite == "fast"
    if not fast and found.precision == "float32":
        return None
    if fast and (reason := _why_not_gradients(task)):
        return reason
    blind = [one for one in found.results if SHORT in one.attack]
    last = [one for one in found.results if IN_FLOAT32 in one.attack]
    for results, before, most in (
        (blind, "attacks along the gradient", _BY_CHANCE),
        (last, "the search in bfloat16", _BY_ROUNDING),
    ):
        broken = sum(int(found.broken_by(result).sum()) for result in results)
        sampled = any(SAMPLE in result.attack for result in results)
        images = min(found.n, SAMPLE_SIZE) if sampled else found.n
        if broken > max(1, most * images):
            names = ", ".join(result.attack for result in results)
            return f"{names} broke {broken} that {before} had left"
    return None


def _why_not_gradients(task: EvaluationTask) -> str | None:
    if task.calls > 1:
        return "the model draws random numbers"
    model = task.model if task.through_preprocessing is None else task.through_preprocessing
    health = gradient_health(model, task.images[:_LOOKED_AT], task.labels[:_LOOKED_AT])
    if health.missing:
        return "the model has no gradient"
    if health.dead > DEAD:
        return f"no loss has a usable gradient for {100 * health.dead:.0f} % of the images"
    return None
