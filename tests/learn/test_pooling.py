"""Max pooling with gradients in a fixed order: torch's own, to the last bit where sums have one order only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ucadi.learn.networks.pooling import MaxPool, OrderedMaxPool


@given(st.tuples(*[st.integers(1, 9)] * 3), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_torch(extent: tuple[int, int, int], ties: bool, seed: int) -> None:
    """With gradients that are whole numbers, whose sums do not depend on their order. Ties are common after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, *extent, generator=generator)
    x = (x.round() if ties else x).requires_grad_()
    expected = functional.max_pool3d(x, 3, 2, 1)
    wanted = torch.randint(-99, 99, expected.shape, generator=generator).float()
    (reference,) = torch.autograd.grad(expected, x, wanted)
    found = OrderedMaxPool.apply(x)
    (gradient,) = torch.autograd.grad(found, x, wanted)
    assert torch.equal(found, expected)
    assert torch.equal(gradient, reference)


def test_on_a_cpu_it_is_torch_s_own() -> None:
    x = torch.randn(1, 2, 5, 6, 7)
    assert torch.equal(MaxPool()(x), functional.max_pool3d(x, 3, 2, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_bits_again() -> None:
    x = torch.randn(8, 64, 16, 64, 64, device="cuda", requires_grad=True)
    y = MaxPool()(x)
    wanted = torch.randn_like(y)
    first, second = (torch.autograd.grad(y, x, wanted, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
