"""The parameters of the scheme, and what they leave for the message.

Ring: R = Z_q[X] / (X^N + 1) with N = 4096 and q = 2^64. Secrets and errors are centred binomial with
standard deviation 4. Lattice estimates (log2 of the cost; MATZOV, then quantum sieving): 236 / 225, and
232 / 221 once the sum of the secrets and of the errors is known. The Homomorphic Encryption Standard
(2018, table 1) admits log2 q <= 109 for N = 4096 at 128 bits; 64 leaves a wide margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ucadi.errors import CapacityError

SCHEME = "rlwe-4096-64"
"""The name of this parameter set in files."""

DEGREE = 4096
"""N: coefficients in a polynomial."""

NOISE_BOUND = 32
"""Largest magnitude of a coefficient of one secret or error: popcount of 32 bits less another's."""

SLOTS = 2
"""Message values that one coefficient carries."""

VALUES = SLOTS * DEGREE
"""Message values that one polynomial carries."""

CHECK_VALUES = 64
"""Zeros appended to every message at least; if they do not decrypt to zero, the secret was wrong."""

MAX_VALUE_BITS = 24
"""More bits than a float32 has digits would be wasted."""

MAX_SUMMANDS = 1023


@dataclass(frozen=True)
class Packing:
    """How a coefficient's 64 bits are shared when at most `summands` ciphertexts are added.

    From the least significant bit: `noise_bits` for the sum of the errors, then two slots of `slot_bits`,
    each with room for the sum of `summands` unsigned values of `value_bits`.
    """

    summands: int

    def __post_init__(self) -> None:
        if not 1 <= self.summands <= MAX_SUMMANDS:
            raise CapacityError(
                f"{self.summands} sites in one sum; the parameters admit 1 to {MAX_SUMMANDS}",
                hint="split the federation, or let regions aggregate first",
            )

    @property
    def noise_bits(self) -> int:
        """The errors of K ciphertexts stay below 2^(noise_bits - 1) except with probability `failure_bound`."""
        return 7 + math.ceil(math.log2(self.summands) / 2)

    @property
    def slot_bits(self) -> int:
        """Width of one slot."""
        return (64 - self.noise_bits) // SLOTS

    @property
    def value_bits(self) -> int:
        """The largest b, at most 24, for which a sum of `summands` values below 2^b stays in its slot."""
        return min(MAX_VALUE_BITS, (((1 << self.slot_bits) - 1) // self.summands + 1).bit_length() - 1)

    def failure_bound(self, values: int) -> float:
        """log2 of a bound on the probability that any of `values` decrypted sums is wrong.

        A centred binomial of 64 bits is subgaussian with variance proxy 16, a sum of K has 16 K, so that
        P[|sum| >= 2^(d-1)] <= 2 exp(-2^(2d-2) / (32 K)) for each of the coefficients, d = noise_bits.
        """
        coefficients = polynomials(values) * DEGREE
        exponent: float = 2 ** (2 * self.noise_bits - 2) / (32 * self.summands)
        return math.log2(2 * coefficients) - exponent * math.log2(math.e)


def polynomials(values: int) -> int:
    """Polynomials needed for `values` message values and the zeros that check the secret."""
    return -(-(values + CHECK_VALUES) // VALUES)
