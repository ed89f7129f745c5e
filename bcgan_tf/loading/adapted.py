"""A user's Keras classifier as this package works with it, and back.

Inside the package a classifier is a Keras model from float32 images in [0, 1], ``[B, H, W, C]``, to
logits ``[B, K]``. Any other convention is converted by layers without weights, of Keras alone: in
front of the model for the pixels, the axes and the type, behind it for a single unit. A softmax or
sigmoid at its end is taken off. After training, the weights go back into a copy of the user's
model, which takes and returns what it did before.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks.checks import look_like_probabilities
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.files import note
from bcgan_tf.keras_graph import call_on, final_activation, input_of, outputs_of
from bcgan_tf.settings.convention import Convention

# Activations that are taken off: their inputs are the logits.
_TAKEN_OFF = ("softmax", "sigmoid")
# What a probability of 0 becomes before its logarithm.
_LEAST = 1e-30
_PROBE_ROWS = 8
# Probabilities of a network in half precision sum to 1 only roughly.
HALF_TOLERANCE = 1e-3
LOGARITHM = (
    "returns probabilities, whose softmax cannot be taken off: logits are their logarithm, and "
    "where a probability rounds to 0 or 1 attacks get no gradient"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
    """A user's model and the classifier that was made of it.

    Attributes:
        given: the user's.
        classifier: float32 images in [0, 1] to logits; ``given`` itself where it is such a model.
        lines: what was converted, a sentence each.
    """

    given: keras.Model
    classifier: keras.Model
    lines: tuple[str, ...] = ()
    _weights: tuple[int, ...] = ()
    _copied: tuple[tuple[Any, Any], ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was converted."""
        return self.classifier is not self.given

    def tell(self, name: str) -> None:
        """Says on stderr what was converted."""
        for line in self.lines:
            note(f"{name}: {line}")

    def refresh(self) -> None:
        """Takes up what the user's model has learned since."""
        for copy, original in self._copied:
            copy.assign(original)

    def restored(self, trained: keras.Model) -> keras.Model:
        """A copy of the user's model with the weights of a trained classifier.

        Args:
            trained: of the architecture of ``classifier``; any other is returned as it is.
        """
        weights = trained.get_weights()
        shapes = [weight.shape for weight in self.classifier.get_weights()]
        if not self.changed or [weight.shape for weight in weights] != shapes:
            return trained
        copy = copy_classifier(self.given)
        values = copy.get_weights()
        for place, value in zip(self._weights, weights, strict=True):
            values[place] = value
        copy.set_weights(values)
        return copy


def copy_classifier(classifier: keras.Model) -> keras.Model:
    """An independent copy with the same weights, made in the current strategy's scope."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "classifier.keras"
        classifier.save(file)
        # The caller's own object: what was safe to run is safe to copy, and its classes are known.
        with keras.saving.custom_object_scope(dict(_classes(classifier))):
            return keras.models.load_model(file, compile=False, safe_mode=False)


def _classes(layer: Any) -> Iterator[tuple[str, type]]:
    """Those of a model's layers that Keras does not know by itself, by their names."""
    kind = type(layer)
    registered = ">" in keras.saving.get_registered_name(kind)
    if not registered and not kind.__module__.startswith("keras."):
        yield kind.__name__, kind
    for inner in getattr(layer, "layers", ()):
        yield from _classes(inner)


def adapt(
    name: str,
    model: keras.Model,
    *,
    image_shape: Sequence[int],
    declared: Sequence[int | None] | None,
    convention: Convention,
) -> Adapted:
    """A classifier of this package's convention, made of a user's model.

    Args:
        name: of the model, for messages.
        model: functional, built sequential or subclassed; not changed, its layers are shared.
        image_shape: of the images, ``(H, W, C)`` or ``(D,)``.
        declared: of one input of the model; None: unknown.
        convention: what is known of the model beside its graph.

    Raises:
        UserError: it has several outputs of which none is named, or none of that name; the images
            do not fit its input; it cannot be called on them; or it ends in something that gives
            no logits.
    """
    lines = [*_input_lines(model)]
    front = [*_front(name, tuple(image_shape), declared, convention, lines)]
    known = outputs_of(model)
    output = _chosen(name, known, convention.output)
    activation = final_activation(model, output)
    taken_off = activation in _TAKEN_OFF
    if not lines and output is None and not taken_off:
        found = answers(name, model, image_shape)
        if isinstance(found, np.ndarray) and found.shape[1:] != (1,) and not _shares(found):
            return Adapted(model, model)
    images = keras.Input(image_shape, name="images")
    values: Any = images
    for layer in front:
        values = layer(values)
    try:
        if known:
            logits, copied = call_on(model, values, output=output, without_activation=taken_off)
        else:
            logits, copied = _only(name, model(values), convention.output), {}
    except UserError:
        raise
    except Exception as error:  # a user's own code runs here
        raise UserError(
            f"{name} cannot be called on float32 images {tuple(image_shape)} ({first_line(error)})"
        ) from error
    if taken_off:
        lines.append(f"{activation} at the end taken off: its inputs are the logits")
    if output is not None:
        lines.append(f"output {output!r} of {', '.join(known)}")
    plain = keras.Model(images, logits, name=f"{model.name}_logits")
    outputs = answers(name, plain, image_shape)
    if outputs.shape[1:] == (1,):
        share = bool((outputs >= 0).all() and (outputs <= 1).all())
        logits = two_classes(logits, probability=activation is None and share)
        plain = keras.Model(images, logits, name=plain.name)
        lines.append("its single unit becomes the logits of two classes")
    elif not taken_off and _shares(outputs):
        logits = logarithm(logits)
        plain = keras.Model(images, logits, name=plain.name)
        lines.append(LOGARITHM)
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    originals = [copied.get(id(weight), weight) for weight in plain.weights]
    pairs = zip(plain.weights, originals, strict=True)
    return Adapted(
        model,
        plain,
        tuple(lines),
        tuple(places[id(original)] for original in originals),
        tuple((copy, original) for copy, original in pairs if copy is not original),
    )


def _input_lines(model: keras.Model) -> Iterator[str]:
    """In what a model's input is not of floats in batches of any size."""
    found = input_of(model)
    if found is None:
        return
    tensor, key = found
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not dtype.startswith(("float", "bfloat")):
        yield f"takes {dtype}: attacks use numbers between the whole ones too"
    if tensor.shape[0] is not None:
        yield f"takes batches of {tensor.shape[0]}: here, of any size"
    if key is not None:
        yield f"takes its images as {key!r} of a dict"


def _front(
    name: str,
    shape: tuple[int, ...],
    declared: Sequence[int | None] | None,
    convention: Convention,
    lines: list[str],
) -> Iterator[Any]:
    """Layers from images in [0, 1], ``[B, H, W, C]``, to what the model takes."""
    if not convention.identity:
        channels = shape[-1]
        if any(
            isinstance(values, list) and len(values) != channels
            for values in (convention.scale, convention.offset)
        ):
            raise UserError(
                f"{name}: {convention.options} is of other than the {channels} channel(s) of the "
                "images; give one number or one per channel"
            )
        if convention.reverses_channels:
            yield lambda images: keras.ops.flip(images, axis=-1)
        yield keras.layers.Rescaling(convention.scale, convention.offset, name="to_model_pixels")
        lines.append(f"takes pixels as of {convention.options}")
    if declared is None or _fits(declared, shape):
        return
    if len(shape) == 3 and shape[2] == 1 and _fits(declared, shape[:2]):
        yield keras.layers.Reshape(shape[:2], name="without_channels")
        lines.append("takes images without a channel axis")
    elif len(shape) == 3 and _fits(declared, (shape[2], *shape[:2])):
        yield keras.layers.Permute((3, 1, 2), name="channels_first")
        lines.append("takes channels first")
    elif tuple(declared) == (int(np.prod(shape)),):
        yield keras.layers.Reshape(tuple(declared), name="flat")
        lines.append("takes images as vectors")
    else:
        raise UserError(
            f"{name} takes inputs of shape {tuple(declared)}, but the images are {shape}; choose "
            "the data set that it was trained on, or a classifier for these images"
        )


def _fits(declared: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(
        d in (None, side) for d, side in zip(declared, shape, strict=True)
    )


def _chosen(name: str, known: Sequence[str] | dict[str, Any], output: str | None) -> str | None:
    """Which of several outputs; None where there is one."""
    if output is not None and known and output not in known:
        raise UserError(f"{name} has no output {output!r}; it has {', '.join(known)}")
    if len(known) < 2:
        return None
    if output is None:
        raise UserError(
            f"{name} has the outputs {', '.join(known)}; say which one classifies: --output "
            f"{next(iter(known))} (Convention(output=...) in Python)"
        )
    return output


def _only(name: str, outputs: Any, output: str | None) -> Any:
    """The output that classifies, of what a subclassed model returned."""
    if isinstance(outputs, dict):
        chosen = _chosen(name, outputs, output)
        return outputs[chosen] if chosen is not None else next(iter(outputs.values()))
    if isinstance(outputs, list | tuple):
        places = {str(place): value for place, value in enumerate(outputs)}
        chosen = _chosen(name, places, output)
        return places[chosen if chosen is not None else "0"]
    return outputs


def two_classes(unit: Any, *, probability: bool) -> Any:
    """The logits of two classes, ``[B, 2]``, of the single unit ``[B, 1]`` of the second."""
    if probability:
        both = keras.ops.concatenate([1.0 - unit, unit], axis=-1)
        return logarithm(both)
    # A zero beside it, by layers that Keras alone reads back.
    padded = keras.layers.ZeroPadding1D((1, 0))(keras.layers.Reshape((1, 1))(unit))
    return keras.layers.Reshape((2,), name="two_classes")(padded)


def logarithm(probabilities: Any) -> Any:
    """Logits ``[B, K]`` of which these are the softmax."""
    return keras.ops.log(keras.ops.maximum(probabilities, _LEAST))


def probes(shape: Sequence[int]) -> np.ndarray:
    """A few random images in [0, 1], to try a model on."""
    return np.random.default_rng(0).random((_PROBE_ROWS, *shape), "float32")


def answers(name: str, model: keras.Model, image_shape: Sequence[int]) -> Any:
    """Outputs for a few random images; a float32 array where there is one.

    Raises:
        UserError: the model fails on them.
    """
    images = probes(image_shape)
    outputs: Any = None
    try:
        for rows in (1, len(images)):  # two sizes: a batch dimension must be free
            outputs = model(images[:rows], training=False)
    except Exception as error:  # a user's own code runs here
        raise UserError(
            f"{name} fails on a batch of float32 images {tuple(image_shape)} in [0, 1], "
            f"training=False ({first_line(error)}); check its input shape"
        ) from error
    if isinstance(outputs, dict | list | tuple):
        return outputs
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))


def _shares(outputs: np.ndarray) -> bool:
    """Whether they are probabilities."""
    return outputs.ndim == 2 and look_like_probabilities(outputs, HALF_TOLERANCE)
