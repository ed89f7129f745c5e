"""A suite on survivors, in chunks, killed and resumed, in shards and merged."""

from __future__ import annotations

import dataclasses
import itertools
import os
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FAB, FGSM, PGD, Attack
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive, runner
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.lazy_images import LazyImages
from helpers.linear_task import EPS, IMAGES, LABELS, distances, linear
from helpers.suites import evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws(Attack):
    """Breaks an example where its own draw says so: results follow from seed and index alone."""

    name = "draws"
    uses_gradients = False
    share: float = 0.3

    def run(self, logits_fn, images, labels, indices, round_index):
        def hit(indices):
            draws = [np.random.default_rng([self.seed, int(i)]).random() for i in indices]
            return np.array(draws) < self.share

        hits = tf.ensure_shape(tf.numpy_function(hit, [indices], tf.bool), [None])
        return tf.where(hits[:, None, None, None], 1.0 - images, images)


def _same(one, other):
    assert one.n == other.n and len(one.results) == len(other.results)
    for a, b in zip(one.results, other.results, strict=True):
        for name in ("clean_correct", "attacked", "success", "linf", "l2"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        np.testing.assert_array_equal(a.adversarials[a.success], b.adversarials[b.success])


FAST = ["CR", "Square (short)", "CR (near)", "APGD-T (near)", "Square (near)"]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(linear, (IMAGES, LABELS), attacks="standard", eps=EPS)


def test_the_standard_suite_finds_what_a_linear_model_allows(evaluation):
    distance = distances()
    sure = np.abs(distance - EPS) > 1e-3
    np.testing.assert_array_equal(evaluation.worst_case[sure], (distance > EPS)[sure])
    assert evaluation.suite == "standard" and evaluation.eot_samples == 1
    assert (evaluation.worst_case <= evaluation.clean_correct).all()


def test_the_fast_suite_finds_what_a_linear_model_allows():
    found = evaluate(linear, (IMAGES, LABELS), attacks="fast", eps=EPS)
    distance = distances()
    sure = np.abs(distance - EPS) > 1e-3
    np.testing.assert_array_equal(found.worst_case[sure], (distance > EPS)[sure])
    assert [result.attack for result in found.results] == FAST
    # What is far from the boundary after the first attack, no later one gets.
    relaxed, *others = found.results
    left, nearness = relaxed.robust, relaxed.nearness
    for result, near in zip(others, (np.inf, 0.1, 0.05, 0.25), strict=True):
        np.testing.assert_array_equal(result.attacked, left & (nearness > -near))
        left, nearness = left & ~result.success, np.maximum(nearness, result.nearness)
    assert all(result.attacked.sum() < relaxed.robust.sum() / 2 for result in others[1:3])
    assert others[3].attacked.sum() < relaxed.robust.sum()
    assert found.suite == "fast" and found.fallback is None
    assert "fallback" not in found.to_dict()


def test_each_attack_of_a_suite_sees_what_those_before_left(evaluation):
    left = evaluation.clean_correct
    for result in evaluation.results:
        np.testing.assert_array_equal(result.attacked, left)
        left = left & ~result.success
    told = evaluation.to_dict()["attacks"]
    assert [attack["attacked"] for attack in told][1:] == [
        round(attack["left"] * evaluation.n) for attack in told
    ][:-1]
    assert told[-1]["left"] == evaluation.robust_accuracy


def test_attacks_given_one_by_one_each_see_everything():
    evaluation = evaluate(linear, (IMAGES, LABELS), [FGSM(2 * EPS), PGD(2 * EPS, steps=5)])
    for result in evaluation.results:
        np.testing.assert_array_equal(result.attacked, evaluation.clean_correct)


def test_what_lies_beyond_eps_does_not_count():
    evaluation = evaluate(linear, (IMAGES, LABELS), [FGSM(EPS), FGSM(3 * EPS)])
    small, large = evaluation.results
    assert large.success.sum() > small.success.sum()
    np.testing.assert_array_equal(evaluation.survivors(EPS), small.robust)
    assert evaluation.survivors(3 * EPS).sum() == large.robust.sum()
    minimal = evaluate(linear, (IMAGES, LABELS), [FAB(None), FGSM(EPS)], eps=EPS)
    assert minimal.results[0].success.sum() == minimal.clean_correct.sum()  # however far
    sure = np.abs(distances() - EPS) > 1e-3
    np.testing.assert_array_equal(minimal.worst_case[sure], (distances() > EPS)[sure])


def test_chunks_change_nothing(monkeypatch):
    attacks = [Draws(seed=3), PGD(EPS, steps=5)]
    whole = evaluate(linear, (IMAGES, LABELS), attacks)
    monkeypatch.setattr(runner, "_CHUNK", 7)
    _same(whole, evaluate(linear, (IMAGES, LABELS), attacks))


def test_shards_merged_are_the_whole():
    options = {"attacks": [Draws(), PGD(EPS, steps=5)], "eps": EPS}
    whole = evaluate(linear, (IMAGES, LABELS), **options)
    shards = [evaluate(linear, (IMAGES, LABELS), **options, shard=(i, 3)) for i in (2, 3, 1)]
    assert sorted(np.concatenate([shard.indices for shard in shards])) == list(range(60))
    for order in itertools.permutations(shards):
        merged = archive.merge(list(order))
        _same(merged, whole)
        np.testing.assert_array_equal(merged.worst_case, whole.worst_case)
        np.testing.assert_array_equal(merged.labels, LABELS)


def test_only_the_shards_of_one_evaluation_are_merged():
    def shard(number, **options):
        options = {"eps": EPS, **options}
        return evaluate(linear, (IMAGES, LABELS), [Draws()], shard=(number, 2), **options)

    one, two = shard(1), shard(2)
    with pytest.raises(UserError, match="overlap"):
        archive.merge([one, one])
    with pytest.raises(UserError, match="30 of 60 images; some are missing"):
        archive.merge([one])
    with pytest.raises(UserError, match="differ in eps"):
        archive.merge([one, shard(2, eps=0.5)])
    other = evaluate(
        linear, (IMAGES[::-1].copy(), LABELS[::-1].copy()), [Draws()], shard=(2, 2), eps=EPS
    )
    with pytest.raises(UserError, match="differ in identity"):
        archive.merge([one, other])
    with pytest.raises(UserError, match="nothing to merge"):
        archive.merge([])
    assert archive.merge([two, one]).n == 60


class _Killed(Exception):
    pass


def test_a_killed_evaluation_resumes_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHUNK", 20)
    attacks = [Draws(seed=1), PGD(EPS, steps=4)]
    whole = evaluate(linear, (IMAGES, LABELS), attacks)

    def kill(done, total, text):
        if done > 0.6 * total:
            raise _Killed

    with pytest.raises(_Killed):
        evaluate(linear, (IMAGES, LABELS), attacks, state=tmp_path, progress=kill)
    pieces = sorted(file.name for file in tmp_path.glob("*.npz"))
    assert pieces == ["0000-0.npz", "0000-1.npz", "0001-0.npz"]
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in pieces}
    _same(whole, evaluate(linear, (IMAGES, LABELS), attacks, state=tmp_path))
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in pieces} == written
    # And a finished one is read, not repeated.
    seen = []
    _same(
        whole,
        evaluate(
            linear,
            (IMAGES, LABELS),
            attacks,
            state=tmp_path,
            progress=lambda *done: seen.append(done),
        ),
    )
    assert not seen


def test_progress_counts_the_images_that_each_attack_is_tried_on(monkeypatch):
    """Over chunks: of those near the boundary too, of which most chunks have some."""
    monkeypatch.setattr(runner, "_CHUNK", 20)
    told: dict[str, str] = {}

    def note(done: int, to_do: int, text: str) -> None:
        name, _, images = text.partition(": on ")
        told[name] = images

    found = evaluate(linear, (IMAGES, LABELS), "fast", eps=EPS, progress=note)
    assert len(IMAGES) > 20
    # The first gets those too that are wrong without it.
    for result in found.results[1:]:
        tried = f"{int(result.attacked.sum())} of {len(IMAGES)} images"
        assert told[result.attack] == tried or not result.attacked[-20:].any()


def _other_model(images: tf.Tensor) -> tf.Tensor:
    return 1.01 * linear(images)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attacks": [Draws(seed=2)]}, "attacks"),
        ({"eps": 0.2}, "eps"),
        ({"norm": "l2"}, "norm"),
        ({"shard": (1, 2)}, "shard"),
        ({"model": _other_model}, "model"),
        ({"data": (IMAGES[:50], LABELS[:50])}, "data"),
    ],
)
def test_a_state_of_other_settings_is_refused(tmp_path, changes, named):
    usual = {"model": linear, "data": (IMAGES, LABELS), "attacks": [Draws()], "eps": 0.1}
    evaluate(**usual, state=tmp_path)
    with pytest.raises(UserError, match=rf"other settings:.*{named} \("):
        evaluate(**{**usual, **changes}, state=tmp_path)
    evaluate(**{**usual, "batch_size": 3}, state=tmp_path)  # which changes no result


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "garbage"])
def test_a_damaged_piece_is_said_and_done_again(tmp_path, capsys, damage):
    attacks = [Draws(seed=1), Draws(seed=2)]
    whole = evaluate(linear, (IMAGES, LABELS), attacks, state=tmp_path)
    piece = tmp_path / "0000-1.npz"
    content = piece.read_bytes()
    middle = len(content) // 2
    piece.write_bytes(
        {
            "cut": content[:100],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "garbage": bytes(len(content)),
        }[damage]
    )
    _same(whole, evaluate(linear, (IMAGES, LABELS), attacks, state=tmp_path))
    assert capsys.readouterr().err == (
        f"{piece} is damaged; that part of the evaluation is done again\n"
    )
    _same(whole, evaluate(linear, (IMAGES, LABELS), attacks, state=tmp_path))
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_said_and_what_was_done_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHUNK", 20)
    real, written = os.fsync, []

    def full_after_two(handle):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".npz"):
            written.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", full_after_two)
    with pytest.raises(UserError, match=r"No space left on device.*make room on the disk of"):
        evaluate(linear, (IMAGES, LABELS), [Draws()], state=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2 and not list(tmp_path.glob(".partial*"))
    monkeypatch.undo()
    monkeypatch.setattr(runner, "_CHUNK", 20)
    _same(
        evaluate(linear, (IMAGES, LABELS), [Draws()]),
        evaluate(linear, (IMAGES, LABELS), [Draws()], state=tmp_path),
    )


def test_what_is_kept_in_a_folder_is_not_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHUNK", 20)
    pixels = np.round(255 * IMAGES).astype(np.uint8)
    attacks = [Draws(seed=1), PGD(EPS, steps=4)]
    held = evaluate(linear, (pixels, LABELS), attacks, eps=EPS)
    kept = evaluate(linear, (pixels, LABELS), attacks, eps=EPS, state=tmp_path / "state")
    _same(held, kept)
    for found in (*(result.adversarials for result in kept.results), kept.adversarials):
        assert isinstance(found, LazyImages)
    broken = held.clean_correct & ~held.worst_case
    assert 0 < broken.sum() < len(broken)
    expected = np.where(broken[:, None, None, None], held.adversarials, kept.adversarials)
    np.testing.assert_array_equal(kept.adversarials, expected)
    # What broke nothing is not kept.
    np.testing.assert_array_equal(kept.adversarials[~broken], pixels[~broken] * np.float32(1 / 255))
    task = EvaluationTask(linear, pixels, LABELS)
    assert isinstance(task.images, LazyImages) and isinstance(task.view([1, 5]).images, LazyImages)
    assert isinstance(task.take([1, 5]).images, np.ndarray)
    np.testing.assert_array_equal(task.images, pixels * np.float32(1 / 255))
    # Shards that were read from their files are merged without reading the images.
    parts = [
        archive.load(
            archive.save(
                evaluate(linear, (pixels, LABELS), attacks, eps=EPS, shard=(i, 2)),
                tmp_path / f"{i}.npz",
            )
        )
        for i in (1, 2)
    ]
    joined = archive.merge(parts)
    assert isinstance(joined.adversarials, LazyImages)
    np.testing.assert_array_equal(joined.adversarials[broken], held.adversarials[broken])
    whole = archive.save(joined, tmp_path / "whole.npz")
    with np.load(whole) as arrays:
        np.testing.assert_array_equal(arrays["adversarials"], held.adversarials[broken])
    with zipfile.ZipFile(whole) as entries:
        told = {entry.filename: entry.compress_type for entry in entries.infolist()}
    assert told["adversarials.npy"] == zipfile.ZIP_STORED and told["labels.npy"]


def test_chunks_of_large_images_are_smaller():
    def chunk(shape, batch_size=4):
        def black(images):
            return tf.reduce_sum(images, [1, 2, 3])[:, None] * [[0.0, 1.0]]

        images = np.zeros((2, *shape), np.uint8)
        return runner._chunk(EvaluationTask(black, images, [0, 0], batch_size=batch_size), None)

    assert chunk((28, 28, 1)) == 1000
    assert chunk((224, 224, 3)) == 111  # of 64 MiB as float32
    assert chunk((224, 224, 3), batch_size=250) == 250


def test_an_evaluation_is_saved_and_read(evaluation, tmp_path):
    path = archive.save(evaluation, tmp_path / "evaluation.npz")
    found = archive.load(path)
    np.testing.assert_array_equal(found.worst_case, evaluation.worst_case)
    broken = evaluation.clean_correct & ~evaluation.worst_case
    np.testing.assert_array_equal(found.adversarials[broken], evaluation.adversarials[broken])
    told, again = evaluation.to_dict(), found.to_dict()
    assert again["robust_accuracy"] == told["robust_accuracy"] and again["eps"] == told["eps"]
    assert [result.uses_gradients for result in found.results] == [True, True, True, False]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged or no evaluation"):
        archive.load(path)
    with pytest.raises(UserError, match="missing"):
        archive.load(tmp_path / "none.npz")


def test_a_model_without_a_gradient_is_left_to_the_attacks_that_need_none():
    def rounded(images):
        return tf.round(4.0 * linear(images))

    evaluation = evaluate(rounded, (IMAGES, LABELS), attacks="standard", eps=2 * EPS)
    by_name = {result.attack: result for result in evaluation.results}
    # Their random starts find something; steps along a gradient of zeros add nothing.
    assert by_name["APGD-CE"].success_rate < 0.3 and by_name["FAB-T"].success.sum() == 0
    assert by_name["Square"].success_rate > 0.5


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda images: tf.round(4.0 * linear(images)), "the model has no gradient"),
        (
            lambda images: tf.round(4.0 * linear(images)) + 0.0 * linear(images),
            "no loss has a usable gradient for 100 % of the images",
        ),
        (
            lambda images: linear(images) + tf.random.normal([1, 4], stddev=1e-3),
            "the model draws random numbers",
        ),
    ],
    ids=["rounded", "flat", "noisy"],
)
def test_the_fast_suite_goes_on_with_standard_where_gradients_mislead(model, reason, tmp_path):
    some = (IMAGES[:8], LABELS[:8])
    found = evaluate(model, some, attacks="fast", eps=2 * EPS, state=tmp_path / "state")
    names = ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert [result.attack for result in found.results] == FAST + names
    assert found.suite == "fast" and reason in found.to_dict()["fallback"]
    left = found.clean_correct
    for result in found.results:
        assert not (result.attacked & ~left).any()
        if result.attack in ("CR", *names):
            np.testing.assert_array_equal(result.attacked, left)
        left = left & ~found.broken_by(result)
    np.testing.assert_array_equal(found.worst_case, left)
    again = evaluate(model, some, attacks="fast", eps=2 * EPS, state=tmp_path / "state")
    assert again.seconds == found.seconds  # nothing was attacked again
    loaded = archive.load(archive.save(found, tmp_path / "evaluation.npz"))
    assert loaded.fallback == found.fallback
    assert [one.passes for one in loaded.results] == [one.passes for one in found.results]


def test_large_logits_are_no_reason():
    """The cross entropy underflows; the margin, which constraint relaxation follows, does not."""
    found = evaluate(lambda x: 1e6 * linear(x), (IMAGES, LABELS), attacks="fast", eps=EPS)
    distance = distances()
    sure = np.abs(distance - EPS) > 1e-3
    np.testing.assert_array_equal(found.results[0].robust[sure], (distance > EPS)[sure])
    assert found.fallback is None


def test_what_only_a_random_search_finds_is_a_reason():
    """Gradients of the wrong sign are healthy to look at, and lead away."""
    wrong_way = tf.custom_gradient(lambda images: (tf.identity(images), lambda upstream: -upstream))
    found = evaluate(lambda x: linear(wrong_way(x)), (IMAGES, LABELS), attacks="fast", eps=EPS)
    relaxed, square, *further = found.results
    broken = int(square.success.sum())
    assert broken > 10 and relaxed.success.sum() < broken
    because = f"Square (short) broke {broken} that attacks along the gradient had left"
    assert found.fallback == f"went on with standard in float32, because {because}"
    names = [result.attack for result in further]
    assert names == [*FAST[2:], "APGD-CE", "APGD-T", "FAB-T", "Square"]


def test_the_fast_suite_has_no_shards():
    with pytest.raises(UserError, match="the suite fast decides by all images"):
        evaluate(linear, (IMAGES, LABELS), attacks="fast", eps=EPS, shard=(1, 2))


def test_the_fast_suite_does_not_attack_what_is_proved():
    images = keras.Input(IMAGES.shape[1:])
    dense = keras.layers.Dense(4)
    model = keras.Model(images, dense(keras.layers.Flatten()(images)))
    kernel = linear(np.eye(np.prod(IMAGES.shape[1:]), dtype="f4").reshape(-1, *IMAGES.shape[1:]))
    origin = linear(np.zeros((1, *IMAGES.shape[1:]), "f4")).numpy()[0]
    dense.set_weights([kernel.numpy() - origin, origin])
    found = evaluate(model, (IMAGES, LABELS), attacks="fast", eps=EPS / 4)
    assert found.certified is not None and found.certified.sum() > 10
    assert not (found.results[0].attacked & found.certified).any()
    assert found.worst_case[found.certified].all()
    assert evaluate(model, (IMAGES, LABELS), attacks="fast", eps=EPS, norm="l2").certified is None


def test_a_stochastic_model_is_averaged():
    def noisy(images):
        return linear(images) + tf.random.normal([1, 4], stddev=1e-3)

    evaluation = evaluate(noisy, (IMAGES[:8], LABELS[:8]), [FGSM(0.1)])
    assert evaluation.eot_samples == 20
    assert evaluate(noisy, (IMAGES[:8], LABELS[:8]), [FGSM(0.1)], eot_samples=2).eot_samples == 2
    assert evaluate(linear, (IMAGES[:8], LABELS[:8]), attacks="rand", eps=0.1).eot_samples == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a suite needs eps"),
        ({"attacks": "standard"}, "a suite needs eps"),
        ({"attacks": "best", "eps": 0.1}, "no suite 'best'"),
        ({"attacks": "standard", "eps": 0.1, "shard": (3, 2)}, "shard 3/2"),
        ({"attacks": "standard", "eps": 0.1, "shard": (1, 61)}, "60 images cannot be cut"),
        ({"attacks": "standard", "eps": 2}, "eps is 2"),
        ({"attacks": "standard", "eps": float("nan")}, "eps is nan"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(linear, (IMAGES, LABELS), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_the_ends_of_eps(eps):
    evaluation = evaluate(linear, (IMAGES, LABELS), attacks="standard", eps=eps)
    assert evaluation.robust_accuracy == (evaluation.clean_accuracy if eps == 0 else 0)


def test_one_class_and_labels_that_are_none():
    images, labels = IMAGES[5:], LABELS[5:]
    one = labels == labels[0]
    evaluation = evaluate(linear, (images[one], labels[one]), [FGSM(EPS)])
    assert evaluation.clean_accuracy == 1
    with pytest.raises(UserError, match="label 9 is no class"):
        evaluate(linear, (images, np.where(one, 9, labels)), attacks="standard", eps=EPS)


def test_attacks_on_another_threat_are_named_and_refused():
    attacks = [FGSM(0.1), PGD(0.1, norm="l2"), PGD(0.3), FAB(None, norm="l2"), Draws()]
    with pytest.raises(UserError) as caught:
        evaluate(linear, (IMAGES, LABELS), attacks, eps=0.1)
    assert str(caught.value).startswith(
        "PGD-40-L2 (l2 eps 0.1), PGD-40 (linf eps 0.3), FAB-T-L2 (l2 without eps): not on linf "
    )
    same = evaluate(linear, (IMAGES, LABELS), [FGSM(0.1), FAB(None), Draws()], eps=np.float32(0.1))
    assert len(same.results) == 3
