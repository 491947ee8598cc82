"""The methods that make heatmaps, by name. Other packages add theirs to the group `ucadi.heatmaps` of entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ucadi.plugins import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ucadi.learn.heatmaps.gradcam import Heatmaps
    from ucadi.learn.networks.classifier import Classifier


class Method(Protocol):
    """Makes the heatmaps of a case's slabs (repeats, 1, 16, H, W) for one diagnosis, the index of a logit.

    `fill` (repeats,) is healthy lung in the slabs' unit, for a method that covers something; `layer` the network's
    module to look at, None for the method's own choice.
    Raises UsageError for a layer that it cannot look at, MismatchError for slabs of another shape than the network's or
    a logit that it does not have, FormatError for values that are not finite.
    """

    def __call__(
        self,
        model: Classifier,
        slabs: NDArray[np.float32],
        diagnosis: int,
        *,
        fill: NDArray[np.float32],
        layer: str | None = None,
    ) -> Heatmaps: ...


GRAD_CAM = "grad-cam"

METHODS = Registry(
    "ucadi.heatmaps",
    "method",
    {GRAD_CAM: "ucadi.learn.heatmaps.gradcam:gradcam", "occlusion": "ucadi.learn.heatmaps.occlusion:occlusion"},
)
"""Each a `Method`."""
