"""Federated averaging (McMahan et al., AISTATS 2017) on exact integer sums.

The mean of the sites' differences, weighted by examples times local epochs (paper, Methods), is added to
the base. The sum is one of integers, so its value depends neither on the order of the sites nor on
whether it was encrypted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ucadi.errors import CapacityError, MismatchError
from ucadi.fed.fixedpoint import Encoder, Layout, decode
from ucadi.fed.update import Arrays, Update, check_finite

Sum = npt.NDArray[np.int32]
"""The sum of encoded vectors: 1 + layout.size elements, the sum of the weights first."""


@dataclass(frozen=True)
class Aggregate:
    """The exact sum of a round's updates. Whether it was summed in the clear or decrypted, it is the same.

    `base` and `plan` are the digests of the files that the round began from; `sites` are those whose
    updates are in the sum, sorted.
    """

    base: str
    plan: str
    sites: tuple[str, ...]
    total: Sum

    @property
    def weight(self) -> int:
        """Sum of the sites' examples times local epochs."""
        return int(self.total[0])


def add(updates: Sequence[Update], layout: Layout, *, cap: int, bits: int, clip: bool = False) -> Sum:
    """The sum of the encoded updates. All must have the same base, and no site may appear twice."""
    sites = [update.site for update in updates]
    for site in sites:
        if sites.count(site) > 1:
            raise MismatchError(f"two updates of {site}", hint="a site contributes once to a round")
    total = np.zeros(1 + layout.size, dtype=np.int64)
    for update in updates:
        start = 0
        for piece in Encoder(update, layout, cap=cap, bits=bits, clip=clip).pieces():
            total[start : start + len(piece)] += piece
            start += len(piece)
    return as_sum(total)


def as_sum(total: npt.NDArray[np.int64]) -> Sum:
    """A summed vector in the 32 bits that the scheme's slots guarantee."""
    if np.abs(total).max(initial=0) > np.iinfo(np.int32).max:
        raise CapacityError(
            "the sum of the updates does not fit 32 bits", hint="the plan admits fewer sites than were added"
        )
    return total.astype(np.int32)


def apply_mean(
    base: Arrays, aggregate: Aggregate, layout: Layout, *, cap: int, bits: int
) -> dict[str, npt.NDArray[np.float32]]:
    """The next global model: base plus the weighted mean difference, in float64, rounded once to float32."""
    layout.check(base, "base")
    means = decode(aggregate.total, layout, cap=cap, bits=bits)
    return _add(base, means)


def apply_update(base: Arrays, update: Update) -> dict[str, npt.NDArray[np.float32]]:
    """One site's own model: base plus its difference."""
    if {n: a.shape for n, a in base.items()} != {n: a.shape for n, a in update.deltas.items()}:
        raise MismatchError(f"update of {update.site}: its tensors are not those of the base")
    return _add(base, update.deltas)


def _add(base: Arrays, difference: Mapping[str, npt.NDArray[np.floating]]) -> dict[str, npt.NDArray[np.float32]]:
    following = {name: (base[name].astype(np.float64) + difference[name]).astype(np.float32) for name in base}
    check_finite(following)
    return following
