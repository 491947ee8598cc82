"""Opening a round: a member decrypts the sum of the sites' updates, and never less than a sum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ucadi.errors import MismatchError, SignatureError, Unsound, UnsoundError
from ucadi.fed.averaging import Aggregate, Sum
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import update as update_format
from ucadi.formats.ciphertext import CiphertextSum
from ucadi.formats.container import Stream
from ucadi.identity import SecretKeys
from ucadi.lwe import randomness, scheme
from ucadi.lwe.parameters import DEGREE
from ucadi.lwe.ring import Secret
from ucadi.progress import track
from ucadi.rounds.collection import check_contribution, check_quorum
from ucadi.rounds.round import Round
from ucadi.rounds.soundness import BoundsCheck


def check_sum(total: CiphertextSum, round_: Round, name: str) -> None:
    """Raises unless this is a sum of this round, signed by its coordinator, of enough sites, each signed."""
    if total.plan != round_.plan_digest:
        raise MismatchError(f"{name}: the sum of another round", hint="use the plan that it was added under")
    ciphertext_format.verify_signature(total.document, round_.roster.coordinator, name)
    for contribution in total.contributions:
        check_contribution(contribution, round_, f"{name}: contribution of {contribution.site}")
    check_quorum(total.sites, round_)
    if len(total.ciphertext) != round_.polynomials or total.sealed.shape[1:] != round_.seals:
        raise MismatchError(f"{name}: of another size than this round's ciphertexts", hint="do not use it")


def open_seals(total: CiphertextSum, round_: Round, keys: SecretKeys) -> Secret:
    """The sum of the contributing sites' secrets, from the seals made for `keys` (members mode).

    UnsoundError where a seal does not open, or holds another secret than that of its ciphertext.
    """
    secret = np.zeros(DEGREE, dtype=np.int64)
    for seed in opened_seals(total, round_, keys):
        secret += randomness.secret_polynomial(seed)
    if not fits(total, round_, secret):
        raise UnsoundError(
            "the decrypted sum fails its check: a site has sealed another secret than that of its upload",
            Unsound.SEALS,
            hint="this sum cannot be opened with this key: ask another member, or open a new round",
        )
    return secret


def fits(total: CiphertextSum, round_: Round, secret: Secret) -> bool:
    """Whether this is the sum of the secrets that the sum was encrypted under. UnsoundError as `scheme.opens` says."""
    last = round_.polynomials - 1
    summands, packing = len(total.sites), round_.packing
    return scheme.opens(total.ciphertext[last:], last, round_.values, summands, packing, round_.public_seed, secret)


def opened_seals(total: CiphertextSum, round_: Round, keys: SecretKeys) -> Iterator[bytes]:
    """What each contributing site sealed to `keys`; UnsoundError names the site whose seal does not open."""
    place = round_.roster.index(keys)
    for contribution, seals in zip(total.contributions, total.sealed, strict=True):
        context = round_.seal_context(contribution.site, keys.name, contribution.ciphertext_digest)
        try:
            yield keys.open(seals[place].tobytes(), context)
        except SignatureError as error:
            raise UnsoundError(
                f"{contribution.site}: {error.message}",
                Unsound.SEALS,
                hint=f"this sum cannot be opened: open a new round, without {contribution.site} if it happens again",
            ) from None


def write_opened(
    path: Path, total: CiphertextSum, round_: Round, secret: Secret, name: str, *, force: bool = False
) -> Aggregate:
    """Decrypts the sum, from the file `name`, with the sum of the secrets into an aggregate at `path`.

    UnsoundError, and nothing is written, where no updates have such a sum.
    """
    opened = Stream("I32", (round_.values,), _signed(total, round_, secret, name))
    plan = round_.plan_digest
    update_format.write_sum(path, opened, base=round_.plan.base, plan=plan, sites=total.sites, force=force)
    return update_format.read_aggregate(path)


def _signed(total: CiphertextSum, round_: Round, secret: Secret, name: str) -> Iterator[Sum]:
    """The decrypted vector: every value, but not the weight, was raised by 2^(bits - 1) once per site."""
    sites = len(total.sites)
    raised = np.int64(sites << (round_.bits - 1))
    weight = 1
    check = BoundsCheck(sites, round_, name)
    parts = scheme.decrypt(total.ciphertext, round_.values, sites, round_.packing, round_.public_seed, secret)
    for part in track(parts, "decrypting", total=-(-round_.polynomials // scheme.BLOCK)):
        signed = part.astype(np.int64)
        signed[weight:] -= raised
        weight = 0
        check(signed)
        yield signed.astype(np.int32)
