"""The networks by name, without torch. Other packages add theirs to the group `ucadi.networks` of entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from ucadi.plugins import Registry

if TYPE_CHECKING:
    from ucadi.learn.networks.architecture import Architecture
    from ucadi.learn.networks.classifier import Classifier
    from ucadi.learn.networks.layout import Layer


@dataclass(frozen=True)
class Blueprint:
    """A network: its size as published, and where its code stands, as "module:name".

    `network` is a subclass of `Classifier`. `layers` gives an architecture's layers without torch, in the order in
    which their initial weights are drawn; without it they are taken from the network, which needs torch. `slope` is
    the negative slope of its activations, for the initial weights. `halved` networks take any number of stages, each
    of which but the first halves the slab; of the others the number is that of `blocks`.
    """

    network: str
    layers: str | None
    width: int
    blocks: tuple[int, ...]
    slope: float = 0.0
    halved: bool = False

    def load(self) -> type[Classifier]:
        """The network's class; needs torch."""
        found: type[Classifier] = resolve_name(self.network)
        return found

    def load_layers(self) -> Callable[[Architecture], Iterator[Layer]] | None:
        """What gives the layers without torch, if there is such a function."""
        return None if self.layers is None else resolve_name(self.layers)


LEAKY_SLOPE = 0.2
"""Negative slope of the DenseNet's activations."""

_HERE = "ucadi.learn.networks"

DENSENET = Blueprint(
    f"{_HERE}.densenet:DenseNet3D", f"{_HERE}.layout:densenet", 32, (2, 2, 2), slope=LEAKY_SLOPE, halved=True
)
RESNET50 = Blueprint(f"{_HERE}.resnet:ResNet3D", f"{_HERE}.layout:resnet", 64, (3, 4, 6, 3))
RESNET101 = Blueprint(f"{_HERE}.resnet:ResNet3D", f"{_HERE}.layout:resnet", 64, (3, 4, 23, 3))
XCEPTION = Blueprint(f"{_HERE}.xception:Xception3D", f"{_HERE}.layout:xception", 32, (8,))

NETWORKS = Registry(
    "ucadi.networks",
    "network",
    {
        "densenet3d": f"{_HERE}.blueprints:DENSENET",
        "resnet50": f"{_HERE}.blueprints:RESNET50",
        "resnet101": f"{_HERE}.blueprints:RESNET101",
        "xception": f"{_HERE}.blueprints:XCEPTION",
    },
)
"""Each a `Blueprint`, by `Architecture.name`."""
