"""Counting rounds: sites' histograms of scores, added under encryption, so that only their sum is ever opened.

A histogram travels as an update does. Its tensor holds counts, whose quantum is one case, and its weight is one: so the
sum that is opened is that of the counts, exactly, and the sum of the weights the number of sites.
"""

from __future__ import annotations

import numpy as np

from ucadi.errors import CapacityError, MismatchError
from ucadi.fed.averaging import Aggregate
from ucadi.fed.update import Update
from ucadi.formats.histogram import Histogram
from ucadi.rounds.round import COUNTS, Round
from ucadi.rounds.soundness import check_aggregate
from ucadi.scoring.histogram import BINS


def check_counting(round_: Round) -> None:
    """Raises MismatchError unless the round adds histograms."""
    if not round_.is_counting:
        raise MismatchError(
            f"round {round_.plan.round} of {round_.plan.federation} adds updates, not histograms",
            hint="histograms are added in a round of their own: round open --count-scores-of MODEL",
        )


def as_update(histogram: Histogram, site: str, round_: Round) -> Update:
    """What `site` contributes to a counting round. CapacityError for more cases of a score than fit."""
    check_counting(round_)
    largest, limit = int(histogram.counts.max(initial=0)), (1 << (round_.bits - 1)) - 1
    if histogram.counts.shape != (2, BINS):
        raise MismatchError(f"a histogram of {histogram.counts.shape[1]} bins, not {BINS}", hint="make it again")
    if largest > limit:
        raise CapacityError(
            f"{largest} cases have one score; a round of {len(round_.plan.sites)} sites admits {limit}",
            hint="count in several rounds",
        )
    # exact: a value has at most as many bits as a float32's digits
    return Update(site, histogram.model, 1, 1, {COUNTS: histogram.counts.astype(np.float32)})


def opened_histogram(aggregate: Aggregate, round_: Round, name: str) -> Histogram:
    """The histogram of all contributing sites' cases that the opened sum, from the file `name`, is."""
    check_counting(round_)
    check_aggregate(aggregate, round_, name)
    counts = aggregate.total[1:].astype(np.int64).reshape(2, BINS)
    return Histogram(round_.plan.base, (), counts, aggregate.sites)
