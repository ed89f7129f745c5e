"""Defense-GAN: before it is classified, an image is replaced by the nearest one of a generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import keras

from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense, StageCallbacks, copy_classifier
from bcgan_tf.distribute.strategies import check_batch_size, scope, strategy
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.models.reconstruction import Reconstruction
from bcgan_tf.models.wgan_gp import WGANGP
from bcgan_tf.networks.copies import clone_with_dtype
from bcgan_tf.networks.wgan import wgan_critic, wgan_generator
from bcgan_tf.settings.defenses import DefenseGANSettings
from bcgan_tf.training.fit import fit


class DefenseGANTraining(DefenseGANSettings, Defense):
    """Defense-GAN (Samangouei et al. 2018): project every image on the range of a WGAN-GP.

    The classifier itself is not trained further. What :meth:`harden` returns is a
    :class:`DefenseGANClassifier`: a Keras model like any other, but stochastic, ``steps *
    restarts`` times as slow as the generator's gradient, and saved with its generator.

    Example:
        >>> defended = DefenseGANTraining(gan_epochs=30).harden(classifier, x_train, y_train)
    """

    stage_titles: ClassVar[Mapping[str, str]] = {"defense-gan": "GAN of the real images"}
    trains_classifier: ClassVar[bool] = False

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
