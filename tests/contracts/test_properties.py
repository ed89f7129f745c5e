"""What holds for all inputs: projections, bounds, batches, shards, settings, archives."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bcgan_tf.attacks import PGD, AttackResult
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.box_projection import box_projection
from bcgan_tf.certification.interval_bounds import output_box
from bcgan_tf.certification.intervals import IntervalBound, RoundedIntervalBound
from bcgan_tf.evaluation import archive
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.settings.fields import Checked, OneOf, Range, Setting, setting, settings_of

NORMS = st.sampled_from(["linf", "l2"])
ORDERS = {"linf": np.inf, "l2": 2}
PIXELS = st.floats(0, 1, width=32)
SEEDS = st.integers(0, 2**32 - 1)


def _length(change: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(change.reshape(len(change), -1).astype(np.float64), ORDERS[norm], axis=1)


# Traced once for each norm: step by step each of its bisections would be run by itself.
_projected = tf.function(box_projection)


@given(arrays(np.float32, (4, 6), elements=PIXELS), SEEDS, NORMS)
def test_a_projection_bridges_the_gap_within_the_box_and_no_further_than_others(points, seed, norm):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(4, 6)).astype(np.float32)
    other = rng.uniform(size=(4, 6)) - points
    gaps = (normals * other).sum(1).astype(np.float32)
    change = _projected(
        tf.constant(points), tf.constant(normals), tf.constant(gaps), norm=norm
    ).numpy()
    assert (points + change >= -1e-6).all() and (points + change <= 1 + 1e-6).all()
    np.testing.assert_allclose((normals * change).sum(1), gaps, atol=1e-5)
    # ``other`` bridges the same gap within the box.
    assert (_length(change, norm) <= _length(other, norm) + 1e-5).all()


@given(
    arrays(np.float32, (3, 2, 2, 1), elements=PIXELS),
    arrays(np.float32, (3, 2, 2, 1), elements=st.floats(-3, 3, width=32)),
    st.floats(0, 1, width=32),
    NORMS,
)
def test_what_is_projected_lies_in_the_ball_and_the_box_and_stays(images, candidates, eps, norm):
    attack = PGD(eps, norm=norm)
    for found in (
        attack.clip_to_ball(tf.constant(images), tf.constant(candidates)).numpy(),
        attack.project(images, candidates),
    ):
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
        assert (_length(found - images, norm) <= eps + 1e-6).all()
        np.testing.assert_allclose(attack.project(images, found), found, atol=1e-6)


@functools.cache
def _network() -> keras.Model:
    image = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu", kernel_initializer=_normal(1))(image)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Dense(5, activation="tanh", kernel_initializer=_normal(2))(
        keras.layers.Flatten()(x)
    )
    return keras.Model(image, keras.layers.Dense(3, kernel_initializer=_normal(3))(x))


def _normal(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=1.0, seed=seed)


@given(
    arrays(np.float32, (1, 4, 4, 1), elements=PIXELS),
    arrays(np.float32, (1, 4, 4, 1), elements=st.floats(0, 0.5, width=32)),
    SEEDS,
)
def test_bounds_contain_samples_and_wider_boxes_have_wider_bounds(centre, radius, seed):
    lower, upper = centre - radius, centre + radius
    points = np.random.default_rng(seed).uniform(lower, upper, (50, 4, 4, 1)).astype(np.float32)
    points[:2] = lower[0], upper[0]
    logits = _network()(np.clip(points, lower, upper), training=False).numpy()
    wider = output_box(
        _network(), RoundedIntervalBound(tf.constant(lower - 0.1), tf.constant(upper + 0.1))
    )
    for kind, slack in ((RoundedIntervalBound, 0.0), (IntervalBound, 1e-4)):
        box = output_box(_network(), kind(tf.constant(lower), tf.constant(upper)))
        low, high = box.lower.numpy(), box.upper.numpy()
        assert (logits >= low - slack).all() and (logits <= high + slack).all()
        assert (wider.lower.numpy() <= low).all() and (wider.upper.numpy() >= high).all()


@given(st.integers(1, 300), st.integers(1, 140))
def test_batched_is_unbatched(count, batch_size):
    """Every row once and in order, whatever the batches."""
    seen: list[int] = []
    rows = np.arange(count, dtype=np.float32)
    found = Batched(lambda x: 2 * x, batch_size)(rows, report=seen.append)
    np.testing.assert_array_equal(found, 2 * rows)
    assert seen[-1] == count and seen == sorted(set(seen))


def _evaluation(rng: np.random.Generator, indices: np.ndarray, total: int) -> Evaluation:
    """Of two attacks, the second of which saw what the first left."""
    count = len(indices)
    labels = rng.integers(0, 3, count)
    clean = rng.uniform(size=count) < 0.8
    results, left = [], clean
    for name in ("first", "second"):
        success = left & (rng.uniform(size=count) < 0.5)
        change = np.where(success, 0.1, 0.0)
        images = rng.uniform(size=(count, 2, 2, 1)).astype(np.float32)
        results.append(
            AttackResult(
                attack=name,
                config={"eps": 0.1},
                adversarials=images,
                clean_correct=clean,
                attacked=left,
                success=success,
                linf=change,
                l2=change,
            )
        )
        left = left & ~success
    return Evaluation(tuple(results), labels, indices, 0.1, total=total)


def _assert_same(one: Evaluation, other: Evaluation) -> None:
    for name in ("labels", "indices", "worst_case", "clean_correct"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.n, one.eps, one.norm, one.robust_accuracy) == (
        other.n,
        other.eps,
        other.norm,
        other.robust_accuracy,
    )
    broken = one.clean_correct & ~one.worst_case
    np.testing.assert_array_equal(one.adversarials[broken], other.adversarials[broken])
    for mine, theirs in zip(one.results, other.results, strict=True):
        assert mine.attack == theirs.attack and mine.config == theirs.config
        for name in ("clean_correct", "attacked", "success", "linf", "l2"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@given(SEEDS, st.integers(1, 12))
def test_an_archive_gives_back_what_was_saved(seed, count):
    evaluation = _evaluation(np.random.default_rng(seed), np.arange(count), count)
    with tempfile.TemporaryDirectory() as folder:
        _assert_same(archive.load(archive.save(evaluation, Path(folder) / "e.npz")), evaluation)


@given(SEEDS, st.permutations(range(4)))
def test_shards_merge_in_any_order(seed, order):
    rng = np.random.default_rng(seed)
    shards = [_evaluation(rng, np.arange(start, 14, 4), 14) for start in range(4)]
    merged = archive.merge([shards[place] for place in order])
    np.testing.assert_array_equal(merged.indices, np.arange(14))
    for start, shard in enumerate(shards):
        np.testing.assert_array_equal(merged.worst_case[start::4], shard.worst_case)
        np.testing.assert_array_equal(merged.labels[start::4], shard.labels)
    _assert_same(merged, archive.merge(shards))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings(Checked):
    whole: Annotated[int, Range(-(10**6), 10**6)] = setting(1, "A whole number.")
    share: Annotated[float, Range(-1e30, 1e30)] = setting(0.5, "A number.")
    flag: bool = setting(False, "A switch.")
    choice: Annotated[str, OneOf("none", "flip")] = setting("none", "A name.")
    maybe: Annotated[int, Range(0, 9)] | None = setting(None, "A number, or none.")
    many: tuple[Annotated[float, Range(0, 1)], ...] = setting((0.5,), "Numbers.")


@given(
    st.builds(
        _Settings,
        whole=st.integers(-(10**6), 10**6),
        share=st.floats(-1e30, 1e30),
        flag=st.booleans(),
        choice=st.sampled_from(["none", "flip"]),
        maybe=st.none() | st.integers(0, 9),
        many=st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple),
    )
)
def test_settings_parse_what_they_print(settings):
    known: dict[str, Setting] = settings_of(_Settings)
    printed = {name: known[name].text(getattr(settings, name)) for name in known}
    assert {name: known[name].parse(text) for name, text in printed.items()} == {
        name: getattr(settings, name) for name in known
    }
    assert _Settings.from_dict(settings.to_dict()) == settings
