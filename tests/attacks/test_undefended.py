"""The positive control: the attacks break networks that nobody defended."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import FGSM, PGD, CarliniWagnerL2
from bcgan_tf.networks.classifiers import small_cnn


def test_pgd_breaks_the_digits_network(digits_cnn):
    data = digits_cnn.model, digits_cnn.images, digits_cnn.labels
    fgsm, pgd = FGSM(0.3)(*data), PGD(0.3)(*data)
    assert pgd.clean_accuracy >= 0.95
    assert pgd.robust_accuracy <= 0.01
    assert pgd.robust_accuracy <= fgsm.robust_accuracy
    small, middle = (PGD(eps)(*data).robust_accuracy for eps in (0.02, 0.1))
    assert small > middle >= pgd.robust_accuracy


def test_carlini_wagner_breaks_all_of_the_digits_network_with_small_changes(digits_cnn):
    data = digits_cnn.model, digits_cnn.images[:40], digits_cnn.labels[:40]
    cw = CarliniWagnerL2(steps=150, learning_rate=0.05)(*data)
    assert cw.success_rate == 1
    assert np.isfinite(cw.l2).all() and (cw.l2[cw.success] > 1e-3).all()
    # A minimum-norm attack needs no more than a fixed radius that breaks nearly all.
    pgd = PGD(1.5, norm="l2", steps=100)(*data)
    both = cw.success & pgd.success
    assert both.sum() > 32 and (cw.l2[both] <= pgd.l2[both] + 1e-4).mean() > 0.99
    # Half of the distance found is not enough for PGD: the distance means something.
    half = PGD(float(np.median(cw.l2[cw.success]) / 2), norm="l2", steps=100)(*data)
    assert half.success_rate < 0.2


@pytest.mark.real_data
def test_real_mnist(mnist):
    model = small_cnn(mnist.image_shape, mnist.num_classes, seed=0)
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    train, test = mnist.train, mnist.test
    images, labels = train.scaled(0, 4000), train.labels[:4000]
    model.fit(images, labels, batch_size=50, epochs=1, verbose=0, shuffle=False)
    images, labels = test.scaled(0, 60), test.labels[:60]
    pgd = PGD(0.3)(model, images, labels)
    assert pgd.clean_accuracy >= 0.9 and pgd.robust_accuracy <= 0.01
    cw = CarliniWagnerL2(steps=120, learning_rate=0.05)(model, images[:8], labels[:8])
    assert cw.success_rate == 1
    assert 0.3 < cw.l2[cw.success].mean() < 3.5
