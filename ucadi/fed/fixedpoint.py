"""Updates as integers, so that sums are exact, associative and can be encrypted.

All floating-point tensors of a model, in sorted name order, are one vector of fixed-point numbers; before
it stands one more element, the weight w of the update itself. What is encoded of a difference d is
w / cap * d, so that a sum of vectors is a weighted sum of differences, and its first element the sum of
the weights. `cap` is the largest weight that the round's plan admits.

Each tensor has a range, a power of two 2^e taken from the base model, which every site computes alike. A
value is a whole number of quanta, 2^e / 2^(bits - 1), with magnitude below 2^(bits - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ucadi.errors import CapacityError, FormatError, MismatchError
from ucadi.fed.update import Arrays, Update, check_finite, in_pieces, is_statistic

Encoded = npt.NDArray[np.integer]
"""A run of encoded values; a whole vector has 1 + layout.size of them, the weight first."""

RANGE_FLOOR = 2.0**-6
"""Magnitude assumed of a base tensor that is smaller, such as a bias before any training: what is learned moves little
in a round."""

STATISTIC_FLOOR = 0.25
"""The same of a norm's running statistics, which are observed and can be anywhere after the first round."""


@dataclass(frozen=True)
class TensorRange:
    """One tensor of the model: its name, its shape, and the exponent e of its range 2^e."""

    name: str
    shape: tuple[int, ...]
    exponent: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The order, shapes and ranges of all tensors: what makes two encoded vectors addable."""

    tensors: tuple[TensorRange, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if names != sorted(set(names)):
            raise FormatError(
                "the layout's tensors are not in name order, or one stands twice", hint="open the round anew"
            )

    @property
    def size(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def shares_norms(self) -> bool:
        """Whether norms are among the tensors; where they are not, each site keeps its own (see `norms`)."""
        return any(is_norm(tensor.name) for tensor in self.tensors)

    def shared(self, arrays: Arrays, whose: str) -> Arrays:
        """The tensors of this layout. MismatchError unless `arrays` has exactly these, and perhaps norms that
        the layout leaves to the sites."""
        expected = {tensor.name: tensor.shape for tensor in self.tensors}
        shared = {name: array for name, array in arrays.items() if name in expected or not is_norm(name)}
        found = {name: array.shape for name, array in shared.items()}
        for name in sorted(expected.keys() | found.keys()):
            theirs, ours = found.get(name), expected.get(name)
            if theirs != ours:
                raise MismatchError(
                    f"{whose}: tensor {name} is {_shape(theirs)}, the layout says {_shape(ours)}",
                    hint="both must come from the same base model",
                )
        return shared


def is_norm(name: str) -> bool:
    """Whether a tensor is a norm's, by the name of its module: `blocks.dense1_1.norm2.weight` is."""
    return "norm" in name.rpartition(".")[0].rpartition(".")[2]


def layout_of(base: Arrays, headroom: int) -> Layout:
    """The layout for updates to `base`: each range is the tensor's magnitude times 2^headroom."""
    exponents = magnitude_exponents(base)
    return Layout(
        tuple(
            TensorRange(name, base[name].shape, exponent + headroom)
            for name, exponent in zip(sorted(base), exponents, strict=True)
        )
    )


def magnitude_exponents(arrays: Arrays) -> tuple[int, ...]:
    """For each tensor in name order the e of the power of two 2^e at or above its largest magnitude, or its floor."""
    check_finite(arrays)
    return tuple(math.ceil(math.log2(_magnitude(name, arrays[name]))) for name in sorted(arrays))


def _magnitude(name: str, array: npt.NDArray[np.float32]) -> float:
    floor = STATISTIC_FLOOR if is_statistic(name) else RANGE_FLOOR
    return max([floor, *(float(np.abs(piece).max()) for piece in in_pieces(array))])


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"


def quantum(tensor: TensorRange, bits: int) -> float:
    """The value of one unit of a tensor's encoded elements, exact in binary."""
    return math.ldexp(1.0, tensor.exponent - (bits - 1))


def smallest_step(weight: int, *, cap: int, bits: int) -> float:
    """The smallest change that survives encoding in an update of that weight, as a share of its tensor's range."""
    return math.ldexp(0.5, 1 - bits) * cap / weight


class Encoder:
    """Encodes one update in pieces; afterwards `clipped` tells how many values were cut to their range, and `rounding`
    what was lost in rounding.

    Without `clip`, a value outside its range raises CapacityError with the headroom that it needs.
    """

    def __init__(self, update: Update, layout: Layout, *, cap: int, bits: int, clip: bool = False) -> None:
        self._deltas = layout.shared(update.deltas, f"update of {update.site}")
        check_finite(self._deltas)
        if not 1 <= update.weight <= cap:
            raise CapacityError(
                f"update of {update.site}: weight {update.weight} (examples x epochs), the plan admits 1 to {cap}",
                hint="the plan's --weight-cap must be at least the largest site's examples x local epochs",
            )
        self.clipped = 0
        self._lost: list[tuple[int, float]] = []
        self._update = update
        self._layout = layout
        self._scale = update.weight / cap
        self._limit = (1 << (bits - 1)) - 1
        self._bits = bits
        self._clip = clip

    def pieces(self) -> Iterator[Encoded]:
        """The vector in order: the weight, then every tensor's values, each a whole number of quanta."""
        yield np.array([self._update.weight], dtype=np.int64)
        for tensor in self._layout.tensors:
            factor = self._scale / quantum(tensor, self._bits)
            lost = whole = 0.0
            for piece in in_pieces(self._deltas[tensor.name]):
                exact = piece.astype(np.float64) * factor
                quanta = np.rint(exact)
                lost, whole = lost + float(np.square(quanta - exact).sum()), whole + float(np.square(exact).sum())
                yield self._within_range(tensor, quanta).astype(np.int64)
            if whole > 0:
                self._lost.append((tensor.size, lost / whole))

    @property
    def rounding(self) -> float:
        """The relative error of the encoded update: the root of its tensors' mean squared ones, by their sizes.

        So each value counts alike, whatever its tensor's range. Zeros are exact and do not count.
        """
        values = sum(size for size, _ in self._lost)
        return math.sqrt(sum(size * share for size, share in self._lost) / values) if values else 0.0

    def _within_range(self, tensor: TensorRange, quanta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        largest = float(np.abs(quanta).max(initial=0.0))
        if largest <= self._limit:
            return quanta
        if not self._clip:
            excess = largest / self._limit
            raise CapacityError(
                f"update of {self._update.site}: tensor {tensor.name} changed by {excess:.3g} times its range",
                hint=f"open the round with {math.ceil(math.log2(excess))} more --headroom, or encrypt --clip",
            )
        self.clipped += int((np.abs(quanta) > self._limit).sum())
        return np.clip(quanta, -self._limit, self._limit)


def decode(total: Encoded, tensor: TensorRange, *, weight: int, cap: int, bits: int) -> npt.NDArray[np.float64]:
    """The weighted mean difference that a run of one tensor's summed values stands for; `weight` is their sum's."""
    mean: npt.NDArray[np.float64] = total.astype(np.float64) * quantum(tensor, bits) * (cap / weight)
    return mean
