"""DropBlock drops what it says, in blocks, and keeps the mean."""

import numpy as np
import pytest
import torch

from ucadi.learn.networks.dropblock import DropBlock3D


def dropblock(rate: float, seed: int = 0, block_size: int = 5) -> DropBlock3D:
    module = DropBlock3D(block_size)
    module.rate, module.generator = rate, torch.Generator().manual_seed(seed)
    return module.train()


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("shape", [(16, 32, 32), (4, 12, 12)])
def test_share_dropped(rate: float, shape: tuple[int, ...]) -> None:
    x = torch.ones(3_000_000 // int(np.prod(shape)), 1, *shape)
    dropped = (dropblock(rate)(x) == 0).float().mean().item()
    assert dropped == pytest.approx(rate, rel=0.1)


def test_no_voxel_is_dropped_more_often_than_another() -> None:
    module = dropblock(0.2)
    often = (module(torch.ones(20_000, 1, 4, 6, 6)) == 0).float().mean(dim=0)
    assert often.min().item() == pytest.approx(0.2, abs=0.015)
    assert often.max().item() == pytest.approx(0.2, abs=0.015)


def test_mean_of_each_sample_is_kept() -> None:
    y = dropblock(0.3)(torch.ones(50, 2, 16, 32, 32))
    torch.testing.assert_close(y.mean(dim=(2, 3, 4)), torch.ones(50, 2))


def test_expectation_of_each_voxel_is_kept() -> None:
    mean = dropblock(0.2)(torch.ones(4000, 1, 8, 16, 16)).mean(dim=0)
    assert mean.min().item() == pytest.approx(1, abs=0.05)
    assert mean.max().item() == pytest.approx(1, abs=0.05)


def test_drops_whole_blocks_in_all_channels() -> None:
    module = dropblock(0.005)
    for _ in range(200):
        dropped = module(torch.ones(1, 3, 16, 24, 24))[0] == 0
        assert torch.equal(dropped[0], dropped[2])
        if dropped.any():
            places = dropped[0].nonzero()
            extent = places.max(dim=0).values - places.min(dim=0).values + 1
            if dropped[0].sum() == 5**3:
                assert extent.tolist() == [5, 5, 5]
                return
    pytest.fail("never a single block")


def test_a_sample_may_be_dropped_whole() -> None:
    y = dropblock(0.9)(torch.ones(400, 1, 2, 3, 3))
    assert y.isfinite().all()
    assert (y == 0).flatten(1).all(dim=1).any()


def test_depends_on_its_generator_only() -> None:
    x = torch.randn(2, 3, 8, 16, 16)
    first = dropblock(0.2, seed=1)(x)
    torch.manual_seed(99)
    assert torch.equal(first, dropblock(0.2, seed=1)(x))
    assert not torch.equal(first, dropblock(0.2, seed=2)(x))


def test_identity_when_not_training() -> None:
    x = torch.randn(2, 3, 8, 16, 16)
    assert dropblock(0.2).eval()(x) is x
    assert dropblock(0.0)(x) is x
    assert DropBlock3D().train()(x) is x


def test_gradient_is_the_mask() -> None:
    x = torch.ones(1, 1, 8, 16, 16, requires_grad=True)
    y = dropblock(0.2)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
