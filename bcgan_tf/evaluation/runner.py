"""``evaluate``: a suite of attacks on a classifier, in chunks, resumable, in shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import check_answers
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack, PreparedAttack, deciding_settings
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.expectation import SAMPLES, differing_answers, expectation
from bcgan_tf.attacks.preprocessing import (
    AdaptiveAPGD,
    may_hide_gradients,
    through_preprocessing,
)
from bcgan_tf.attacks.square import Square
from bcgan_tf.attacks.suites import suite as attacks_of
from bcgan_tf.certification.certified import proved
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.data.dataset import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.chunks import Chunks
from bcgan_tf.evaluation.fingerprints import identity_of
from bcgan_tf.evaluation.gradient_health import guard_gradient
from bcgan_tf.evaluation.pieces import Pieces
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.progress import Progress

_PROBES = 64
_SUITE = "standard"
# Suites whose answer is to be believed, not to be compared with the paper's.
_THOROUGH = ("standard", "plus")


def evaluate(
    model: Any,
    data: Split | Dataset | tf.data.Dataset | Sequence[Any],
    attacks: Sequence[Attack] | None = None,
    *,
    suite: str | None = None,
    eps: float | None = None,
    norm: str = "linf",
    samples: int | None = None,
    shard: tuple[int, int] = (1, 1),
    skip_certified: bool = False,
    state: str | Path | None = None,
    batch_size: int = 250,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Attacks a model, white-box, with the true labels; the worst case per image is what counts.

    A suite attacks with each of its attacks what those before it left. Attacks given one by one
    are each run on all images, so that their own accuracies can be compared.

    A model without a gradient, or with one that is NaN, is attacked all the same, with zeros in
    its place: the attacks that need no gradient then decide. A Keras model whose first layers cut
    off, round or otherwise preprocess its pixels is in the suites ``"standard"`` and ``"plus"``
    also attacked through them (:mod:`bcgan_tf.attacks.preprocessing`), before Square.

    Args:
        model: a Keras model (called with ``training=False``) or a callable; float32 images in
            [0, 1] to logits ``[B, K]``. A callable may have an attribute ``backward``
            (:func:`bcgan_tf.attacks.bpda.bpda`).
        data: (float32 images in [0, 1], labels), the labels as int classes ``[N]`` or ``[N, 1]``
            or one-hot ``[N, K]``; a split; a data set, of which the test split is taken; or a
            ``tf.data.Dataset`` of such (images, labels), in batches or not.
        attacks: at least one; None: those of ``suite``. Where ``eps`` is given, those that have a
            radius have that one, in ``norm``.
        suite: ``"standard"`` (the default), ``"plus"``, ``"rand"`` or ``"paper"``; see
            :func:`bcgan_tf.attacks.suites.suite`.
        eps: radius of the threat model, in [0, 1] pixel units. A suite needs it.
        norm: ``"linf"`` or ``"l2"``.
        samples: calls of the model to average. None: 20 for a model that answers differently to
            the same images, and for the suite ``"rand"``; else 1.
        shard: ``(i, n)``: every n-th image, from the i-th (1 ... n). The shards of an evaluation
            merged (:func:`bcgan_tf.evaluation.archive.merge`) are the evaluation.
        skip_certified: attack only images of which :func:`bcgan_tf.certified` proves nothing at
            ``eps``: of the others no attack within it could break one, so that the accuracies are
            the same, sooner; an attack that goes further gets them all. Needs ``eps`` and Linf; a
            model without such bounds has none to skip.
        state: a folder for what is finished; the same call resumes from it.
        batch_size: most images at once: bounds memory, changes no result.
        seed: of all draws.
        progress: told what is at work, such as "APGD-CE: 912 of 1,000 left".

    Returns:
        The accuracies, each attack's result, and the per-example worst case.

    Raises:
        UserError: no attack, or attacks of another radius or norm; no eps for a suite or for
            ``skip_certified``; a model, images or labels that an attack refuses; a model that
            draws outside its graph or whose rows depend on the batch
            (:func:`bcgan_tf.attacks.answers.check_answers`); a state folder of another evaluation.

    Example:
        >>> evaluation = evaluate(classifier, dataset.test.take(1000), suite="standard", eps=0.3)
        >>> evaluation.robust_accuracy, evaluation.interval95()
    """
    images, labels = _arrays(data)
    _check_request(attacks, suite, eps, norm)
    if skip_certified and (eps is None or norm != "linf"):
        raise UserError("skip_certified needs eps and the norm linf, for which bounds are proved")
    total, indices = len(images), _shard_indices(len(images), shard)
    classes = _checked_classes(model, images, labels)
    identity = identity_of(model, images, labels)
    images, labels = images[indices], labels[indices]

    if samples is None:
        stochastic = differing_answers(model, images[:_PROBES]) > 0
        samples = SAMPLES if stochastic or suite == "rand" else 1
    averaged: Any = model if samples == 1 else expectation(model, samples)
    usable_model, _ = guard_gradient(averaged, images[:_PROBES], labels[:_PROBES])
    if attacks is None:
        assert eps is not None
        suite = suite or _SUITE
        attacks = attacks_of(
            suite, eps, norm=norm, num_classes=classes, seed=seed, batch_size=batch_size
        )
    prepared = [attack.prepare(usable_model) for attack in attacks]
    if suite in _THOROUGH and may_hide_gradients(model):
        prepared = _with_adaptive(prepared, model, samples, images[:_PROBES], labels[:_PROBES])
    certified = None
    if skip_certified and eps is not None:
        # Bounds are of one call of a Keras model, not of the mean of several.
        bounded = samples == 1 and isinstance(model, keras.Model)
        certified = np.zeros(len(images), bool)
        if bounded:
            certified = proved(model, images, labels, eps, batch_size=batch_size)
    survivors_only = suite is not None and suite != "paper"
    settings = {
        **identity,
        "survivors_only": survivors_only,
        **({"skip_certified": True} if skip_certified else {}),
        "shard": list(shard),
        "attacks": [
            {"attack": one.attack.name, **deciding_settings(one.attack.config())}
            for one in prepared
        ],
        "eps": eps,
        "norm": norm,
        "samples": samples,
    }
    with Pieces(Path(state) if state is not None else None, settings) as pieces:
        work = Chunks(
            attacks=prepared,
            survivors_only=survivors_only,
            pieces=pieces,
            progress=progress,
            evaluation=Evaluation(
                (),
                labels,
                indices,
                eps,
                norm,
                suite,
                samples,
                total=total,
                identity=identity,
                certified=certified,
            ),
        )
        return work.run(images)


def _arrays(data: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(data, tf.data.Dataset):
        data = _collected(data)
    if isinstance(data, Dataset):
        data = data.test
    if isinstance(data, Split):
        data = data.scaled(), data.labels
    if not isinstance(data, tuple | list):
        raise UserError(
            f"the data is a {type(data).__name__}; pass (images, labels), a split, a data set, or "
            "a tf.data.Dataset of (images, labels)"
        )
    if len(data) != 2:
        raise UserError(f"the data has {len(data)} parts; pass (images, labels) or a split")
    images, labels = data
    images = as_images(images)
    return images, as_labels(labels, len(images))


def _collected(data: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All (images, labels) of a pipeline; what is not in batches is put into one."""
    spec: Any = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise UserError(
            "the tf.data.Dataset gives other elements than (images, labels); map it to them"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError("the tf.data.Dataset never ends; leave out repeat(), or take(n) of it")
    if spec[1].shape.rank == 0:
        data = data.batch(_PROBES)
    batches = list(data.as_numpy_iterator())
    if not batches:
        raise UserError("the tf.data.Dataset is empty; give at least one example")
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


def _check_request(
    attacks: Sequence[Attack] | None, suite: str | None, eps: float | None, norm: str
) -> None:
    if attacks is not None and not attacks:
        raise UserError("no attack was given; robust accuracy without one says nothing")
    if attacks is not None and suite is not None:
        raise UserError("both attacks and a suite were given; choose one of them")
    if attacks is None and eps is None:
        raise UserError("a suite needs eps, the radius in [0, 1] pixel units, such as eps=0.3")
    if norm not in ("linf", "l2"):
        raise UserError(f"norm is {norm!r}; it must be 'linf' or 'l2'")
    others = [] if eps is None else [a for a in attacks or () if not _is_on(a, eps, norm)]
    if others:
        told = [f"{attack.name} ({_threat(attack.config())})" for attack in others]
        raise UserError(
            f"{', '.join(told)}: not on {norm} eps {eps:.4g}, of which what is left then says "
            "nothing; give that radius and norm, or leave eps out: then whatever the attacks find "
            "counts, and evaluation.survivors(eps) is what is left within a radius"
        )


def _is_on(attack: Attack, eps: float, norm: str) -> bool:
    """Whether an attack looks where the threat model allows, as far as it has settings for it."""
    config = attack.config()
    own = config.get("eps")
    return config.get("norm", norm) == norm and (
        own is None or math.isclose(own, eps, rel_tol=1e-6)
    )


def _threat(config: Mapping[str, Any]) -> str:
    eps = config.get("eps")
    return f"{config.get('norm', '')} {'without eps' if eps is None else f'eps {eps:.4g}'}".strip()


def _shard_indices(count: int, shard: tuple[int, int]) -> np.ndarray:
    number, shards = shard
    if not 1 <= number <= shards:
        raise UserError(f"shard {number}/{shards} does not exist; choose 1/{shards} ... or fewer")
    if shards > count:
        raise UserError(f"{count} images cannot be cut into {shards} shards; choose fewer")
    return np.arange(number - 1, count, shards)


def _with_adaptive(
    prepared: list[PreparedAttack],
    model: keras.Model,
    samples: int,
    images: np.ndarray,
    labels: np.ndarray,
) -> list[PreparedAttack]:
    """The suite, and before its Square the suite's APGDs through the model's preprocessing."""
    view: Any = through_preprocessing(model)
    view, _ = guard_gradient(view if samples == 1 else expectation(view, samples), images, labels)
    adaptive = [
        AdaptiveAPGD(**vars(one.attack)).prepare(view)
        for one in prepared
        if isinstance(one.attack, APGD)
    ]
    place = next(i for i, one in enumerate(prepared) if isinstance(one.attack, Square))
    return [*prepared[:place], *adaptive, *prepared[place:]]


def _checked_classes(model: Any, images: np.ndarray, labels: np.ndarray) -> int:
    """The number of logits; the model's outputs on a few images are checked on the way."""
    checks.check_model_input(model, images)
    predict = Batched(checks.as_logits_fn(model), _PROBES)
    check_answers(model, images, predict)
    logits = predict(images[:_PROBES])
    checks.check_logits(logits, labels[:_PROBES])
    if labels.max() >= logits.shape[1]:
        checks.check_logits(logits, np.full(len(logits), labels.max()))
    return logits.shape[1]
