"""The paper's baselines: their sizes, their shapes, that they train, and that no other weights get into them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from safetensors.numpy import save_file
from torch import nn

from ucadi.commands.apply import apply
from ucadi.commands.gradcam import gradcam
from ucadi.commands.init import init
from ucadi.commands.predict import predict
from ucadi.commands.train import train
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.fixedpoint import is_norm
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.learn.bfloat16 import keep_right
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build, restore, state_arrays

BASELINES = ("resnet50", "resnet101", "xception")
TINY = {"resnet50": (1, 1, 1, 1), "resnet101": (1, 1, 2, 1), "xception": (1,)}


@pytest.mark.parametrize(
    ("name", "parameters", "published", "giga", "published_giga"),
    [
        ("resnet50", 46_163_268, 46.16, 20.27, 20.32),
        ("resnet101", 85_209_412, 85.21, 30.25, 30.31),
        ("xception", 21_266_876, 22.43, 9.44, 35.19),
    ],
)
def test_sizes_beside_the_papers(
    name: str, parameters: int, published: float, giga: float, published_giga: float
) -> None:
    """Supplementary Tables 6 and 7; what of Xception is larger there is not said."""
    work: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv3d | nn.Linear)
        work.append(output.numel() * module.weight[0].numel())
        del inputs

    with torch.device("meta"):
        architecture = Architecture.of(name)
        model = architecture.blueprint.load()(architecture)
        assert sum(p.numel() for p in model.parameters()) == parameters
        for module in model.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                module.register_forward_hook(count)
        features = model.features(torch.empty(2, 1, 16, 128, 128))
        assert features.shape == (2, 2048, 1, 4, 4)
        assert model.classify(features).shape == (2, 4)
    assert sum(work) / 1e9 == pytest.approx(giga, abs=0.005)  # two samples, and two operations a multiply-add
    if name != "xception":
        assert f"{parameters / 1e6:.2f}" == f"{published:.2f}"
        assert giga == pytest.approx(published_giga, rel=0.005)
    else:
        assert parameters / 1e6 == pytest.approx(published, rel=0.06)


@pytest.mark.parametrize("name", ["densenet3d", *BASELINES])
@pytest.mark.parametrize("size", [16, 24])
def test_gradients_in_bfloat16_are_about_those_in_float32(name: str, size: int) -> None:
    """Down to inputs that the last stages see as single voxels, of which torch's bfloat16 kernels have made garbage.

    What a processor cannot compute right is kept in float32 (see test_bfloat16), as it is in training.
    """
    torch.manual_seed(0)
    slabs, labels = torch.randn(8, 1, 16, size, size), torch.arange(8) % 4
    found = []
    for enabled in (False, True):
        model = build(Architecture.of(name, width=8, blocks=TINY.get(name), size=size), 0)
        if enabled:
            keep_right(model, slabs)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = nn.functional.cross_entropy(model(slabs).float(), labels)
        loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    largest = max(float(gradient.abs().max()) for gradient in found[0].values())
    for parameter, gradient in found[1].items():
        assert float(gradient.abs().max()) < 3 * largest, parameter


@pytest.mark.parametrize("name", BASELINES)
def test_from_initial_weights_to_a_heatmap(tmp_path: Path, name: str) -> None:
    write_dataset(tmp_path / "a.h5", LABELS * 2)
    base, model = tmp_path / "base.weights", tmp_path / "a.weights"
    blocks = ",".join(map(str, TINY[name]))
    init(output=base, architecture=name, width=4, blocks=blocks, size=16)
    before = weights_format.read(base)
    assert before.architecture["name"] == name
    network = build(Architecture.parse(before.architecture), 0)
    assert all(np.array_equal(before.arrays[n], a) for n, a in state_arrays(network).items())
    of_norms = {
        f"{module}.{tensor}"
        for module, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm3d)
        for tensor in layer.state_dict()
    }
    assert of_norms == {tensor for tensor in network.state_dict() if is_norm(tensor)}
    for output in ("one", "two"):
        train(
            tmp_path / "a.h5",
            base=base,
            site="a",
            output=tmp_path / output,
            settings=to_set(batch_size=4, total_epochs=2),
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    apply(base, tmp_path / "one", output=model)
    predict(tmp_path / "a.h5", model=[model], output=tmp_path / "a.predictions")
    gradcam(tmp_path / "a.h5", model=model, case=f"{1:016x}", output=tmp_path / "heatmap")


@pytest.mark.parametrize("name", BASELINES)
def test_a_group_norm_in_every_network(name: str) -> None:
    model = build(Architecture.of(name, width=4, blocks=TINY[name], size=16, norm="group"), 0)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in model.modules())
    assert model(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 4)


# Other weights


def test_weights_of_another_architecture() -> None:
    dense = build(Architecture(width=4, size=16), 0)
    described = Architecture.of("resnet50", width=4, blocks=TINY["resnet50"], size=16).description()
    with pytest.raises(MismatchError, match=r"the weights do not fit the network: .*is missing.*more") as caught:
        restore(described, state_arrays(dense))
    assert "architecture" in (caught.value.hint or "")
    deeper = Architecture(width=4, blocks=(2, 2, 3), size=16).description()
    with pytest.raises(MismatchError, match=r"dense3_3.conv1.bias is missing"):
        restore(deeper, state_arrays(dense))


def torch_file(path: Path) -> None:
    torch.save({"features.conv0.weight": torch.zeros(64, 1, 7, 7, 7)}, path)


def old_torch_file(path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def pickle_file(path: Path) -> None:
    path.write_bytes(pickle.dumps({"conv1.weight": [0.0]}))


def safetensors_file(path: Path) -> None:
    save_file({"features.conv0.weight": np.zeros((64, 1, 7, 7, 7), np.float32)}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch_file, "is a PyTorch file, not weights"),
        (old_torch_file, "a pickle"),
        (pickle_file, "a pickle"),
        (safetensors_file, "is a safetensors file of another program"),
    ],
)
def test_state_dicts_of_other_programs_are_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "densenet121.pt"
    make(path)  # type: ignore[operator]
    with pytest.raises(FormatError, match=message) as caught:
        weights_format.read(path)
    assert "ucadi init" in (caught.value.hint or "")


def test_a_state_dict_dressed_up_as_weights_is_not_half_loaded(tmp_path: Path) -> None:
    """MONAI's names for a DenseNet, in a file that says it is ours."""
    dressed = Weights(
        {"features.conv0.weight": np.zeros((4, 1, 3, 3, 3), np.float32)}, Architecture().description(), {}
    )
    weights_format.write(tmp_path / "x.weights", dressed)
    held = weights_format.read(tmp_path / "x.weights")
    with pytest.raises(MismatchError, match=r"features.conv0.weight is unknown|is missing"):
        restore(held.architecture, held.arrays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "resnet18"}, "name is 'resnet18'"),
        ({"architecture": "resnet50", "blocks": "1,2"}, "resnet50 has 4 stages"),
        ({"blocks": "2,x"}, "whole numbers"),
        ({"blocks": "2,0,2"}, r"blocks is \(2, 0, 2\)"),
        ({"norm": "layer"}, "norm is 'layer'"),
    ],
)
def test_impossible_networks(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises((FormatError, UsageError), match=message):
        init(output=tmp_path / "x", **options)  # type: ignore[arg-type]
