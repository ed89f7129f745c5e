"""What all tests share: two logical CPU devices, one strategy over them, and real data."""

from __future__ import annotations

import os
from pathlib import Path

# Before TensorFlow is imported: its start-up lines would drown pytest's own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Two processes run the tests: the first must not take all of a GPU's memory, and threads of small
# networks, which are most of them, cost more than they save.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

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


# Rooms and files whose tests take half a minute and more: whole runs, several processes, many
# trainings. `make test-all` has them, and CI.
LONG = """
distribution/test_workers cli/test_schedulers workflows/test_users_models cli/test_run_end_to_end
reproduction/test_refinement cli/test_own_classifier evaluation/test_workers workflows/test_run
contracts/test_defenses cli/test_photographs faults defenses/test_boundary_adversarial
reproduction/test_toy test_readme reproduction/test_ablation defenses/test_defense_gan
defenses/test_frozen
"""
# And those that train, attack or start processes for more than some two seconds each: `make
# test-quick` leaves them out too.
SLOW = """
crosscheck diagnosis test_packaging attacks/test_answers attacks/test_apgd
attacks/test_apgd_algorithm attacks/test_fab attacks/test_fab_limits attacks/test_fab_restarts
attacks/test_known_answers attacks/test_logits attacks/test_preprocessing attacks/test_square
attacks/test_undefended certification/test_certification certification/test_skip_certified
cli/test_attack cli/test_commands cli/test_export cli/test_foreign_runs cli/test_merge
cli/test_reproduce cli/test_resume contracts/test_attacks data/test_sources
defenses/test_adversarial_training defenses/test_boundary_gan defenses/test_harden defenses/test_ibp
evaluation/test_fingerprints evaluation/test_known_by_answers evaluation/test_radii
evaluation/test_runner loading/test_model loading/test_usual_conventions models/test_gan
models/test_saving models/test_wgan_gp networks/test_classifiers perturbation/test_boundary_plane
perturbation/test_minimum_perturbation perturbation/test_radius_search reproduction/test_audit
reproduction/test_measures reproduction/test_pictures reproduction/test_tables serving/test_card
serving/test_committed_models serving/test_own_convention serving/test_requests
serving/test_signatures serving/test_versions training/test_adversarial
training/test_adversarial_trainer training/test_checkpoints training/test_expected_update
training/test_fused_normalization training/test_replicas workflows/test_boundary
workflows/test_evaluate workflows/test_measures workflows/test_resume workflows/test_unfit_input
"""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    marks = {"long": set(LONG.split()), "slow": {*LONG.split(), *SLOW.split()}}
    for item in items:
        place = item.path.relative_to(here).with_suffix("")
        for mark, places in marks.items():
            if {place.as_posix(), place.parts[0]} & places:
                item.add_marker(mark)


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
    from bcgan_tf.data import load_dataset
    from bcgan_tf.data.tfds_source import prepared_version

    if prepared_version("mnist") is None:
        pytest.skip("no prepared MNIST (set TFDS_DATA_DIR)")
    return load_dataset("mnist")
