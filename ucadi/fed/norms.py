"""FedBN (Li et al., ICLR 2021): each site keeps the norms of its network, and shares all the rest.

Scanners differ from site to site in what norms are there to level out. A plan whose layout leaves the norms
out asks for this; they are in a site's own update all the same, and go no further than that file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ucadi.errors import MismatchError
from ucadi.fed.fixedpoint import Layout, is_norm
from ucadi.fed.update import Arrays, Update, added, in_pieces


def without_norms(arrays: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors that all sites share where norms stay at home."""
    return {name: array for name, array in arrays.items() if not is_norm(name)}


def with_norms(arrays: Arrays, base: Arrays, own: Update, layout: Layout) -> dict[str, npt.NDArray[np.float32]]:
    """`arrays` with the norms that a site's own update made of those of `base`; rounds leave these as they are.

    MismatchError where the layout shares the norms, or the update has none of them.
    """
    if layout.shares_norms:
        raise MismatchError("this round shares the norms", hint="leave out --local-norms")
    norms = [name for name in arrays if is_norm(name)]
    for name in norms:
        if name not in own.deltas or own.deltas[name].shape != base[name].shape:
            raise MismatchError(f"update of {own.site}: has no norm {name} of this network")
    return {**arrays, **{name: added(base[name], in_pieces(own.deltas[name])) for name in norms}}
