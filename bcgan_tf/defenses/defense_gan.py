"""Defense-GAN: before it is classified, an image is replaced by the nearest one of a generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import keras

from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense, StageCallbacks, copy_classifier
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.keras_graph import clone_with_dtype
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.models.reconstruction import Reconstruction
from bcgan_tf.models.wgan_gp import WGANGP
from bcgan_tf.networks.wgan import wgan_critic, wgan_generator
from bcgan_tf.settings.kinds import (
    Batch,
    BelowOne,
    Dtype,
    Epochs,
    LatentDim,
    LearningRate,
    Repeats,
    SearchLearningRate,
    Steps,
    Weight,
    Width,
)
from bcgan_tf.training.fit import fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class DefenseGANTraining(Defense):
    """Defense-GAN (Samangouei et al. 2018): project every image on the range of a WGAN-GP.

    The classifier itself is not trained further. What :meth:`harden` returns is a
    :class:`DefenseGANClassifier`: a Keras model like any other, but stochastic, ``steps *
    restarts`` times as slow as the generator's gradient, and saved with its generator.

    Args:
        steps: L, gradient steps of each search; the BCGAN paper has 12000, Defense-GAN's 200.
        restarts: R, searches per image, of which the best counts.
        search_learning_rate: of the search.
        momentum: of the search.
        decay: lower the search's learning rate tenfold for its last fifth.
        bpda: whether the defended classifier has a gradient, see :class:`Reconstruction`.
        gan_epochs: epochs of GAN training. The reference trains for 200,000 generator steps, 926
            epochs of MNIST.
        gan_batch_size: global number of real images in one update of the critic.
        gan_learning_rate: of both Adams (0.5, 0.9).
        critic_steps: updates of the critic per update of the generator.
        penalty: weight of the gradient penalty.
        latent_dim: size of ``z``.
        generator_width: factor on the generator's channels.
        critic_width: factor on the critic's channels.
        dtype: a Keras dtype policy to train the GAN in, such as ``"mixed_bfloat16"``; the search
            is in float32.

    Example:
        >>> defended = DefenseGANTraining(gan_epochs=30).harden(classifier, bcgan_tf.load("mnist"))
    """

    name: ClassVar[str] = "defense-gan"
    stage_titles: ClassVar[Mapping[str, str]] = {"defense-gan": "GAN of the real images"}
    trains_classifier: ClassVar[bool] = False

    steps: Steps = 200
    restarts: Repeats = 10
    search_learning_rate: SearchLearningRate = 10.0
    momentum: BelowOne = 0.7
    decay: bool = True
    bpda: bool = True
    gan_epochs: Epochs = 30
    gan_batch_size: Batch = 50
    gan_learning_rate: LearningRate = 1e-4
    critic_steps: Repeats = 5
    penalty: Weight = 10.0
    latent_dim: LatentDim = 128
    generator_width: Width = 1.0
    critic_width: Width = 1.0
    dtype: Dtype | None = None

    def batch_sizes(self) -> tuple[int, ...]:
        """Of a critic's update, and of all that one step reads; see :meth:`Defense.batch_sizes`."""
        return (self.gan_batch_size, self.gan_batch_size * self.critic_steps)

    def run(
        self,
        classifier: keras.Model,
        data: Dataset,
        *,
        directory: Path | None,
        resume: bool,
        callbacks: StageCallbacks,
    ) -> keras.Model:
        """Trains the GAN; see :meth:`Defense.harden`."""
        gan = self.build_gan(data)
        fit(
            gan,
            data.train,
            epochs=self.gan_epochs,
            batch_size=self.gan_batch_size * self.critic_steps,
            seed=self.seed,
            directory=directory / self.name if directory is not None else None,
            resume=resume,
            callbacks=callbacks(self.name),
        )
        # Copies, outside the strategy's scope: the training's mirrored variables end here.
        generator = clone_with_dtype(gan.generator, "float32")
        return self.defended(copy_classifier(classifier), generator)

    def build_gan(self, data: Dataset) -> WGANGP:
        """The compiled, untrained GAN."""
        chosen = strategy(self.devices)
        check_batch_size(self.gan_batch_size, chosen)
        shape = data.image_shape
        with scope(chosen):
            gan = WGANGP(
                wgan_generator(
                    shape,
                    latent_dim=self.latent_dim,
                    width=self.generator_width,
                    seed=self.seed,
                    dtype=self.dtype,
                ),
                wgan_critic(shape, width=self.critic_width, seed=self.seed, dtype=self.dtype),
                penalty=self.penalty,
                critic_steps=self.critic_steps,
                seed=self.seed,
            )
            gan.compile(
                *(
                    keras.optimizers.Adam(self.gan_learning_rate, beta_1=0.5, beta_2=0.9)
                    for _ in range(2)
                )
            )
        return gan

    def defended(self, classifier: keras.Model, generator: keras.Model) -> DefenseGANClassifier:
        """The classifier behind the search in a generator that is already there."""
        search = Reconstruction(
            generator,
            steps=self.steps,
            restarts=self.restarts,
            learning_rate=self.search_learning_rate,
            momentum=self.momentum,
            decay=self.decay,
            bpda=self.bpda,
        )
        return DefenseGANClassifier(classifier, search)
