"""The next model: what a round's opened sum makes of the weights that it began with. Every site computes the same."""

from __future__ import annotations

from ucadi.errors import MismatchError
from ucadi.fed.averaging import Aggregate, apply_mean
from ucadi.fed.optimisers import FORGETFUL
from ucadi.formats.weights import Weights
from ucadi.rounds.round import Round
from ucadi.rounds.soundness import check_aggregate


def next_weights(base: Weights, aggregate: Aggregate, round_: Round, *, change: str, name: str) -> Weights:
    """The weights after the round `round_`, which the aggregate with the digest `change`, in the file `name`, ends.

    MismatchError if any of these do not belong together.
    """
    check_base(aggregate.base, base, name)
    check_aggregate(aggregate, round_, name)
    following, memory = apply_mean(
        base.arrays,
        aggregate,
        round_.plan.layout,
        cap=round_.plan.weight_cap,
        bits=round_.bits,
        server=round_.plan.server,
        memory=base.memory or FORGETFUL,
    )
    origin = {"base": base.digest, "change": change}
    return Weights(following, base.architecture, origin, memory=memory if memory.arrays else None)


def check_base(made_from: str, base: Weights, change: str) -> None:
    """Raises MismatchError unless the file `change` was made from these weights."""
    if made_from != base.digest:
        raise MismatchError(
            f"{change}: made from base {made_from[:8]}…, these weights are {base.digest[:8]}…",
            hint="apply it to the weights that its round began with",
        )
