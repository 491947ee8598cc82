"""Collecting a round: sites' ciphertexts checked and added, without a key to any of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ucadi.errors import MismatchError
from ucadi.fed.averaging import check_once
from ucadi.files import refuse_existing
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats.ciphertext import Ciphertext, Contribution
from ucadi.formats.container import Stream, canonical_json
from ucadi.identity import SecretKeys
from ucadi.lwe import scheme
from ucadi.lwe.parameters import DEGREE
from ucadi.lwe.ring import Polynomials
from ucadi.progress import track
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.contribution import ONE_PLAN
from ucadi.rounds.round import Round


def check_contribution(contribution: Contribution, round_: Round, name: str) -> None:
    """Raises unless the contribution is of this round, by a site of its plan, signed with that site's key."""
    if contribution.plan != round_.plan_digest:
        raise MismatchError(f"{name}: encrypted for another round", hint=ONE_PLAN)
    if contribution.site not in round_.plan.sites:
        raise MismatchError(
            f"{name}: {contribution.site} is no site of this round", hint="sites: " + ", ".join(round_.plan.sites)
        )
    ciphertext_format.verify_signature(contribution.document, round_.roster.member(contribution.site), name)


def check_quorum(sites: Sequence[str], round_: Round) -> None:
    """Raises MismatchError, naming who is missing or double, unless the set of sites makes a round."""
    check_once(sites)
    least = max(round_.plan.quorum, round_.roster.policy.minimum_sites)
    if len(sites) < least:
        missing = ", ".join(site for site in round_.plan.sites if site not in sites)
        raise MismatchError(
            f"{len(sites)} of at least {least} contributions; missing: {missing}",
            hint="wait for them; below its quorum a round is void",
        )


def write_sum(
    path: Path, uploads: Sequence[Path], round_: Round, keys: SecretKeys, agreement: Agreement, *, force: bool = False
) -> tuple[str, ...]:
    """Adds the ciphertexts of a round into `path`, signed by the coordinator; returns the sites, sorted.

    The coordinator's ledger has the set before there is a sum, and admits one set for a round. The sum does not depend
    on the order of the uploads. Files are mapped, not loaded: memory stays bounded.
    """
    round_.roster.check_led_by(keys)
    checked = [read_upload(path, round_) for path in track(uploads, "checking uploads")]
    checked.sort(key=lambda upload: upload.contribution.site)
    sites = tuple(upload.contribution.site for upload in checked)
    check_quorum(sites, round_)
    contributions = [upload.contribution for upload in checked]
    refuse_existing(path, force=force)
    agreement.enter_sum(contributions_digest(contributions), sites, round_)

    def blocks() -> Iterator[Polynomials]:
        firsts = range(0, round_.polynomials, scheme.BLOCK)
        for first in track(firsts, "adding"):
            yield scheme.add(upload.ciphertext[first : first + scheme.BLOCK] for upload in checked)

    ciphertext_format.write_sum(
        path,
        contributions,
        Stream("U64", (round_.polynomials, DEGREE), blocks()),
        Stream("U8", (len(checked), *round_.seals), (upload.sealed for upload in checked)),
        plan=round_.plan_digest,
        keys=keys,
        force=force,
    )
    return sites


def contributions_digest(contributions: Sequence[Contribution]) -> str:
    """What names the set that was added: the sites and the digests of all that they sent."""
    rows = [[c.site, c.ciphertext_digest, c.sealed_digest] for c in contributions]
    return hashlib.sha256(canonical_json(rows).encode("ascii")).hexdigest()


def read_upload(path: Path, round_: Round) -> Ciphertext:
    """A site's ciphertext: who signed it is checked first, then its size, and only then is its content read."""
    held = container.read(path, ciphertext_format.CIPHERTEXT_FORMAT)
    contribution = ciphertext_format.parse_contribution(held.metadata, path.name)
    check_contribution(contribution, round_, path.name)
    shapes = {name: tensor.shape for name, tensor in held.tensors.items()}
    if shapes != {"ciphertext": (round_.polynomials, DEGREE), "sealed": round_.seals}:
        raise MismatchError(
            f"{path.name}: the ciphertext of {contribution.site} is of another size than this round's",
            hint=f"do not use it: ask {contribution.site} which release of ucadi made it",
        )
    return ciphertext_format.parse_ciphertext(held, path.name)
