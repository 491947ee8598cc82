"""Networks for other programs and faster engines say what the network itself says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from places import ROOT

from ucadi.commands.apply import apply
from ucadi.commands.export import export
from ucadi.commands.init import init
from ucadi.commands.predict import predict
from ucadi.commands.train import train
from ucadi.errors import CapacityError, OutputError, UsageError
from ucadi.formats import predictions as predictions_format
from ucadi.formats import weights as weights_format
from ucadi.learn import engines
from ucadi.learn.export import check_onnx, check_torchscript, to_onnx, to_torchscript
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import restore

NETWORKS = {"densenet3d": "1,2", "resnet50": "1,1,1,1", "xception": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and of each network weights that have been trained: norms with statistics, decided answers."""
    folder = tmp_path_factory.mktemp("export")
    write_dataset(folder / "a.h5", LABELS * 4)
    for name, blocks in NETWORKS.items():
        base, update = folder / f"{name}-0.weights", folder / f"{name}.update"
        init(output=base, architecture=name, width=8, blocks=blocks, size=16)
        train(
            folder / "a.h5", base=base, site="a", output=update,
            settings=to_set(batch_size=8, total_epochs=4, local_epochs=4, warmup_epochs=0, learning_rate=0.05),
        )  # fmt: skip
        apply(base, update, output=folder / f"{name}.weights")
    return folder


def network(folder: Path, name: str) -> Classifier:
    weights = weights_format.read(folder / f"{name}.weights")
    return restore(weights.architecture, weights.arrays).eval()


def slabs(count: int) -> torch.Tensor:
    return torch.randn((count, 1, 16, 16, 16), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_and_torchscript(folder: Path, tmp_path: Path, name: str) -> None:
    weights = folder / f"{name}.weights"
    for output in ("a.onnx", "a.pt"):
        result = export(weights, output=tmp_path / output)
        assert result.difference <= 1e-5
    with torch.inference_mode():
        expected = network(folder, name)(slabs(5)).softmax(dim=1).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (found,) = session.run(["probabilities"], {"slabs": slabs(5).numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for output in ("a.onnx", "a.pt"):
        data = (tmp_path / output).read_bytes()
        assert str(ROOT).encode() not in data
        assert b".py" not in data.replace(b".pytorch", b"") or output == "a.pt"
    again = export(weights, output=tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert again.format == "onnx"


def test_a_file_that_says_something_else_is_found_out(folder: Path) -> None:
    one, other = network(folder, "densenet3d"), network(folder, "densenet3d")
    with torch.no_grad():
        other.classifier.bias[2] += 0.01
    with pytest.raises(CapacityError, match="differ by"):
        check_onnx(one, to_onnx(other))
    with pytest.raises(CapacityError, match="differ by"):
        check_torchscript(one, to_torchscript(other))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("engine", [engines.folded, engines.openvino])
def test_fast_engines_change_no_probability_by_more_than_a_hundredth(folder: Path, name: str, engine: object) -> None:
    model = network(folder, name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    run = engine(model)  # type: ignore[operator]
    for count in (5, 1):
        with torch.inference_mode():
            expected, found = engines.exact(model)(slabs(count)), run(slabs(count))
        assert found.shape == (count, 4)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max().item() <= 0.01
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_folding_leaves_out_the_norms_after_convolutions(folder: Path) -> None:
    model = network(folder, "densenet3d")

    def norms(one: torch.nn.Module) -> int:
        return sum(isinstance(module, torch.nn.BatchNorm3d) for module in one.modules())

    # each of the three dense blocks has one that follows a convolution, and there is the first
    assert (norms(model), norms(engines.without_following_norms(model))) == (9, 5)


def test_predictions_fast_and_exact(folder: Path, tmp_path: Path) -> None:
    weights = folder / "densenet3d.weights"
    for fast in (False, True):
        predict(folder / "a.h5", model=[weights], output=tmp_path / f"{fast}.predictions", fast=fast)
    exact, fast_ones = (predictions_format.read(tmp_path / f"{fast}.predictions") for fast in (False, True))
    assert np.abs(exact.probabilities - fast_ones.probabilities).max() <= 0.01
    np.testing.assert_allclose(fast_ones.probabilities.sum(axis=2), 1, atol=1e-3)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    weights = folder / "densenet3d.weights"
    with pytest.raises(UsageError, match=r"no format '\.h5'"):
        export(weights, output=tmp_path / "a.h5")
    with pytest.raises(UsageError, match="no format 'tflite'"):
        export(weights, output=tmp_path / "a.onnx", format="tflite")
    (tmp_path / "a.onnx").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        export(weights, output=tmp_path / "a.onnx")
