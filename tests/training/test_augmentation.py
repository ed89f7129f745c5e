"""Changes of single images: exact pixels, limits, and replicas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.training.augmentation import (
    mirrored_crops,
    mirrored_images,
    shifted_images,
)

SEED = tf.constant([3, 4])


def images(rows: int, side: int = 28) -> np.ndarray:
    """No two pixels of an image are equal, and none is 0."""
    pixels = np.random.default_rng(0).permutation(side * side * 2).reshape(1, side, side, 2) + 1
    return np.repeat(pixels, rows, axis=0).astype(np.float32)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The same in NumPy, what comes in from outside being 0."""
    side = len(image)
    found = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            if 0 <= y - down < side and 0 <= x - right < side:
                found[y, x] = image[y - down, x - right]
    return found


def test_each_image_moves_by_an_offset_of_its_own_up_to_two_pixels():
    found = shifted_images(images(300), SEED).numpy()
    offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    expected = {offset: moved(images(1)[0], *offset) for offset in offsets}
    seen = [[o for o, e in expected.items() if np.array_equal(image, e)] for image in found]
    assert all(len(matches) == 1 for matches in seen)
    counts = {o: sum(matches == [o] for matches in seen) for o in offsets}
    assert min(counts.values()) >= 3 and max(counts.values()) <= 30  # 12 of each on average


def test_small_images_move_by_one_pixel_and_the_seed_decides():
    small = images(50, side=8)
    found = shifted_images(small, SEED).numpy()
    allowed = [moved(small[0], down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert all(any(np.array_equal(image, a) for a in allowed) for image in found)
    np.testing.assert_array_equal(found, shifted_images(small, SEED))
    assert (found != shifted_images(small, tf.constant([3, 5])).numpy()).any()


def test_crops_move_by_an_eighth_and_half_of_them_are_mirrored():
    whole = images(400, side=16)
    found = mirrored_crops(whole, SEED).numpy()
    offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    straight = [moved(whole[0], *offset) for offset in offsets]
    mirrored = [image[:, ::-1] for image in straight]
    of_each = [
        sum(any(np.array_equal(i, e) for e in kind) for i in found) for kind in (straight, mirrored)
    ]
    assert sum(of_each) == 400 and 160 < of_each[0] < 240


def test_half_of_the_images_are_mirrored_and_none_is_moved():
    whole = images(400, side=6)
    found = mirrored_images(whole, SEED).numpy()
    same, mirrored = (
        np.isclose(found, other).all(axis=(1, 2, 3)) for other in (whole, whole[:, :, ::-1])
    )
    assert (same ^ mirrored).all() and 160 < mirrored.sum() < 240


@pytest.mark.parametrize("change", [shifted_images, mirrored_crops, mirrored_images])
def test_two_replicas_change_the_batch_like_one(two_replicas, change):
    whole = images(6, side=8)

    @tf.function
    def on_replicas():
        def one():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.ensure_shape(tf.gather(whole, 3 * replica + tf.range(3)), [3, 8, 8, 2])
            return change(rows, SEED)

        return two_replicas.run(one)

    parts = two_replicas.experimental_local_results(on_replicas())
    np.testing.assert_array_equal(
        np.concatenate([part.numpy() for part in parts]), change(whole, SEED)
    )
