"""Whether an opened sum can be one of updates: what honest sites send has bounds, and so has their sum.

It bounds a lie and does not prove honesty: a site may send anything within them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ucadi.errors import MismatchError, Unsound, UnsoundError
from ucadi.fed.averaging import Aggregate
from ucadi.fed.robust import MEAN
from ucadi.rounds.round import Round

_VOID: Final = "a site has sent something else than an update: the round is void, open a new one"


class BoundsCheck:
    """Checks the sum of `sites` encoded updates of a round, run by run from its first value, which is the weight."""

    def __init__(self, sites: int, round_: Round, name: str) -> None:
        self._sites, self._name = sites, name
        self._most_weight = sites * round_.plan.weight_cap
        self._most = sites * ((1 << (round_.bits - 1)) - 1)
        self._counts = round_.is_counting
        self._begun = False

    def __call__(self, run: npt.NDArray[np.integer]) -> None:
        """Checks the next values. UnsoundError where no updates have such a sum."""
        values = run if self._begun else run[1:]
        if not self._begun and len(run):
            self._begun = True
            weight, least, most = int(run[0]), self._sites, self._most_weight
            if not least <= weight <= most:
                raise UnsoundError(
                    f"{self._name}: a weight of {weight}; that of {least} sites is from {least} to {most}",
                    Unsound.WEIGHT,
                    hint=_VOID,
                )
        least, most = int(values.min(initial=0)), int(values.max(initial=0))
        if self._counts and least < 0:
            raise UnsoundError(f"{self._name}: a count of {least}", Unsound.COUNTS, hint=_VOID)
        if least < -self._most or most > self._most:
            worst = most if most > self._most else least
            raise UnsoundError(
                f"{self._name}: a value of {worst} quanta; the ranges of {self._sites} sites admit {self._most}",
                Unsound.COUNTS if self._counts else Unsound.VALUES,
                hint=_VOID,
            )


def check_aggregate(aggregate: Aggregate, round_: Round, name: str) -> None:
    """Raises MismatchError unless this is an aggregate of this round, of the length of its layout and within bounds."""
    if aggregate.plan != round_.plan_digest or aggregate.base != round_.plan.base:
        raise MismatchError(f"{name}: the sum of another round", hint="use the plan that it was added under")
    if len(aggregate.total) != round_.values:
        raise MismatchError(f"{name}: of another length than this round's updates", hint="decrypt the sum again")
    strangers = [site for site in aggregate.sites if site not in round_.plan.sites]
    if strangers or not aggregate.sites:
        raise MismatchError(f"{name}: the sum of {', '.join(strangers) or 'nobody'}", hint="decrypt the sum again")
    if aggregate.rule == MEAN:  # by another rule it is one result, of the weight cap
        BoundsCheck(len(aggregate.sites), round_, name)(aggregate.total)
