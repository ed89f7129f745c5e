"""FAB finds the distances that its authors' code finds (in torchattacks, on the same weights)."""

from __future__ import annotations

import numpy as np
import pytest

from bcgan_tf.attacks.fab import FAB

torch = pytest.importorskip("torch", reason="needs the `crosscheck` extra")
torchattacks = pytest.importorskip("torchattacks", reason="needs the `crosscheck` extra")
pytestmark = pytest.mark.crosscheck

STEPS, TARGETS = 30, 4
NORMS = {"linf": "Linf", "l2": "L2"}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@pytest.fixture(scope="module")
def theirs(network):
    """The network in PyTorch, the images as [N, C, H, W], and the labels."""
    model, images, labels = network
    _, conv, _, dense = [None, *model.layers]
    kernel, bias = (torch.tensor(np.asarray(weight)) for weight in conv.weights)
    matrix, offset = (torch.tensor(np.asarray(weight)) for weight in dense.weights)

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))  # tells torchattacks the device

        def forward(self, batch):
            hidden = torch.relu(torch.nn.functional.conv2d(batch, kernel.permute(3, 2, 0, 1), bias))
            # Keras flattens rows, columns, channels.
            return hidden.permute(0, 2, 3, 1).flatten(1) @ matrix + offset

    batch = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    twin = Twin().eval()
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(twin(batch).detach().numpy(), expected, rtol=0, atol=1e-4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network only waits for more of them
    yield twin, batch, torch.tensor(labels.astype(np.int64))
    torch.set_num_threads(threads)


def _lengths(found, batch, norm: str) -> np.ndarray:
    change = (found - batch).detach().numpy().reshape(len(batch), -1).astype(np.float64)
    return np.linalg.norm(change, np.inf if norm == "linf" else 2, axis=1)


def _least(theirs, norm: str, targeted: bool) -> np.ndarray:
    """Their distances: targeted, the least of those towards each class (their call stops early)."""
    twin, batch, labels = theirs
    attack = torchattacks.FAB(
        twin, norm=NORMS[norm], eps=100.0, steps=STEPS, multi_targeted=targeted, n_classes=10
    )
    with torch.enable_grad():
        if not targeted:
            return _lengths(attack(batch, labels), batch, norm)
        lengths = []
        for attack.target_class in range(2, 2 + TARGETS):
            found = attack.attack_single_run_targeted(batch, labels)
            wrong = (twin(found).argmax(1) != labels).numpy()
            lengths.append(np.where(wrong, _lengths(found, batch, norm), np.inf))
    return np.min(lengths, axis=0)


@both_norms
@pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])
def test_the_distances_agree(network, theirs, norm, targeted):
    reference = _least(theirs, norm, targeted)
    attack = FAB(None, norm=norm, targeted=targeted, steps=STEPS, target_classes=TARGETS)
    result = attack(*network)
    ours = result.linf if norm == "linf" else result.l2
    assert result.success.all() and np.isfinite(reference).all() and (reference > 0).all()
    # Ours ends with a search on the line to the image, theirs does not: up to 1 % less.
    assert ours.mean() == pytest.approx(reference.mean(), rel=0.02)
    assert (ours <= 1.002 * reference).mean() >= 0.95
    assert np.median(np.abs(ours / reference - 1)) < 0.01
