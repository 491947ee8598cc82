"""A network as other programs run it: ONNX and TorchScript, from slabs (N, 1, 16, H, W) to probabilities (N, 4).

Nothing in these files names the machine that made them: what torch notes of its source files is left out.
"""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.errors import CapacityError
from ucadi.learn.networks.classifier import Classifier

INPUT, OUTPUT = "slabs", "probabilities"
"""Names in an ONNX file."""

TOLERANCE = 1e-4
"""Largest difference of a probability that a check lets pass: far more than rounding, far less than a mistake."""


class Diagnosing(nn.Module):
    """A network with the softmax that it is evaluated with."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, slabs: Tensor) -> Tensor:
        logits: Tensor = self.model(slabs)
        return logits.softmax(dim=1)


def to_onnx(model: Classifier) -> bytes:
    """The network as an ONNX file; the number of slabs is free."""
    import onnxscript  # noqa: F401 - torch needs it, and would say so only after some seconds

    whole = _ready(model)
    with _quiet():
        made = torch.onnx.export(
            whole,
            (_example(model, 2),),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
        )
    assert made is not None
    proto = made.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.functions, proto.graph):
        del part.metadata_props[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def to_torchscript(model: Classifier) -> bytes:
    """The network as a TorchScript file."""
    buffer, plain = io.BytesIO(), io.BytesIO()
    with _quiet():
        torch.jit.save(torch.jit.trace(_ready(model), (_example(model, 2),)), buffer)  # type: ignore[no-untyped-call]
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as kept:
        for entry in written.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # paths of source files
                kept.writestr(zipfile.ZipInfo(entry.filename), written.read(entry))
    return plain.getvalue()


def check_onnx(model: Classifier, data: bytes) -> float:
    """The largest difference between the probabilities of ONNX Runtime and ours; CapacityError beyond TOLERANCE."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return _compared(model, lambda slabs: session.run([OUTPUT], {INPUT: slabs})[0])


def check_torchscript(model: Classifier, data: bytes) -> float:
    """The same of what TorchScript reads back."""
    with _quiet():
        loaded = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]

    def run(slabs: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = loaded(torch.from_numpy(slabs)).numpy()
        return probabilities

    return _compared(model, run)


def _compared(model: Classifier, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> float:
    whole, largest = _ready(model), 0.0
    for count in (1, 3):  # other numbers of slabs than it was made with
        slabs = _example(model, count)
        with torch.inference_mode():
            expected = whole(slabs).numpy()
        largest = max(largest, float(np.abs(run(slabs.numpy()) - expected).max()))
    if not largest <= TOLERANCE:  # NaN is no less
        raise CapacityError(
            f"the exported network's probabilities differ by {largest:.2g}",
            hint="another release of torch or of the runtime may do better",
        )
    return largest


def _ready(model: Classifier) -> Diagnosing:
    return Diagnosing(model.cpu().to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]


def _example(model: Classifier, count: int) -> Tensor:
    a = model.architecture
    generator = torch.Generator().manual_seed(count)
    return torch.randn((count, 1, a.slices, a.size, a.size), generator=generator)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own plans for these formats, and of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
