"""The paper's Figure 4: the decision boundaries of several classifiers around one test image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks import PGD
from bcgan_tf.data import Dataset
from bcgan_tf.errors import UserError
from bcgan_tf.perturbation.boundary_plane import (
    BoundaryPlane,
    PlaneDirections,
    boundary_plane,
    gradient_directions,
    pgd_plane_directions,
)
from bcgan_tf.report import planes
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.figures import BoundarySettings

_SEARCHED_AT_ONCE = 500


def boundary(
    run: RunDirectory,
    data: Dataset,
    models: Mapping[str, keras.Model],
    settings: BoundarySettings,
) -> dict[str, Any]:
    """Draws the models side by side on planes through one test image that all classify right.

    Four pictures, ``figures/boundary_plane_*.png``: all models on the directions of the first one
    (eq. 11) and each on its own; all on the plane of the first one's PGD example and a random
    orthogonal direction, and each on that of its own. A plane that is another model's shows where
    the boundaries differ; its own is what an attacker of that model sees.

    Args:
        run: its folder takes the pictures and metrics.json; planes that are done are kept.
        data: images; the test set is used.
        models: name to classifier, images in [0, 1] to logits; the first is the original.
        settings: see :class:`BoundarySettings`.

    Returns:
        The content of metrics.json: ``"boundary"`` with the image's ``index``, ``label`` and
        ``class_name``, and ``planes``, a dict per picture and model: ``plane``, ``model``,
        ``boundary_distance`` along ``u`` (L2; None: beyond the edge), ``label_share`` of the plane,
        ``used_margin_gradient``, ``used_random_orthogonal``.

    Raises:
        UserError: data that are no images, no image that all models classify right, or a model
            without a gradient there.
    """
    if len(data.image_shape) != 3:
        raise UserError(f"{data.name} holds vectors, not images; `bcgan-tf toy` draws its boundary")
    if not models:
        raise UserError("no classifier was given; name at least one")
    index = choose_image(data, models, settings.index)
    image = data.test.scaled(index, index + 1)[0]
    label = int(data.test.labels[index])
    first = next(iter(models))
    found: list[dict[str, Any]] = []
    for kind, (name, axes, directions) in _kinds(image, label, models, settings).items():
        stage = f"plane-{kind}"
        if not run.stage_done(stage):
            drawn = {
                model: boundary_plane(
                    classifier,
                    image,
                    label,
                    directions=directions(model),
                    extent=settings.extent,
                    resolution=settings.resolution,
                )
                for model, classifier in models.items()
            }
            planes.boundary_planes(
                {name: drawn},
                run.figures / f"boundary_plane_{kind}.png",
                class_names=data.class_names,
                title=f"{data.name}, test image {index}: {data.class_names[label]}",
                axes_names={name: axes},
            )
            entries = [{"plane": name, "model": m, **_numbers(p)} for m, p in drawn.items()]
            run.finish_stage(stage, {"planes": entries})
        found.extend(run.stage_payload(stage)["planes"])
    metrics = {
        "dataset": data.name,
        "boundary": {
            "index": index,
            "label": label,
            "class_name": data.class_names[label],
            "original": first,
            "planes": found,
        },
    }
    run.write_metrics(metrics)
    return metrics


def choose_image(data: Dataset, models: Mapping[str, keras.Model], index: int | None = None) -> int:
    """The position of a test image that every model classifies right.

    Args:
        data: the test set is searched from its start.
        models: name to classifier.
        index: a position to check in place of searching.

    Raises:
        UserError: there is none, or ``index`` does not exist or is misclassified.
    """
    test = data.test
    if index is None:
        for start in range(0, len(test), _SEARCHED_AT_ONCE):
            stop = min(start + _SEARCHED_AT_ONCE, len(test))
            images, right = test.scaled(start, stop), np.ones(stop - start, bool)
            for model in models.values():
                right &= _classes(model, images) == test.labels[start:stop]
            if right.any():
                return start + int(right.argmax())
        raise UserError("no test image is classified right by all models; train them longer")
    if not 0 <= index < len(test):
        raise UserError(f"there is no test image {index}; choose 0 to {len(test) - 1}")
    for name, model in models.items():
        said = int(_classes(model, test.scaled(index, index + 1))[0])
        if said != test.labels[index]:
            true, wrong = data.class_names[test.labels[index]], data.class_names[said]
            raise UserError(
                f"test image {index} is of class {true}, but {name} says {wrong}; "
                "choose another index"
            )
    return index


def _classes(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.argmax(model(images, training=False), axis=-1)


def _kinds(
    image: np.ndarray, label: int, models: Mapping[str, keras.Model], settings: BoundarySettings
) -> dict[str, tuple[str, tuple[str, str], Callable[[str], PlaneDirections]]]:
    """File name to the plane's name, its axes' names, and its directions for each model."""
    known: dict[tuple[str, str], PlaneDirections] = {}

    def gradient(model: str) -> PlaneDirections:
        if ("gradient", model) not in known:
            known["gradient", model] = gradient_directions(
                models[model],
                image,
                label,
                sigma=settings.sigma,
                copies=settings.samples,
                seed=settings.seed,
            )
        return known["gradient", model]

    def pgd(model: str) -> PlaneDirections:
        if ("pgd", model) not in known:
            attack = PGD(settings.eps, steps=settings.pgd_steps, seed=settings.seed)
            adversarial = attack(models[model], image[np.newaxis], np.array([label])).adversarials
            known["pgd", model] = pgd_plane_directions(image, adversarial[0], seed=settings.seed)
        return known["pgd", model]

    first = next(iter(models))
    gradient_axes = ("u: averaged gradient", "v: rest of the local gradient")
    pgd_axes = ("u: towards the PGD example", "v: random orthogonal")
    kinds: dict[str, tuple[str, tuple[str, str], Callable[[str], PlaneDirections]]] = {
        "gradient_shared": (f"directions of {first}", gradient_axes, lambda _: gradient(first)),
        "gradient_own": ("own directions", gradient_axes, gradient),
        "pgd_shared": (f"PGD on {first}", pgd_axes, lambda _: pgd(first)),
        "pgd_own": ("own PGD", pgd_axes, pgd),
    }
    if len(models) == 1:  # its own planes are the shared ones
        kinds = {kind: row for kind, row in kinds.items() if kind.endswith("shared")}
    return kinds


def _numbers(plane: BoundaryPlane) -> dict[str, Any]:
    return {
        "boundary_distance": plane.boundary_distance,
        "label_share": float(np.mean(plane.class_map == plane.label)),
        "used_margin_gradient": plane.used_margin_gradient,
        "used_random_orthogonal": plane.directions.used_random_orthogonal,
    }
