"""Auto-PGD is as strong as the versions of ART and torchattacks, on the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.data import load_dataset

torch = pytest.importorskip("torch", reason="needs the `crosscheck` extra")
pytestmark = pytest.mark.crosscheck

# Three or four images: the random starts make about that much of a difference.
POINT = 0.01
norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])


@pytest.fixture(scope="module")
def images_and_labels(network) -> tuple[np.ndarray, np.ndarray]:
    test = load_dataset("digits").test
    return test.scaled(), test.labels.astype(np.int64)


@pytest.fixture(scope="module")
def in_torch(network):
    """The fixture's network in PyTorch: the same logits, from NCHW images."""
    convolution, dense = (layer for layer in network[0].layers if layer.weights)
    kernel, bias = convolution.get_weights()
    matrix, offset = dense.get_weights()

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(1, len(bias), 3)
            self.dense = torch.nn.Linear(*matrix.shape)
            own = (self.convolution.weight, self.convolution.bias)
            own += (self.dense.weight, self.dense.bias)
            for weights, values in zip(
                own, (kernel.transpose(3, 2, 0, 1), bias, matrix.T, offset), strict=True
            ):
                weights.data = torch.tensor(values.copy())

        def forward(self, images):
            # Keras flattens NHWC.
            hidden = torch.relu(self.convolution(images)).permute(0, 2, 3, 1)
            return self.dense(hidden.flatten(1))

    return Network().eval()


def _nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _accuracy(network, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((network(torch.tensor(images)).argmax(1).numpy() == labels).mean())


def _ours(network: keras.Model, images: np.ndarray, labels: np.ndarray, attack: APGD) -> float:
    found = attack(network, images, labels).robust_accuracy
    assert 0.1 < found < 0.9
    return found


def test_both_networks_are_one(network, in_torch, images_and_labels):
    images, _ = images_and_labels
    with torch.no_grad():
        theirs = in_torch(torch.tensor(_nchw(images))).numpy()
    np.testing.assert_allclose(network[0](images), theirs, atol=1e-4)


@norms
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted dlr"])
def test_robust_accuracy_is_that_of_torchattacks(
    network, in_torch, images_and_labels, norm, eps, loss
):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = images_and_labels
    settings = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps, "steps": 50}
    if targeted := loss == "targeted dlr":
        images, labels = images[:150], labels[:150]  # nine rounds
        attack = torchattacks.APGDT(in_torch, **settings)
    else:
        attack = torchattacks.APGD(in_torch, loss=loss, **settings)
    found = attack(torch.tensor(_nchw(images)), torch.tensor(labels)).detach().numpy()
    theirs = _accuracy(in_torch, found, labels)
    ours = APGD(eps, norm=norm, loss=loss.split()[-1], targeted=targeted, steps=50)
    assert _ours(network[0], images, labels, ours) == pytest.approx(theirs, abs=POINT)


@norms
def test_robust_accuracy_is_that_of_art(network, in_torch, images_and_labels, norm, eps):
    pytest.importorskip("art")
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    images, labels = images_and_labels
    ours = _ours(network[0], images, labels, APGD(eps, norm=norm))
    classifier = PyTorchClassifier(
        in_torch,
        torch.nn.CrossEntropyLoss(),
        _nchw(images).shape[1:],
        10,
        clip_values=(0.0, 1.0),
    )
    attack = AutoProjectedGradientDescent(
        classifier,
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=2 * eps,
        nb_random_init=1,
        batch_size=512,
        loss_type="cross_entropy",
        verbose=False,
    )
    theirs = _accuracy(in_torch, attack.generate(_nchw(images), labels), labels)
    assert ours == pytest.approx(theirs, abs=POINT)
