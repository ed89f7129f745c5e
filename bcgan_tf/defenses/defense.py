"""What every defence is: a frozen configuration with ``harden(classifier, data)``."""

from __future__ import annotations

import abc
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.distribute import check_batch_size, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.settings.fields import Checked
from bcgan_tf.settings.kinds import Devices, Seed

# Keras callbacks for a stage of a defence, by the stage's name.
StageCallbacks = Callable[[str], Sequence[keras.callbacks.Callback]]


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


def _refuse_float16(classifier: keras.Model) -> None:
    # Its gradients vanish without a scale of the loss, which the trainers do not have.
    layers: Any = classifier._flatten_layers()
    if any(layer.compute_dtype == "float16" for layer in layers):
        raise UserError(
            "the classifier computes in float16, whose gradients vanish in training; choose "
            "dtype=mixed_bfloat16 or dtype=float32"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defense(Checked, abc.ABC):
    """A way to make a classifier more robust.

    A new defence subclasses this and writes ``name``, ``stage_titles`` and ``run``, and
    ``batch_sizes`` where it trains. ``stage_titles`` is what a report calls each stage of training
    that ``run`` asks callbacks for.

    Args:
        seed: of everything the defence draws.
        devices: GPUs (or logical CPUs) to train on; None: all GPUs.
    """

    name: ClassVar[str]
    stage_titles: ClassVar[Mapping[str, str]] = {}
    trains_classifier: ClassVar[bool] = True

    seed: Seed = 0
    devices: Devices | None = None

    def harden(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: str | Path | None = None,
        resume: bool = False,
        callbacks: StageCallbacks | None = None,
    ) -> keras.Model:
        """Makes a hardened classifier; the given one is left untouched.

        Args:
            classifier: trained; float32 images in [0, 1] to logits ``[B, K]``.
            data: only its training and validation splits are used.
            directory: for checkpoints and what the defence makes on its way; None keeps nothing.
            resume: go on from what ``directory`` holds.
            callbacks: more Keras callbacks, asked for with the name of each stage of training.

        Returns:
            A new classifier of the same architecture.

        Raises:
            UserError: as of :meth:`check`, or the training became non-finite.
        """
        self.check(classifier, data)
        folder = Path(directory) if directory is not None else None
        return self.run(
            classifier, data, directory=folder, resume=resume, callbacks=callbacks or (lambda _: ())
        )

    def check(self, classifier: keras.Model, data: Dataset) -> None:
        """Refuses, before any training, what :meth:`harden` could not train with these two.

        Raises:
            UserError: as of :meth:`check_data`; the classifier does not fit the data or this
                defence, or computes in float16.
        """
        load_classifier(classifier, image_shape=data.image_shape, num_classes=data.num_classes)
        if self.trains_classifier and getattr(self, "dtype", None) is None:
            _refuse_float16(classifier)
        self.check_data(data)

    def check_data(self, data: Dataset) -> None:
        """The part of :meth:`check` for which there need not be a classifier yet.

        Raises:
            UserError: the data do not fit this defence; a batch does not divide over the devices,
                or is larger than the training split.
        """
        for size in self.batch_sizes():
            check_batch_size(size, strategy(self.devices))
            steps_per_epoch(data.train, size)

    def ignored(self) -> tuple[str, ...]:
        """Settings that the others leave without effect; ``"gan"`` stands for all of its own."""
        return ()

    def batch_sizes(self) -> tuple[int, ...]:
        """The global batches of its trainings, which :meth:`check_data` looks at."""
        return ()

    @abc.abstractmethod
    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """The defence itself; arguments are those of :meth:`harden`, checked."""

    def config(self) -> dict[str, Any]:
        """The settings, for a model's card."""
        return {"defense": self.name, **dataclasses.asdict(self)}
