"""The tensors of each network without torch: the same as torch's, and initial values that are the same everywhere."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ucadi.formats.container import file_digest
from ucadi.learn.networks.architecture import NORMS, Architecture
from ucadi.learn.networks.blueprints import NETWORKS, Blueprint
from ucadi.learn.networks.layout import initial_arrays, layout


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    name = draw(st.sampled_from(NETWORKS.names()))
    blueprint: Blueprint = NETWORKS.load(name)
    stages = draw(st.integers(1, 4)) if blueprint.halved else len(blueprint.blocks)
    blocks = tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)))
    width = draw(st.sampled_from([2, 3, 5, 8, 16]))
    classes = draw(st.integers(2, 6))
    return Architecture(name, width, blocks, slices=16, size=16, classes=classes, norm=draw(st.sampled_from(NORMS)))


@given(architectures())
@settings(max_examples=60, deadline=None)
def test_the_tensors_are_those_of_the_network(architecture: Architecture) -> None:
    with torch.device("meta"):
        network = architecture.blueprint.load()(architecture)
    expected = {name: t.shape for name, t in network.state_dict().items() if t.is_floating_point()}
    arrays = initial_arrays(architecture, 0)
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert list(arrays) == sorted(arrays)
    assert sum(layer.parameters for layer in layout(architecture)) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS.names())
def test_the_values_are_those_of_torch_s_own_initialisation(name: str) -> None:
    """To a unit in the last place of the bound: whether torch rounds once or twice depends on the processor."""
    architecture = Architecture.of(name, width=4, size=32)
    slope = 0.2 if name == "densenet3d" else 0.0
    network, generator = architecture.blueprint.load()(architecture), torch.Generator().manual_seed(2**32 + 5)
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=slope, generator=generator)
    arrays = initial_arrays(architecture, 2**32 + 5)
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            bound = math.sqrt(6 / ((1 + slope**2) * module.weight[0].numel()))
            difference = np.abs(arrays[f"{path}.weight"] - module.weight.detach().numpy())
            assert difference.max() <= np.spacing(np.float32(bound)), path


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        (["--seed", "1"], "0558aba640a5e2055bd4931ac846f769df80897715fd4200a8d0d48b122a30c5"),
        (
            ["--seed", "3", "--architecture", "resnet50", "--size", "32", "--width", "8"],
            "5de30a6fe7c97c1cf116404ef8b43f47727987dbc131c67a4f164488bc31ec4d",
        ),
        (
            ["--seed", "3", "--architecture", "xception", "--size", "32", "--width", "8"],
            "36c375579e15499a251358fc73f52b2fdda8f946727d10ee1acac3001dbcfb78",
        ),
        (
            ["--norm", "group", "--size", "32", "--width", "6"],
            "ed6aae2a3e1b10243e6abdd8948aeaa24cc6db32ede06923ed9d08dd73394757",
        ),
    ],
    ids=["densenet3d", "resnet50", "xception", "group"],
)
def test_init_writes_the_same_bytes_everywhere_and_without_torch(
    tmp_path: Path, options: list[str], digest: str
) -> None:
    path = tmp_path / "global-0.weights"
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'ucadi'; from ucadi.cli import main; main()"  # no torch
    )
    subprocess.run([sys.executable, "-c", program, "init", *options, "-o", str(path)], check=True)
    assert file_digest(path) == digest
