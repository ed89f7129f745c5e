"""Where attacks of the code that the paper's figures most likely come from are other than ours."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from bcgan_tf.attacks import CarliniWagnerL2

# What stands in place of the true class where the largest of the others is sought. Carlini and
# Wagner's own code has it, and so has cleverhans.
_MASKED = -10_000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorsCarliniWagner(CarliniWagnerL2):
    """Carlini-Wagner L2 that sees no wrong logit below -10,000.

    As usual codes of the attack do, it looks for the largest wrong logit with -10,000 in place of
    the true one. Where all logits are lower, it finds that number, and its loss is 0 for an image
    that is classified right: nothing is searched for.
    """

    def margins(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See :meth:`CarliniWagnerL2.margins`."""
        true = tf.gather(logits, labels, axis=1, batch_dims=1)
        return tf.maximum(super().margins(logits, labels), _MASKED - true)
