"""Normalisation layers, the same in every network."""

from __future__ import annotations

import math

from torch import nn

MOMENTUM = 0.1
"""Batch norm's momentum. The paper's 0.9 weighs the old running mean; torch's weighs the new batch: 1 - 0.9."""

GROUPS = 8
"""Most groups of a group norm (Wu and He 2018): each has channels enough where there are few."""


def norm(kind: str, channels: int) -> nn.Module:
    """The norm of `channels` channels that `Architecture.norm` names.

    A batch norm mixes the samples of a batch and keeps statistics of them; a group norm does neither.
    """
    if kind == "batch":
        return nn.BatchNorm3d(channels, momentum=MOMENTUM)
    return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
