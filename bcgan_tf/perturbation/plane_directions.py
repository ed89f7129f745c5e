"""Directions that span a plane through an image, along which its surroundings are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.checks import as_logits_fn
from bcgan_tf.errors import UserError

# Below this share of g, what is left of it beside G is rounding of float32 gradients.
_PARALLEL = 1e-4
# Images per call of the model; no result depends on it.
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class PlaneDirections:
    """Two orthonormal directions through an image.

    Attributes:
        g_hat: float32, the image's shape, L2 norm 1: the axis ``u``.
        h_hat: float32, the image's shape, L2 norm 1, orthogonal to ``g_hat``: the axis ``v``.
        used_margin_gradient: the cross entropy's gradient was exactly zero, so the gradient of the
            margin was taken instead; say so on the plot.
        used_random_orthogonal: ``h_hat`` is a random direction, by choice (a PGD plane) or because
            the local and the averaged gradient are parallel, as in a linear model.
    """

    g_hat: np.ndarray
    h_hat: np.ndarray
    used_margin_gradient: bool = False
    used_random_orthogonal: bool = False


def gradient_directions(
    logits_fn: Callable[[Any], Any] | keras.Model,
    image: np.ndarray,
    label: int,
    *,
    sigma: float = 1 / 255,
    copies: int = 1000,
    seed: int = 0,
) -> PlaneDirections:
    """The paper's directions, eq. 11: the noise-averaged gradient and what the local one adds.

    ``g`` is the gradient of the cross entropy J at ``image``, ``G`` its mean over ``copies`` noisy
    copies of standard deviation ``sigma``; ``g_hat = G/|G|``, ``h = g - <g, g_hat> g_hat``,
    ``h_hat = h/|h|``. J is computed as ``softplus(logsumexp of the other logits - logit)``: the
    same function, whose gradient keeps its direction up to gaps of about 88 between the logits,
    where the usual form has lost the label's own part at 17. Beyond, it is exactly zero, and the
    margin ``max of the others - logit`` takes J's place.

    Args:
        logits_fn: a classifier, or a function from images in [0, 1] to logits.
        image: float32 in [0, 1], ``[H, W, C]``; or a vector ``[D]``.
        label: the true class.
        sigma: of the Gaussian noise, in [0, 1] units; the paper's 1 is taken to be in 0 ... 255.
        copies: noisy ones that are averaged, the paper's m.
        seed: of the noise.

    Raises:
        UserError: for an image outside [0, 1], a label that is no class, options out of range, or
            a model whose gradient here is not finite or zero for both losses.
    """
    image = checked_image(image)
    if sigma < 0 or copies < 1:
        raise UserError(
            "the noise of eq. 11 needs sigma >= 0 and copies >= 1, not "
            f"sigma={sigma}, copies={copies}"
        )
    logits_fn = compiled(logits_fn, image, label)
    for use_margin in (False, True):
        gradient_of = _gradient_function(logits_fn, label, use_margin)
        local = gradient_of(tf.constant(image[np.newaxis])).numpy().astype("float64")
        rng = np.random.default_rng(seed)
        total = np.zeros(image.shape)
        for start in range(0, copies, BATCH):
            count = min(BATCH, copies - start)
            noise = rng.standard_normal((count, *image.shape), "float32") * np.float32(sigma)
            total += gradient_of(tf.constant(image + noise)).numpy()
        local_norm, mean_norm = np.linalg.norm(local), np.linalg.norm(total / copies)
        if not (np.isfinite(local_norm) and np.isfinite(mean_norm)):
            raise UserError("the model's gradient at this image is not finite; train it again")
        if local_norm == 0 or mean_norm == 0:
            continue
        g_hat = total / copies / mean_norm
        rest = _orthogonal_part(local / local_norm, g_hat)
        rest_norm = np.linalg.norm(rest)
        if rest_norm < _PARALLEL:
            return _with_random_orthogonal(g_hat, seed, used_margin_gradient=use_margin)
        return PlaneDirections(
            g_hat=g_hat.astype("float32"),
            h_hat=_orthogonal_part(rest / rest_norm, g_hat).astype("float32"),
            used_margin_gradient=use_margin,
        )
    raise UserError(
        "the model has no gradient at this image, of the cross entropy or of the margin; choose "
        "another image, or give directions"
    )


def pgd_plane_directions(
    image: np.ndarray, adversarial: np.ndarray, *, seed: int = 0
) -> PlaneDirections:
    """A plane through an image and its adversarial example, and a random orthogonal direction.

    Args:
        image: float32, any shape.
        adversarial: float32, the same shape; any attack's result, such as PGD's.
        seed: of the random direction.

    Raises:
        UserError: when the two are equal or differ in shape.
    """
    image, adversarial = np.asarray(image, "float64"), np.asarray(adversarial, "float64")
    if image.shape != adversarial.shape:
        raise UserError(
            f"image {image.shape} and adversarial example {adversarial.shape} differ in shape; "
            "give one example of each"
        )
    step = adversarial - image
    norm = float(np.linalg.norm(step))
    if norm == 0:
        raise UserError(
            "the adversarial example equals the image, so it gives no direction; take an image "
            "that the attack changes"
        )
    return _with_random_orthogonal(step / norm, seed, used_margin_gradient=False)


def _gradient_function(
    logits_fn: Callable[[tf.Tensor], tf.Tensor], label: int, use_margin: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Images ``[B, ...]`` to the sum of their loss gradients, in the shape of one image."""

    @tf.function(reduce_retracing=True)
    def gradient_of(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = logits_fn(images)
            others = tf.concat([logits[:, :label], logits[:, label + 1 :]], axis=1)
            if use_margin:
                loss = tf.reduce_max(others, axis=1) - logits[:, label]
            else:
                loss = tf.nn.softplus(tf.reduce_logsumexp(others, axis=1) - logits[:, label])
        gradient: Any = tape.gradient(loss, images)
        if gradient is None:  # not connected, as behind an argmax
            gradient = tf.zeros_like(images)
        return tf.reduce_sum(gradient, axis=0)

    return gradient_of


def _with_random_orthogonal(
    g_hat: np.ndarray, seed: int, *, used_margin_gradient: bool
) -> PlaneDirections:
    if g_hat.size < 2:
        raise UserError("a plane needs inputs of at least 2 values; this one has 1")
    rest = _orthogonal_part(np.random.default_rng(seed).standard_normal(g_hat.shape), g_hat)
    rest = _orthogonal_part(rest / np.linalg.norm(rest), g_hat)
    return PlaneDirections(
        g_hat=g_hat.astype("float32"),
        h_hat=(rest / np.linalg.norm(rest)).astype("float32"),
        used_margin_gradient=used_margin_gradient,
        used_random_orthogonal=True,
    )


def _orthogonal_part(vector: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return vector - np.vdot(vector, unit) * unit


def compiled(
    model: Callable[[Any], Any] | keras.Model, image: np.ndarray, label: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from float32 ``[B, *image.shape]`` to logits, traced once.

    Raises:
        UserError: when ``label`` is no class of it.
    """
    spec = tf.TensorSpec([None, *image.shape], tf.float32)
    logits_fn = tf.function(as_logits_fn(model), input_signature=[spec])
    classes = logits_fn(tf.constant(image[np.newaxis])).shape[-1]
    if not 0 <= label < classes:
        raise UserError(f"label {label} is no class of this model, which has {classes}")
    return logits_fn


def checked_image(image: np.ndarray) -> np.ndarray:
    """One float32 image or vector.

    Raises:
        UserError: for another shape or type, or pixels outside [0, 1].
    """
    image = np.asarray(image)
    if image.ndim not in (1, 3) or not np.issubdtype(image.dtype, np.floating):
        raise UserError(
            f"the image is {image.dtype} of shape {image.shape}; give one float32 image "
            "(H, W, C) in [0, 1], or one vector (D,)"
        )
    if not np.isfinite(image).all() or (image.ndim == 3 and (image.min() < 0 or image.max() > 1)):
        raise UserError("the image is not within [0, 1]; rescale it")
    return image.astype("float32")
