"""Gradients of whole networks against finite differences, in float64 and in training mode, batch norm and all."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build

NETWORKS = {
    "densenet3d": Architecture(width=2, blocks=(1, 1), slices=4, size=6),
    "densenet3d, group norm": Architecture(width=2, blocks=(1, 1), slices=4, size=6, norm="group"),
    "resnet50": Architecture.of("resnet50", width=2, blocks=(1, 1, 1, 1), slices=16, size=32),
    "xception": Architecture.of("xception", width=2, blocks=(1,), slices=32, size=32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_against_finite_differences(name: str) -> None:
    """Along random directions through all parameters at once, by central differences."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    model = build(NETWORKS[name], 1).double().train()
    a = model.architecture
    x = torch.randn((3, 1, a.slices, a.size, a.size), generator=generator, dtype=torch.float64)
    y, weights = torch.tensor([0, 2, 3]), torch.tensor([0.2, 0.2, 0.4, 0.2], dtype=torch.float64)

    def loss() -> torch.Tensor:
        model.drop(0.2, torch.Generator().manual_seed(9))  # the same blocks each time
        return functional.cross_entropy(model(x), y, weights)

    model.zero_grad()
    loss().backward()
    parameters = list(model.parameters())
    gradients = [p.grad.clone() for p in parameters if p.grad is not None]
    assert len(gradients) == len(parameters)
    step = 1e-7
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        with torch.no_grad():
            values = []
            for sign in (1, -2, 1):  # there, to the other side, and back
                for p, d in zip(parameters, direction, strict=True):
                    p += sign * step * d
                values.append(float(loss()))
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-6)
