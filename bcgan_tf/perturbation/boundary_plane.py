"""The decision boundary on a plane through one image: the paper's section 4.3, eq. 11, figure 4.

Reference: Wu et al. 2018, "Understanding and Enhancing the Transferability of Adversarial
Examples".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.errors import UserError
from bcgan_tf.perturbation.plane_directions import (
    BATCH,
    PlaneDirections,
    checked_image,
    compiled,
    gradient_directions,
    pgd_plane_directions,
)

__all__ = [
    "BoundaryPlane",
    "PlaneDirections",
    "boundary_plane",
    "gradient_directions",
    "pgd_plane_directions",
]


@dataclass(frozen=True, kw_only=True)
class BoundaryPlane:
    """Predicted classes on ``clip(image + u * g_hat + v * h_hat, 0, 1)``.

    Attributes:
        u: float64 ``[resolution]``, offsets along ``g_hat``, L2 norm, images in [0, 1].
        v: float64 ``[resolution]``, offsets along ``h_hat``.
        class_map: int64 ``[resolution, resolution]``; row ``i``, column ``j`` is the class at
            ``(u[j], v[i])``, so ``imshow(class_map, origin="lower")`` has ``u`` to the right.
        margin: float32, the same shape: the label's logit minus the highest other one, positive
            where the label is predicted; its zero contour is the label's boundary.
        label: the class that ``margin`` and the directions refer to.
        directions: the plane's directions, to be reused for another model.
    """

    u: np.ndarray
    v: np.ndarray
    class_map: np.ndarray
    margin: np.ndarray
    label: int
    directions: PlaneDirections

    @property
    def g_hat(self) -> np.ndarray:
        """float32, the image's shape: the axis ``u``."""
        return self.directions.g_hat

    @property
    def h_hat(self) -> np.ndarray:
        """float32, the image's shape: the axis ``v``."""
        return self.directions.h_hat

    @property
    def used_margin_gradient(self) -> bool:
        """Whether the cross entropy had no gradient and the margin's was taken."""
        return self.directions.used_margin_gradient

    @property
    def boundary_distance(self) -> float | None:
        """Smallest ``u >= 0`` on the axis ``v = 0`` where the label's margin is 0.

        Interpolated linearly between grid points; L2, before clipping. 0 when the image itself is
        misclassified, None when the label holds to the edge of the plane.
        """
        center = len(self.v) // 2
        margin, u = self.margin[center, center:].astype("float64"), self.u[center:]
        crossed = np.flatnonzero(margin <= 0)
        if crossed.size == 0:
            return None
        first = int(crossed[0])
        if first == 0:
            return 0.0
        before, after = margin[first - 1], margin[first]
        return float(u[first - 1] + (u[first] - u[first - 1]) * before / (before - after))


def boundary_plane(
    logits_fn: Callable[[Any], Any] | keras.Model,
    image: np.ndarray,
    label: int,
    *,
    directions: PlaneDirections | None = None,
    extent: float = 8.0,
    resolution: int = 101,
) -> BoundaryPlane:
    """Maps the predicted class on a plane through an image.

    To compare two models, draw both on the directions of one of them
    (``directions=original.directions``), and each on its own.

    Args:
        logits_fn: a classifier, or a function from images in [0, 1] to logits.
        image: float32 in [0, 1], ``[H, W, C]``; or a vector ``[D]``, which is not clipped.
        label: the true class.
        directions: the plane; by default that of ``gradient_directions``, eq. 11.
        extent: the plane reaches from -extent to extent in ``u`` and ``v``, L2 norm.
        resolution: points a side, odd, so that the image is one of them.

    Raises:
        UserError: for an image outside [0, 1], a label that is no class, options that are out of
            range, NaN logits, or a model without any gradient at this image.
    """
    image = checked_image(image)
    if extent <= 0:
        raise UserError(f"extent={extent} leaves nothing to draw; give a positive number")
    if resolution < 3 or resolution % 2 == 0:
        raise UserError(
            f"resolution {resolution} leaves the image between grid points; take an odd number"
        )
    logits_fn = compiled(logits_fn, image, label)
    if directions is None:
        directions = gradient_directions(logits_fn, image, label)
    elif directions.g_hat.shape != image.shape or directions.h_hat.shape != image.shape:
        raise UserError(
            f"the directions have shape {directions.g_hat.shape}, the image {image.shape}; "
            "take directions that were made for an image of this shape"
        )
    axis = np.linspace(-extent, extent, resolution)
    # Row after row of the map: v is the slow index.
    v, u = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    logits = []
    for start in range(0, len(u), BATCH):
        part = slice(start, start + BATCH)
        shift = np.multiply.outer(u[part], directions.g_hat)
        shift += np.multiply.outer(v[part], directions.h_hat)
        points = image + shift
        if image.ndim > 1:
            points = np.clip(points, 0.0, 1.0)
        logits.append(logits_fn(tf.constant(points, tf.float32)).numpy())
    logits = np.concatenate(logits)
    if np.isnan(logits).any():
        raise UserError("the model returns NaN on the plane; train it again")
    others = np.delete(logits, label, axis=1).max(axis=1)
    return BoundaryPlane(
        u=axis,
        v=axis.copy(),
        class_map=logits.argmax(axis=1).reshape(resolution, resolution),
        margin=(logits[:, label] - others).reshape(resolution, resolution),
        label=int(label),
        directions=directions,
    )
