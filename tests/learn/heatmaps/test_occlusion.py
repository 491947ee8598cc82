"""Occlusion against a computation with loops, and randomised networks: what of the weights is lost, and when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.errors import FormatError, MismatchError
from ucadi.learn.heatmaps.gradcam import activation_maps
from ucadi.learn.heatmaps.occlusion import occlusion
from ucadi.learn.heatmaps.randomisation import cascade
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import build

TINY = Architecture(width=4, slices=8, size=24)
PLACE = np.s_[3:5, 10:14, 4:9]


class Sum(Classifier):
    """Sees a diagnosis in one place only: logit 2 is what lies there."""

    def __init__(self) -> None:
        super().__init__(TINY)
        self.classifier = nn.Linear(1, 4)

    def features(self, x: Tensor) -> Tensor:
        return x

    def classify(self, features: Tensor) -> Tensor:
        logits = torch.zeros(len(features), 4)
        logits[:, 2] = features[(slice(None), 0, *PLACE)].sum(dim=(1, 2, 3))
        return logits


def slabs(repeats: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((repeats, 1, 8, 24, 24)).astype(np.float32) + 1


def test_losses_by_loops() -> None:
    """Boxes of 4 slices and 4 x 4 pixels, from one to the next 4 and 2 and 2."""
    slab = slabs(1)
    losses, covers = np.zeros((8, 24, 24)), np.zeros((8, 24, 24))
    for z in (0, 4):
        for y in range(0, 21, 2):
            for x in range(0, 21, 2):
                covered = slab[0, 0].astype(float).copy()
                covered[z : z + 4, y : y + 4, x : x + 4] = 0.25
                losses[z : z + 4, y : y + 4, x : x + 4] += slab[0, 0][PLACE].sum() - covered[PLACE].sum()
                covers[z : z + 4, y : y + 4, x : x + 4] += 1
    expected = losses / covers
    heatmaps = occlusion(Sum(), slab, 2, fill=np.array([0.25], np.float32))
    assert heatmaps.maxima[0] == pytest.approx(expected.max(), rel=1e-4)
    np.testing.assert_allclose(heatmaps.values[0], expected / expected.max(), atol=1e-4)
    assert not heatmaps.values[0][:, :, 14:].any()


def test_where_covering_helps_the_map_is_cold() -> None:
    heatmaps = occlusion(Sum(), slabs(), 2, fill=np.array([9.0, 0.0], np.float32))
    assert not heatmaps.values[0].any()
    assert heatmaps.values[1].max() == pytest.approx(1)
    assert not occlusion(Sum(), slabs(), 1, fill=np.zeros(2, np.float32)).values.any()


def test_what_does_not_fit_is_refused() -> None:
    model = build(TINY, 0)
    with pytest.raises(MismatchError, match="no diagnosis 4"):
        occlusion(model, slabs(), 4, fill=np.zeros(2, np.float32))
    with pytest.raises(MismatchError, match="fill"):
        occlusion(model, slabs(), 1, fill=np.zeros(3, np.float32))
    with pytest.raises(FormatError):
        occlusion(model, slabs() * np.nan, 1, fill=np.zeros(2, np.float32))


def test_cascade_loses_layers_from_the_last_to_the_first() -> None:
    model, fresh = build(TINY, 0).eval(), build(TINY, 7).state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lost: set[str] = set()
    names = []
    for name, network in cascade(model, seed=7):
        names.append(name)
        lost |= {key for key in before if key.startswith(f"{name}.")}
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, fresh[key] if key in lost else before[key]), key
    assert names[0] == "classifier"
    assert names[-1] == "conv"
    assert lost == set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_lost_network_shows_another_map() -> None:
    model = build(TINY, 0).eval()
    *_, (_, last) = cascade(model, seed=7)
    x = torch.randn(2, 1, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    one, other = (activation_maps(network, x, 1).numpy() for network in (model, last))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5
