"""Workers without processes of their own."""

from __future__ import annotations

import pickle

from bcgan_tf.distribute.workers import Workers


class InThisProcess(Workers):
    """Does what a worker would with the job as it arrives there."""

    count = 2

    def run(self, build, job, items, look):
        made = build(pickle.loads(pickle.dumps(job)))
        return {item: made(item) for item in items}
