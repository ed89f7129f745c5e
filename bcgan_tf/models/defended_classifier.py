"""A classifier behind Defense-GAN's search, as one Keras model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bcgan_tf.models.reconstruction import Reconstruction, fixed_starts
from bcgan_tf.progress import Progress


@keras.saving.register_keras_serializable(package="bcgan_tf")
class DefenseGANClassifier(keras.Model):
    """``classifier(reconstruction(images))`` as one Keras model: images in [0, 1] to logits.

    Every call searches anew from its own random starts, so two calls differ: attack it with
    expectation over transformation. Its gradient is that of ``classifier`` at the reconstruction
    (BPDA), unless ``reconstruction.bpda`` is False. A file of it loads once ``bcgan_tf`` has been
    imported.

    Args:
        classifier: images in [0, 1] to logits ``[B, K]``; it is not changed.
        reconstruction: with a generator of the classifier's images.

    Example:
        >>> defended = DefenseGANClassifier(classifier, Reconstruction(gan.generator))
        >>> evaluate(defended, data, suite="rand", eps=0.3)  # white box: BPDA and 20 draws
        >>> found = FGSM(0.3)(classifier, images, labels)  # the paper's way: attack what is behind
        >>> (defended.logits(found.adversarials).argmax(-1) == labels).mean()
    """

    # Seconds for an answer, which `logits` gives again from a seed.
    answers_by_search = True

    def __init__(
        self, classifier: keras.Model, reconstruction: Reconstruction, **kwargs: Any
    ) -> None:
        shape = reconstruction.generator.output_shape[1:]
        images = keras.Input(shape, name="images")
        super().__init__(images, classifier(reconstruction(images)), **kwargs)
        self.classifier = classifier
        self.reconstruction = reconstruction

    def reconstruct(
        self,
        images: np.ndarray,
        *,
        seed: int = 0,
        indices: np.ndarray | None = None,
        batch_size: int = 50,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the classifier gets to see, from starts that can be drawn again.

        Args:
            images: float32 ``[N, H, W, C]`` in [0, 1].
            seed: of the starts; those of an image depend on ``(seed, its index)`` alone.
            indices: int ``[N]``, each image's position in the whole set; None: 0 ... N-1.
            batch_size: images searched for at once, each from ``restarts`` starts.
            progress: called with (images done, images to do, "") after every batch.

        Returns:
            The reconstructions, float32 ``[N, H, W, C]``, and their mean squared errors ``[N]``.
        """
        search = self.reconstruction
        images = np.asarray(images, np.float32)
        positions = np.arange(len(images)) if indices is None else np.asarray(indices)
        found, errors = np.empty_like(images), np.empty(len(images), np.float32)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            starts = fixed_starts(seed, positions[part], search.restarts, search.latent_dim)
            batch: Any = search.search(images[part], starts)
            found[part], errors[part] = (values.numpy() for values in batch)
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images), "")
        return found, errors

    def logits(
        self,
        images: np.ndarray,
        *,
        seed: int = 0,
        indices: np.ndarray | None = None,
        batch_size: int = 50,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Logits float32 ``[N, K]`` of :meth:`reconstruct`'s images: the same at every call."""
        found, _ = self.reconstruct(
            images, seed=seed, indices=indices, batch_size=batch_size, progress=progress
        )
        parts = [
            np.asarray(self.classifier(found[i : i + 500], training=False), np.float32)
            for i in range(0, len(found), 500)
        ]
        classes = self.classifier.output_shape[-1]
        return np.concatenate([np.zeros((0, classes), np.float32), *parts])

    def deterministic_for_serving(
        self, seed: int = 0
    ) -> tuple[DefenseGANClassifier, dict[str, Any]]:
        """A model that answers the same to the same image, and what its card says of that."""
        note = (
            f"Defense-GAN with starting points drawn once (seed {seed}): the served model answers "
            "the same to the same image. The model that was measured draws them at every call; "
            "with fixed ones it is easier to attack."
        )
        return self.with_fixed_starts(seed), {"note": note}

    def with_fixed_starts(self, seed: int = 0) -> DefenseGANClassifier:
        """The same networks behind a search that starts from the same points at every call.

        It answers the same to the same image, as an exported model must, and is the easier to
        attack for it: no expectation is needed.
        """
        config = self.reconstruction.get_config() | {"generator": self.reconstruction.generator}
        search = Reconstruction(**{**config, "name": None, "seed": seed})
        return DefenseGANClassifier(self.classifier, search)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "classifier": serialize(self.classifier),
            "reconstruction": serialize(self.reconstruction),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        for key in ("classifier", "reconstruction"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)
