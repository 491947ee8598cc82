"""Products in the ring R = Z_{2^64}[X] / (X^4096 + 1), exact, by floating-point Fourier transforms.

A polynomial of N real coefficients modulo X^N + 1 is one of N/2 complex coefficients modulo
X^(N/2) - i: fold the upper half into the imaginary part. Scaling coefficient j by zeta^j, where
zeta = exp(i pi / N), turns that into a cyclic convolution, which the Fourier transform diagonalises.

Coefficients of 64 bits are too wide for the 53 of a double, so one factor is split into three centred
limbs of 22, 21 and 21 bits. With the other factor at most 32,736 (a sum of 1,023 secrets), a coefficient
of a partial product stays below 2^12 * 2^21 * 2^15 = 2^48, and its rounding error far below one half; it
is checked all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ucadi.errors import CapacityError
from ucadi.lwe.parameters import DEGREE, MAX_SUMMANDS, NOISE_BOUND

Polynomials = npt.NDArray[np.uint64]
"""Coefficients modulo 2^64, shape (polynomials, 4096)."""

Secret = npt.NDArray[np.int64]
"""One polynomial with small signed coefficients, shape (4096,)."""

LIMB_BITS = (22, 21, 21)

MAX_SECRET = NOISE_BOUND * MAX_SUMMANDS
"""Largest coefficient of the small factor for which products are exact."""

MAX_RESIDUE = 0.25
"""Distance to the nearest integer above which a product is no longer trusted."""

_TWIST = np.exp(1j * np.pi * np.arange(DEGREE // 2) / DEGREE)


def multiply(a: Polynomials, s: Secret) -> Polynomials:
    """The products a[p] * s in R for every p; a (P, 4096) uniform modulo 2^64, s (4096,) small.

    Raises CapacityError where s is too large for exact arithmetic.
    """
    if np.abs(s).max() > MAX_SECRET:
        raise CapacityError("a secret is larger than any sum of secrets", hint="a share or a seal is wrong")
    spectrum = _transform(s.astype(np.float64))
    product = np.zeros_like(a)
    for shift, limb in _limbs(a):
        approximate = _transform_back(_transform(limb) * spectrum)
        exact = np.rint(approximate)
        if np.abs(approximate - exact).max(initial=0.0) >= MAX_RESIDUE:
            raise CapacityError("a product of polynomials is not exact", hint="this processor's arithmetic is at fault")
        product += exact.astype(np.int64).view(np.uint64) << np.uint64(shift)
    return product


def _limbs(a: Polynomials) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Centred limbs l with a = sum of l * 2^shift modulo 2^64, least significant first."""
    rest = a.view(np.int64)
    shift = 0
    for bits in LIMB_BITS:
        half = np.int64(1 << (bits - 1))
        limb = ((rest + half) & np.int64((1 << bits) - 1)) - half
        yield shift, limb.astype(np.float64)
        rest = (rest - limb) >> np.int64(bits)
        shift += bits


def _transform(x: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    half = DEGREE // 2
    return np.fft.fft((x[..., :half] + 1j * x[..., half:]) * _TWIST)


def _transform_back(spectrum: npt.NDArray[np.complex128]) -> npt.NDArray[np.float64]:
    folded = np.fft.ifft(spectrum) * _TWIST.conj()
    return np.concatenate([folded.real, folded.imag], axis=-1)
