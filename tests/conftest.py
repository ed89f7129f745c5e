"""What all tests share: two logical CPU devices, one strategy over them, and real data."""

from __future__ import annotations

import os

# Before TensorFlow is imported: its start-up lines would drown pytest's own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Two processes run the tests: the first must not take all of a GPU's memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import pytest
import tensorflow as tf
from hypothesis import settings

import bcgan_tf  # noqa: F401  (pins the Keras backend before any test imports keras)
from bcgan_tf import distribute

pytest.register_assert_rewrite("helpers")
# The same few examples every time, and no file of those that failed.
settings.register_profile("tests", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("tests")
pytest_plugins = ["helpers.small_networks"]

# Before TensorFlow touches a device: afterwards the configuration is fixed.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.MirroredStrategy:
    """The one MirroredStrategy of this process, over two logical CPU devices.

    The package's own, which it hands to whoever asks for two devices: several MirroredStrategy
    objects in one process poison each other's collectives.
    """
    return distribute.strategy(2)


@pytest.fixture(scope="session")
def mnist():
    """The real MNIST as a `Dataset`; skipped where no prepared copy is found. Never downloads."""
    from bcgan_tf.data import load
    from bcgan_tf.data.tfds_source import prepared_version

    if prepared_version("mnist") is None:
        pytest.skip("no prepared MNIST (set TFDS_DATA_DIR)")
    return load("mnist")
