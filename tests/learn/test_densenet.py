"""The network is the published one, and it is built the same every time."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from ucadi.errors import FormatError
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.densenet import DenseBlock, DenseNet3D, TransmitBlock
from ucadi.learn.networks.registry import build, state_arrays

TINY = Architecture(width=4, slices=8, size=16)


def test_size_and_work_are_the_published_ones() -> None:
    """Supplementary Tables 6 and 7: 0.73 M parameters, 143.5 GFLOP (two a multiply-add)."""
    with torch.device("meta"):  # shapes only: nothing is computed
        model = DenseNet3D(Architecture())
        assert sum(p.numel() for p in model.parameters()) == 726_972

        work: list[int] = []

        def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            assert isinstance(module, nn.Conv3d | nn.Linear)
            assert module.bias is not None
            work.append(output.numel() * (module.weight[0].numel() + 1))  # one for the bias
            del inputs

        for module in model.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                module.register_forward_hook(count)
        model(torch.empty(1, 1, 16, 128, 128))
    assert len(work) == 15 + 1
    assert sum(work) == 71_727_841_764
    assert f"{sum(work) / 1e9:.1f}" == "71.7"
    assert 2 * sum(work) / 1e9 == pytest.approx(143.5, abs=0.05)


def test_shapes_along_the_way() -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        model = DenseNet3D(Architecture())
        for name, block in model.blocks.named_children():
            assert isinstance(block, DenseBlock | TransmitBlock)
            block.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
        features = model.features(torch.empty(2, 1, 16, 128, 128))
        assert model.classify(features).shape == (2, 4)
    assert shapes == {
        "dense1_1": (64, 16, 128, 128),
        "dense1_2": (96, 16, 128, 128),
        "transmit1": (48, 8, 64, 64),
        "dense2_1": (80, 8, 64, 64),
        "dense2_2": (112, 8, 64, 64),
        "transmit2": (56, 4, 32, 32),
        "dense3_1": (88, 4, 32, 32),
        "dense3_2": (120, 4, 32, 32),
    }
    assert features.shape == (2, 120, 4, 32, 32)


def test_a_seed_gives_the_same_bits_whatever_the_global_generator() -> None:
    torch.manual_seed(1)
    first, position = state_arrays(build(TINY, 7)), torch.get_rng_state()
    torch.manual_seed(2)
    second, other = state_arrays(build(TINY, 7)), state_arrays(build(TINY, 8))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert not np.array_equal(first["conv.weight"], other["conv.weight"])
    torch.manual_seed(1)
    assert torch.equal(position, torch.get_rng_state()), "building moved the global generator"


def test_initialisation_is_he_s() -> None:
    """Variance 2 / ((1 + slope²) fan-in), uniform, and no bias; the variance of the features then neither
    dies nor explodes."""
    model = build(Architecture(width=16), 0)
    block = model.blocks.get_submodule("dense3_2")
    assert isinstance(block, DenseBlock)
    weight = block.conv2.weight.detach()
    assert weight.var().item() == pytest.approx(2 / ((1 + 0.2**2) * 64 * 27), rel=0.03)
    assert weight.abs().max().item() <= (3 * 2 / ((1 + 0.2**2) * 64 * 27)) ** 0.5
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("width", [2, 4, 8])
def test_small_widths(width: int) -> None:
    model = build(Architecture(width=width, slices=4, size=12), 0)
    assert model(torch.zeros(2, 1, 4, 12, 12)).shape == (2, 4)


def test_architecture_goes_through_json() -> None:
    again = Architecture(**json.loads(json.dumps(dataclasses.asdict(TINY))))
    assert again == TINY
    assert hash(again) == hash(TINY)


@pytest.mark.parametrize("change", [{"width": 0}, {"blocks": ()}, {"blocks": (2, 0)}, {"size": 2}, {"classes": 1}])
def test_impossible_architectures(change: dict[str, object]) -> None:
    with pytest.raises(FormatError, match=next(iter(change))):
        Architecture(**change)  # type: ignore[arg-type]


def test_unknown_architecture() -> None:
    with pytest.raises(FormatError, match="resnet9"):
        Architecture(name="resnet9")
