"""Which strategy is chosen, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.errors import UserError


def test_one_device_needs_no_strategy():
    assert distribute.strategy(1) is None
    assert isinstance(distribute.scope(None), contextlib.nullcontext)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="None means all GPUs")
def test_without_gpus_the_default_is_one_device():
    assert distribute.strategy() is None


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="GPUs come first")
def test_two_devices_are_mirrored_by_one_object_per_process(two_replicas):
    chosen = distribute.strategy(2)
    assert isinstance(chosen, tf.distribute.MirroredStrategy)
    assert chosen.num_replicas_in_sync == 2
    assert chosen is distribute.strategy(2) is two_replicas
    with distribute.scope(chosen):
        assert tf.distribute.get_strategy() is chosen


@pytest.mark.parametrize("devices", [0, -1, 3, 64])
def test_more_devices_than_there_are(devices):
    with pytest.raises(UserError, match=rf"{devices} devices were asked for.*between 1 and") as e:
        distribute.strategy(devices)
    assert "\n" not in str(e.value)


def test_the_global_batch_must_divide(two_replicas):
    distribute.check_batch_size(8, two_replicas)
    distribute.check_batch_size(7, None)
    with pytest.raises(UserError, match=r"7 is for all 2 devices together.*multiple of 2"):
        distribute.check_batch_size(7, two_replicas)
