"""Which network: what a weights file says of it, as plain numbers, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ucadi.errors import FormatError
from ucadi.learn.networks.blueprints import NETWORKS, Blueprint

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

    name: str = "densenet3d"
    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2)
    slices: int = 16
    size: int = 128
    classes: int = 4
    norm: str = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))  # JSON knows lists only
        if self.name not in NETWORKS:
            raise FormatError(
                f"architecture: no network is called {self.name!r:.60}",
                hint=f"there are {', '.join(NETWORKS.names())}; a package may add others",
            )
        if self.norm not in NORMS:
            raise FormatError(f"architecture: no norm is called {self.norm!r}", hint=f"there are {', '.join(NORMS)}")
        stages = len(self.blueprint.blocks)
        if not self.blueprint.halved and len(self.blocks) != stages:
            raise FormatError(f"architecture: blocks are {len(self.blocks)}, {self.name} has {stages} stages")
        halvings = len(self.blocks) - 1 if self.blueprint.halved else 0  # the others pad their strides
        for name, values, least, most in (
            ("width", (self.width,), 2, 1024),
            ("number of blocks", (len(self.blocks),), 1, 8),
            ("blocks", self.blocks, 1, 64),
            ("slices", (self.slices,), 2**halvings, 1024),
            ("size", (self.size,), 2**halvings, 4096),
            ("classes", (self.classes,), 2, 1000),
        ):
            for value in values:
                if type(value) is not int or not least <= value <= most:
                    raise FormatError(
                        f"architecture: {name} is {value!r:.40}",
                        hint=f"it must be a whole number from {least} to {most}",
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
        published: Blueprint = NETWORKS.load(name)
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
