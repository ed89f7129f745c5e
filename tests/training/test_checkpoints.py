"""Resume equals never having stopped; what is broken or alien is said, and ruins nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.models import ACGAN, BCGAN
from bcgan_tf.training.checkpoints import (
    BestWeights,
    EpochCheckpoint,
    Restored,
    StopOnNonFinite,
    has_checkpoint,
    restore,
    state_variables,
)
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.fit import fit

# Bit-equal only where TensorFlow's operations are: hence a process with op determinism.
EXACT = """
import keras, numpy as np, shutil, signal, sys, tensorflow as tf
from pathlib import Path
from bcgan_tf import interruption
from bcgan_tf.data import load_dataset
from bcgan_tf.models import BCGAN
from bcgan_tf.training.classifier_trainer import ClassifierTrainer
from bcgan_tf.training.checkpoints import state_variables
from bcgan_tf.training.fit import fit
from bcgan_tf.networks.acgan import acgan_discriminator, acgan_generator
from bcgan_tf.networks.classifiers import small_cnn

tf.config.experimental.enable_op_determinism()
digits = load_dataset("digits")
some = digits.train.take(96)

def gan():
    made = BCGAN(
        acgan_generator((8, 8, 1), 10, latent_dim=6, width=0.05),
        acgan_discriminator((8, 8, 1), 10, width=0.05, dropout=0.5),
        classifier=small_cnn((8, 8, 1), 10, seed=0), beta=1.0, delay_steps=3, warmup_steps=6,
        num_classes=10, seed=1)
    made.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(2e-3))
    return made

def trainer():
    # A user's classifier, with Keras' own dropout and its random state.
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(32, "relu", kernel_initializer=keras.initializers.HeNormal(1))(
        keras.layers.Flatten()(image))
    x = keras.layers.Dropout(0.5, seed=4)(keras.layers.BatchNormalization()(x))
    logits = keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(2))(x)
    def noisy(images, labels, seed):
        return (images + 0.1 * tf.random.stateless_normal(tf.shape(images), seed), labels,
                tf.ones(tf.shape(labels)))
    made = ClassifierTrainer(keras.Model(image, logits), seed=1, build_batch=noisy)
    made.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 12)))
    return made

class Signal(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (2, 1):
            signal.raise_signal(signal.SIGTERM)

def run(build, epochs, folder, resume=False, callbacks=()):
    keras.utils.set_random_seed(5)
    model = build()
    logs = fit(model, some, epochs=epochs, batch_size=32, seed=3, directory=folder, resume=resume,
               validation=digits.validation if build is trainer else None, callbacks=callbacks)
    return [np.array(v.numpy()) for v in state_variables(model)], logs

root = Path(sys.argv[1])
for build in (gan, trainer):
    whole, logs = run(build, 4, root / build.__name__ / "whole")
    parts = root / build.__name__ / "parts"
    try:
        with interruption.listening():
            run(build, 4, parts, callbacks=[Signal()])
        raise AssertionError("the signal was ignored")
    except interruption.Terminated:
        names = sorted(p.name for p in parts.iterdir())
        assert names == ["epoch-0002", "epoch-0002-step-000002"], names
        if build is trainer:  # as if it had been killed at once: the epoch is begun again
            shutil.rmtree(parts / names[1])
    again, again_logs = run(build, 4, parts, resume=True)
    assert logs == again_logs and [log["epoch"] for log in logs] == [0, 1, 2, 3], build
    assert len(whole) == len(again) > 10
    for i, (one, other) in enumerate(zip(whole, again)):
        np.testing.assert_array_equal(one, other, err_msg=f"{build.__name__} variable {i}")
    names = sorted(p.name for p in parts.iterdir())
    assert names == ["epoch-0003", "epoch-0004"], names
print("resumed runs are equal")
"""


def test_resume_is_exact(tmp_path):
    """Both optimizers, dropout, batch norm, spectral vectors, the moving average, the logs.

    After an epoch, and after SIGTERM within one.
    """
    result = subprocess.run(
        [sys.executable, "-c", "import bcgan_tf\n" + textwrap.dedent(EXACT), str(tmp_path)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "resumed runs are equal" in result.stdout


def values(model):
    return [np.array(v.numpy()) for v in state_variables(model)]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_state_holds_every_optimizer_and_every_counter(make_gan):
    gan = make_gan()
    held = {id(v) for v in state_variables(gan)}
    for network in (gan.generator, gan.discriminator, gan.classifier):
        assert {id(v) for v in network.weights} <= held
    for optimizer in gan.optimizers:
        assert {id(v) for v in optimizer.variables} <= held
    assert len(held) == len(state_variables(gan))


def checkpoint(model, directory, epoch, logs=None, **options):
    callback = EpochCheckpoint(directory, **options)
    callback.set_model(model)
    callback.on_epoch_end(epoch, logs)
    return callback


def test_the_newest_of_two_checkpoints_is_restored(make_gan, tmp_path):
    gan = make_gan()
    assert restore(gan, tmp_path / "missing")[:2] == (0, [])
    assert not has_checkpoint(tmp_path)
    restored = Restored()
    for epoch in range(12):
        gan.generator.layers[-2].bias.assign(np.full(64, epoch, np.float32))
        saved = checkpoint(gan, tmp_path, epoch, {"loss": epoch}, restored=restored)
        restored = Restored(epoch + 1, saved.history)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0011", "epoch-0012"]
    assert has_checkpoint(tmp_path)
    fresh = make_gan()
    done, logs, steps, _ = restore(fresh, tmp_path)
    assert done == 12 and steps == 0
    assert logs == [{"epoch": e, "loss": float(e)} for e in range(12)]
    np.testing.assert_array_equal(fresh.generator.layers[-2].bias, np.full(64, 11, np.float32))
    assert_equal(values(gan), values(fresh))


def test_an_alien_checkpoint_changes_nothing(make_gan, networks, tmp_path):
    checkpoint(make_gan(), tmp_path, 0)
    trainer = ClassifierTrainer(networks["classifier"]())
    trainer.compile()
    for other in (make_gan(ACGAN), make_gan(optimizer=keras.optimizers.SGD), trainer):
        before = values(other)
        with pytest.raises(UserError, match="was made with other settings") as caught:
            restore(other, tmp_path)
        assert "\n" not in str(caught.value)
        assert_equal(before, values(other))


@pytest.mark.parametrize("moment", ["arrays", "history", "rename"])
def test_a_kill_in_mid_checkpoint_leaves_the_earlier_one(make_gan, tmp_path, monkeypatch, moment):
    gan = make_gan()
    checkpoint(gan, tmp_path, 0, {"loss": 1.0})
    first = values(gan)
    gan.generator.layers[-2].bias.assign(np.ones(64, np.float32))

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "arrays":
            save = np.savez

            def torn(path, **arrays):
                save(path, **dict(list(arrays.items())[:3]))
                killed()

            patch.setattr(np, "savez", torn)
        elif moment == "history":
            patch.setattr(json, "dumps", killed)
        else:
            patch.setattr("pathlib.Path.replace", killed)
        checkpoint(gan, tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001"]
    fresh = make_gan()
    assert restore(fresh, tmp_path)[:2] == (1, [{"epoch": 0, "loss": 1.0}])
    assert_equal(first, values(fresh))
    checkpoint(gan, tmp_path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0001", "epoch-0002"]


def test_a_run_without_resume_does_not_mix_with_an_earlier_one(make_gan, some, tmp_path):
    options = {"batch_size": 32, "seed": 0, "directory": tmp_path}
    checkpoint(make_gan(), tmp_path, 6)
    with pytest.raises(UserError, match="holds checkpoints; resume them"):
        fit(make_gan(), some, epochs=1, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0007"]


def test_a_finished_training_is_not_repeated(make_gan, some, tmp_path):
    options = {"batch_size": 32, "seed": 0, "directory": tmp_path}
    logs = fit(make_gan(), some, epochs=1, **options)
    fresh = make_gan()
    assert fit(fresh, some, epochs=1, resume=True, **options) == logs
    assert int(fresh.discriminator_optimizer.iterations) == 2


def test_non_finite_losses_stop_with_the_last_good_checkpoint(make_gan, some, tmp_path):
    options = {"batch_size": 32, "seed": 0, "directory": tmp_path}
    fit(make_gan(), some, epochs=2, **options)
    gan = make_gan()
    restored = tmp_path / "epoch-0002"

    class Explode(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.generator_optimizer.learning_rate = np.inf

    with pytest.raises(UserError, match="non-finite in epoch 3") as caught:
        fit(gan, some, epochs=5, resume=True, callbacks=[Explode()], **options)
    assert f"the last good checkpoint is {restored}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0001", "epoch-0002"]
    done, logs, _, _ = restore(make_gan(), tmp_path)
    assert done == len(logs) == 2


def test_weights_ruined_by_the_last_step_are_no_checkpoint(make_gan, tmp_path):
    """The logs of the epoch are still finite then."""
    gan = make_gan()
    checkpoint(gan, tmp_path, 0, {"loss": 1.0})
    gan.generator.layers[-2].bias.assign(np.full(64, np.nan, np.float32))
    with pytest.raises(UserError, match=r"non-finite in epoch 2 \(weights\)") as caught:
        checkpoint(gan, tmp_path, 1, {"loss": 1.0})
    assert str(tmp_path / "epoch-0001") in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_losses_are_looked_at_within_an_epoch(tmp_path, value):
    guard = StopOnNonFinite(tmp_path, every=3)
    guard.on_epoch_begin(4)
    for batch in range(5):
        if batch == 2:
            continue
        guard.on_train_batch_end(batch, {"loss": value})  # not its turn
    with pytest.raises(UserError, match=r"epoch 5 \(loss\); no checkpoint was made"):
        guard.on_train_batch_end(5, {"loss": value, "accuracy": 1.0})
    guard.on_epoch_end(4, {"loss": 1.0})


def test_a_training_may_move_between_one_device_and_two(make_gan, some, two_replicas, tmp_path):
    """Saved on two, resumed on one, resumed on two: as if one device had done it all."""
    options = {"batch_size": 16, "seed": 0}
    whole = make_gan(dropout=0)
    logs = fit(whole, some, epochs=3, **options)
    for epochs, chosen in ((1, two_replicas), (2, None), (3, two_replicas)):
        gan = make_gan(BCGAN, chosen, dropout=0)
        again = fit(gan, some, epochs=epochs, directory=tmp_path, resume=epochs > 1, **options)
    for one, other in zip(values(whole), values(gan), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    for log, other in zip(logs, again, strict=True):
        assert log == pytest.approx(other, abs=1e-4)


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(len(content)),
    "flipped": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
    "gone": None,
}


def damage(file, kind):
    content = file.read_bytes()
    file.unlink()
    if kind != "gone":
        file.write_bytes(DAMAGE[kind](content))


@pytest.mark.parametrize("name", ["state.npz", "history.json", "sha256.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_of_damaged_checkpoints_the_one_before_is_taken(make_gan, tmp_path, capsys, name, kind):
    gan = make_gan()
    checkpoint(gan, tmp_path, 0, {"loss": 1.0})
    first = values(gan)
    gan.generator.layers[-2].bias.assign(np.ones(64, np.float32))
    restored = Restored(1, [{"epoch": 0, "loss": 1.0}])
    checkpoint(gan, tmp_path, 1, {"loss": 2.0}, restored=restored)
    damage(tmp_path / "epoch-0002" / name, kind)
    fresh = make_gan()
    assert restore(fresh, tmp_path)[:2] == (1, [{"epoch": 0, "loss": 1.0}])
    assert_equal(first, values(fresh))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"the checkpoint {tmp_path / 'epoch-0002'} is")
    assert said.endswith("; epoch-0001 is taken\n")
    checkpoint(gan, tmp_path, 1, {"loss": 2.0}, restored=restored)  # trained again: whole again
    assert restore(fresh, tmp_path).epochs == 2

    damage(tmp_path / "epoch-0001" / "state.npz", "flipped")
    damage(tmp_path / "epoch-0002" / "state.npz", "cut")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged; remove that folder"):
        restore(fresh, tmp_path)


def test_the_best_weights_come_back_with_their_checkpoint(make_gan, tmp_path):
    class Judged(BestWeights):
        def on_epoch_end(self, epoch, logs=None):
            self.best, self.epoch, self._weights = logs["a"], epoch + 1, [np.full(2, epoch)]

    best = Judged("a")
    for epoch in (0, 1):
        best.on_epoch_end(epoch, {"a": float(epoch)})
        checkpoint(make_gan(), tmp_path, epoch, best=best)
    damage(tmp_path / "epoch-0002" / "best.npz", "flipped")
    again = BestWeights("a")
    assert restore(make_gan(), tmp_path, again).epochs == 1
    assert (again.best, again.epoch) == (0.0, 1)
    np.testing.assert_array_equal(again._weights[0], [0, 0])


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(make_gan, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        assert not (tmp_path / "epoch-0001").exists() or path == str(tmp_path)
        synced.append(path.removeprefix(str(tmp_path)).removeprefix("/.partial-"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint(make_gan(), tmp_path, 0, {"loss": 1.0})
    files = {f"epoch-0001/{name}" for name in ("state.npz", "history.json", "sha256.json")}
    assert {*files, "epoch-0001"} <= set(synced) and synced[-1] == ""
