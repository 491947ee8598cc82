"""ucadi export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output
from ucadi.errors import UsageError
from ucadi.files import refuse_existing, write_file
from ucadi.formats import container
from ucadi.formats import weights as weights_format
from ucadi.kinds import PRIVATE_MODE
from ucadi.parts import Feature, require

FORMATS = ("onnx", "torchscript")


@dataclass(frozen=True)
class ExportResult:
    """The file made, and by how much its probabilities differ at most from the network's own."""

    exported: Path
    format: str
    difference: float
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.exported}: {self.format}, probabilities differ by {self.difference:.1g} at most, "
            f"sha256 {self.digest}"
        )


def export(
    model: Annotated[Path, typer.Argument(help="The weights.")],
    *,
    output: Output,
    format: Annotated[
        str | None, typer.Option(help="onnx or torchscript [default: by the output's name: .onnx, .pt].")
    ] = None,
    force: Force = False,
) -> ExportResult:
    """Write a network for other programs: from standardised slabs (N, 1, 16, H, W) to the four probabilities.

    The file is run once, by ONNX Runtime or TorchScript, and compared with the network before it is written. It is for
    research only, as the network is.

    Example:
        ucadi export base.weights -o base.onnx
    """
    kind = format or {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript"}.get(output.suffix)
    if kind not in FORMATS:
        raise UsageError(f"no format {format or output.suffix!r}", hint=f"--format {' or '.join(FORMATS)}")
    require(Feature.NETWORKS, where={Feature.ONNX: kind == "onnx"})
    from ucadi.learn import export as exporting
    from ucadi.learn.networks.registry import restore

    refuse_existing(output, force=force)
    weights = weights_format.read(model)
    network = restore(weights.architecture, weights.arrays)
    if kind == "onnx":
        data = exporting.to_onnx(network)
        difference = exporting.check_onnx(network, data)
    else:
        data = exporting.to_torchscript(network)
        difference = exporting.check_torchscript(network, data)
    write_file(output, data, force=force, mode=PRIVATE_MODE)
    return ExportResult(output, kind, difference, container.file_digest(output))
