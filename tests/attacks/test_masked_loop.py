"""The loop that leaves finished examples out, where an example's copies do not agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.masked_loop import masked_while_loop


class _State(NamedTuple):
    finished: tf.Tensor
    x_adv: tf.Tensor
    own: tf.Tensor


def test_fillers_neither_overwrite_a_result_nor_keep_the_loop_going():
    """As with a model that draws: what fills up the batch is answered differently."""
    count, steps = 24, tf.Variable(0)

    def advance(step: tf.Tensor, state: _State) -> _State:
        steps.assign_add(1)
        # All but five finish at once: 3 rows are a unit, so that 5 rows are filled up to 6. In
        # the next step the five finish with the result 2, and the last place has 3 and never ends.
        places = tf.range(tf.shape(state.own)[0])
        last = places == tf.shape(places)[0] - 1
        if tf.equal(step, 0):
            return state._replace(finished=state.own >= 5, x_adv=tf.ones_like(state.x_adv))
        return state._replace(finished=~last, x_adv=tf.where(last, 3.0, 2.0))

    @tf.function
    def run() -> tf.Tensor:
        start = _State(tf.zeros(count, bool), tf.zeros(count), tf.range(count))
        return masked_while_loop(advance, start, 50)

    found = run().numpy()
    np.testing.assert_array_equal(found, np.where(np.arange(count) < 5, 2.0, 1.0))
    assert steps.numpy() == 2
