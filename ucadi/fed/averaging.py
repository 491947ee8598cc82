"""Federated averaging (McMahan et al., AISTATS 2017) on exact integer sums.

The mean of the sites' differences, weighted by examples times local epochs (paper, Methods), is added to
the base. The sum is one of integers, so its value depends neither on the order of the sites nor on
whether it was encrypted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ucadi.errors import CapacityError, MismatchError
from ucadi.fed.fixedpoint import Encoded, Encoder, Layout, decode
from ucadi.fed.optimisers import FEDAVG, FORGETFUL, Memory, Remembered, ServerOptimiser
from ucadi.fed.update import Arrays, Update, added, check_finite, in_pieces, is_statistic

Sum = npt.NDArray[np.int32]
"""The sum of encoded vectors: 1 + layout.size elements, the sum of the weights first."""


@dataclass(frozen=True)
class Aggregate:
    """The exact sum of a round's updates. Whether it was summed in the clear or decrypted, it is the same.

    `base` and `plan` are the digests of the files that the round began from; `sites` are those whose
    updates are in the sum, sorted. Of another `rule` than the mean (see `ucadi.fed.robust`), `total` is the result in
    the form of a sum.
    """

    base: str
    plan: str
    sites: tuple[str, ...]
    total: Sum
    rule: str = "mean"

    @property
    def weight(self) -> int:
        """Sum of the sites' examples times local epochs."""
        return int(self.total[0])


def twice(sites: Iterable[str]) -> dict[str, MismatchError]:
    """The sites that are there more than once, each with the error that says so."""
    hint = "a site contributes once to a round: ask which is meant"
    counts = Counter(sites)
    return {site: MismatchError(f"two contributions of {site}", hint=hint) for site in counts if counts[site] > 1}


def check_once(sites: Iterable[str]) -> None:
    """Raises MismatchError, naming it, if a site is there more than once."""
    for error in twice(sites).values():
        raise error


def add(updates: Sequence[Update], layout: Layout, *, cap: int, bits: int, clip: bool = False) -> Sum:
    """The sum of the encoded updates. All must have the same base, and no site may appear twice."""
    check_once([update.site for update in updates])
    encoders = [Encoder(update, layout, cap=cap, bits=bits, clip=clip) for update in updates]
    first, *others = [encoder.pieces() for encoder in encoders]
    total = np.empty(1 + layout.size, dtype=np.int32)
    start = 0
    for run in first:
        for pieces in others:
            run += next(pieces)
        total[start : start + len(run)] = as_sum(run)
        start += len(run)
    return total


def as_sum(total: Encoded) -> Sum:
    """A run of a summed vector in the 32 bits that the scheme's slots guarantee."""
    if np.abs(total).max(initial=0) > np.iinfo(np.int32).max:
        raise CapacityError(
            "the sum of the updates does not fit 32 bits", hint="the plan admits fewer sites than were added"
        )
    return total.astype(np.int32)


def apply_mean(
    base: Arrays,
    aggregate: Aggregate,
    layout: Layout,
    *,
    cap: int,
    bits: int,
    server: ServerOptimiser = FEDAVG,
    memory: Memory = FORGETFUL,
) -> tuple[dict[str, npt.NDArray[np.float32]], Memory]:
    """The next global model, and what the server's optimiser remembers: base plus what it makes of the mean.

    In float64, rounded once to float32. Norms that the layout leaves out stay those of the base.
    """
    shared = layout.shared(base, "base")
    if aggregate.total.shape != (1 + layout.size,) or aggregate.weight < 1:
        raise MismatchError("the sum does not have the plan's layout", hint="use the plan that it was added under")
    following, remembered = dict(base), Remembered(server, memory)
    start = 1
    for tensor in layout.tensors:
        total = aggregate.total[start : start + tensor.size]
        means = (decode(run, tensor, weight=aggregate.weight, cap=cap, bits=bits) for run in in_pieces(total))
        # no optimiser keeps a variance positive: the norms' statistics are averaged whatever the method
        changes = means if is_statistic(tensor.name) else remembered.changes(tensor.name, tensor.shape, means)
        following[tensor.name] = added(shared[tensor.name], changes)
        start += tensor.size
    check_finite(following)
    return following, remembered.memory


def apply_update(base: Arrays, update: Update) -> dict[str, npt.NDArray[np.float32]]:
    """One site's own model: base plus its difference."""
    if {n: a.shape for n, a in base.items()} != {n: a.shape for n, a in update.deltas.items()}:
        raise MismatchError(f"update of {update.site}: its tensors are not those of the base")
    return apply_deltas(base, update.deltas)


def apply_deltas(base: Arrays, deltas: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """Base plus a difference with the same tensors; NaN and infinity are refused."""
    following = {name: added(base[name], in_pieces(deltas[name])) for name in base}
    check_finite(following)
    return following
