"""What every defence is: a frozen configuration with ``harden(classifier, x, y)``."""

from __future__ import annotations

import abc
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.data.arrays import as_dataset
from bcgan_tf.distribute.strategies import check_batch_size, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.files import note
from bcgan_tf.keras_graph import all_layers, trained_part
from bcgan_tf.loading.adapted import Adapted, copy_classifier
from bcgan_tf.loading.classifier import input_shape, load_classifier
from bcgan_tf.loading.usual_conventions import take_in
from bcgan_tf.networks.copies import clone_with_dtype
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.defenses import DefenseSettings

# Keras callbacks for a stage of a defence, by the stage's name.
StageCallbacks = Callable[[str], Sequence[keras.callbacks.Callback]]


def cast(classifier: keras.Model, dtype: str | None) -> keras.Model:
    """A copy that computes in ``dtype``, its images and logits in float32; None: itself.

    Raises:
        UserError: a layer cannot be rebuilt from its configuration.
    """
    if dtype is None:
        return classifier
    try:
        return clone_with_dtype(classifier, dtype, ends="float32")
    except Exception as error:  # a layer of a user's own may fail in any way
        reason = str(error).splitlines()[-1]
        raise UserError(
            f"the classifier cannot be rebuilt in {dtype} ({reason}); leave out dtype, or where it "
            "is in float16, build it in another precision"
        ) from error


def restore_dtype(classifier: keras.Model, trained: keras.Model, dtype: str | None) -> keras.Model:
    """What was ``trained`` in ``dtype``, in the precision of ``classifier``; None: itself."""
    if dtype is None:
        return trained
    result = copy_classifier(classifier)
    result.set_weights(trained.get_weights())
    return result


class Defense(DefenseSettings, abc.ABC):
    """A way to make a classifier more robust.

    A new defence has its settings, with its ``name``, in :mod:`bcgan_tf.settings.defenses`, and a
    class that inherits from them and from this one. It writes ``run`` and ``stage_titles`` (what a
    report calls each stage of training that ``run`` asks callbacks for), and ``batch_sizes`` where
    it trains.
    """

    stage_titles: ClassVar[Mapping[str, str]] = {}
    trains_classifier: ClassVar[bool] = True

    def harden(
        self,
        classifier: keras.Model | Adapted,
        x: Any,
        y: Any = None,
        *,
        convention: Convention | None = None,
        validation_split: float = 0.1,
        validation_data: Any = None,
        directory: str | Path | None = None,
        resume: bool = False,
        callbacks: StageCallbacks | Sequence[keras.callbacks.Callback] = (),
    ) -> keras.Model:
        """Makes a hardened classifier; the given one is left untouched.

        Args:
            classifier: trained, of any convention that
                :func:`bcgan_tf.loading.classifier.load_classifier` takes; or one that was taken in.
            x: images ``[N, H, W]`` or ``[N, H, W, C]``, uint8 in 0 ... 255 or floats in [0, 1]; a
                finite ``tf.data.Dataset`` or ``PyDataset`` of both, read into memory; or a
                :class:`bcgan_tf.data.Dataset`, of which the test split is not used.
            y: classes ``[N]`` or ``[N, 1]``, or one-hot ``[N, K]``; beside images only.
            convention: the pixels that the classifier takes, where not those of [0, 1], and which
                of its outputs classifies.
            validation_split: share of each class that is set aside for validation, above 0 and
                below 1; chosen by the defence's seed.
            validation_data: ``(x, y)`` or a ``tf.data.Dataset``, in place of a share.
            directory: for checkpoints and what the defence makes on its way; None keeps nothing.
            resume: go on from what ``directory`` holds.
            callbacks: Keras callbacks for the last stage of training, which makes the result; or a
                function from the name of a stage (the keys of ``stage_titles``) to its callbacks.
                Their ``model`` is the trainer; ``model.classifier`` is what it trains.

        What is trained, of a classifier with frozen layers, is said in a line on stderr; so is
        that one in float16 is trained in float32, where no ``dtype`` is chosen. The result has the
        precision of the given one.

        Returns:
            A new classifier of the same architecture and convention, or, of a defence that puts
            something in front of it, the two as one model from images in [0, 1] to logits.

        Raises:
            UserError: the images or labels are unfit; the classifier is clearly more accurate on
                pixels of another range; as of :meth:`check`; or the training became
                non-finite.
        """
        data = x
        if y is not None or validation_data is not None or not isinstance(x, Dataset):
            data = self._dataset(classifier, x, y, validation_split, validation_data, convention)
        if not isinstance(classifier, Adapted):
            classifier = take_in("the classifier", classifier, data, convention)
        inside = classifier.classifier
        self.check(inside, data)
        settled = self.without_float16(inside)
        if self.trains_classifier:
            inside = self.unfrozen(inside)
            print(f"{self.name} trains {self.trained(inside)}", file=sys.stderr, flush=True)
        last = [self.name, *self.stage_titles][-1]
        asked = callbacks if callable(callbacks) else lambda s: callbacks if s == last else ()
        folder = Path(directory) if directory is not None else None
        trained = settled.run(inside, data, directory=folder, resume=resume, callbacks=asked)
        return classifier.restored(trained)

    def _dataset(
        self,
        classifier: keras.Model | Adapted,
        x: Any,
        y: Any,
        validation_split: float,
        validation_data: Any,
        convention: Convention | None,
    ) -> Dataset:
        """Arrays as a data set of as many classes as the classifier has."""
        given = classifier.given if isinstance(classifier, Adapted) else classifier
        data = as_dataset(
            x,
            y,
            image_shape=input_shape(given) if isinstance(given, keras.Model) else None,
            validation_split=validation_split,
            validation_data=validation_data,
            seed=self.seed,
        )
        if isinstance(classifier, Adapted):
            model = classifier.classifier
        else:
            model = load_classifier(given, image_shape=data.image_shape, convention=convention)
        logits: Any = model(data.train.scaled(0, 1), training=False)
        names = tuple(map(str, range(max(data.num_classes, logits.shape[-1]))))
        return dataclasses.replace(data, class_names=names)

    def check(self, classifier: keras.Model, data: Dataset) -> None:
        """Refuses, before any training, what :meth:`harden` could not train with these two.

        Raises:
            UserError: as of :meth:`check_data`; the classifier does not fit the data or this
                defence, or is frozen as a whole.
        """
        load_classifier(classifier, image_shape=data.image_shape, num_classes=data.num_classes)
        train_all = getattr(self, "train_all", True)  # without: it does not train the classifier
        if not train_all and not classifier.trainable_weights:
            raise UserError(
                "all layers of the classifier are frozen, so there is nothing to train; choose "
                "train_all=true, or save it with layer.trainable = True for those to be trained"
            )
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

    def unfrozen(self, classifier: keras.Model) -> keras.Model:
        """The classifier to train: itself, or with ``train_all`` a copy without frozen layers."""
        frozen = not all(layer.trainable for layer in all_layers(classifier))
        if not (frozen and getattr(self, "train_all", False)):
            return classifier
        copy = copy_classifier(classifier)
        for layer in all_layers(copy):  # a model that is trainable already would not pass it on
            layer.trainable = True
        return copy

    def without_float16(self, classifier: keras.Model) -> Defense:
        """This defence, in float32 where it would train a classifier in float16."""
        # Its gradients vanish without a scale of the loss, which the trainers do not have.
        half = any(layer.compute_dtype == "float16" for layer in all_layers(classifier))
        if not (half and self.trains_classifier and getattr(self, "dtype", "") is None):
            return self
        note(
            "the classifier computes in float16: it is trained in float32, and returned in float16"
        )
        return dataclasses.replace(self, dtype="float32")

    def trained(self, classifier: keras.Model) -> str:
        """How much of the classifier is trained, in words; ``""`` where it is not."""
        if not self.trains_classifier:
            return ""
        part = trained_part(self.unfrozen(classifier))
        if part.layers == part.all_layers:
            return str(part)
        return f"{part}; the others are frozen, and train_all=true trains them too"

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
