"""Which network: what a weights file says of it, as plain numbers, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ucadi.errors import FormatError
from ucadi.learn.networks.blueprints import NETWORKS, Blueprint
from ucadi.settings import check_fields, setting

NORMS = ("batch", "group")


@dataclass(frozen=True)
class Architecture:
    """What it takes to build a network, as plain numbers; the defaults are the paper's 3D-DenseNet.

    `width` is, of the DenseNet, the growth rate, the channels of the first convolution and a quarter of the
    bottleneck; of the others the channels of the first convolution, from which all follow. `blocks` are
    those of each stage (of Xception, of its middle flow). The input is slabs (1, slices, size, size). `norm` is
    "batch", or "group" where samples must not meet in a norm, as in differentially private training.
    FormatError for numbers that make no network.
    """

    name: str = setting("densenet3d", "The network, the paper's by default.", choices=NETWORKS.names())
    width: int = setting(32, "Channels of the first convolution, which sets all others.", least=2, most=1024)
    blocks: tuple[int, ...] = setting((2, 2, 2), "Blocks of each stage.", least=1, most=64, longest=8)
    slices: int = setting(16, "Slices of the input.", least=1, most=1024)
    size: int = setting(128, "Rows and columns of the input; the paper's network has 128.", least=1, most=4096)
    classes: int = setting(4, "Classes to tell apart.", least=2, most=1000)
    norm: str = setting("batch", "Norm of the layers, group for differentially private training.", choices=NORMS)

    def __post_init__(self) -> None:
        check_fields(self, FormatError, "architecture")
        stages = len(self.blueprint.blocks)
        if not self.blueprint.halved:
            if len(self.blocks) != stages:
                raise FormatError(f"architecture: blocks are {len(self.blocks)}, {self.name} has {stages} stages")
            return  # the others pad their strides
        least = 2 ** (len(self.blocks) - 1)
        for name, value in (("slices", self.slices), ("size", self.size)):
            if value < least:
                raise FormatError(
                    f"architecture: {name} is {value}",
                    hint=f"with {len(self.blocks)} blocks it must be {least} or more",
                )

    @property
    def blueprint(self) -> Blueprint:
        """Where the network comes from."""
        found: Blueprint = NETWORKS.load(self.name)
        return found

    @classmethod
    def of(
        cls, name: str, *, width: int | None = None, blocks: tuple[int, ...] | None = None, **others: Any
    ) -> Architecture:
        """The network of that name, as published where nothing else is asked for."""
        published: Blueprint = NETWORKS.load(
            name if name in NETWORKS else "densenet3d"
        )  # an unknown one is refused below
        width = published.width if width is None else width
        return cls(name, width, published.blocks if blocks is None else blocks, **others)

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Architecture:
        """What `description` gave. FormatError for anything else."""
        try:
            return cls(**described)
        except TypeError as error:
            raise FormatError(f"architecture: {error}", hint="the weights come from another release of ucadi") from None

    def description(self) -> dict[str, Any]:
        """As JSON for a weights file. Batch norm is what is meant where no norm is named."""
        described = asdict(self)
        if self.norm == "batch":
            del described["norm"]
        return described
