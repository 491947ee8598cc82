"""Each row of the table of coalitions in docs/security.md: what they get, tried with all that they have.

The attackers have their keys, every file of the federation, and programs of their own: they use the scheme's arithmetic
and follow no rule of ours. Honest members answer as their commands do.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation, forget, make_federation
from places import ROOT

from ucadi.commands.aggregate import aggregate
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.errors import SignatureError, UcadiError
from ucadi.fed.fixedpoint import Encoder
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.formats import update as update_format
from ucadi.formats.ciphertext import Ciphertext
from ucadi.lwe import randomness, scheme, shamir
from ucadi.lwe.ring import Secret
from ucadi.rounds.round import Round
from ucadi.rounds.threshold import open_partial

SITES = tuple(f"site-{letter}" for letter in "abcdef")
VICTIM, FRIENDS = SITES[0], SITES[1:]
THRESHOLD = 5
"""Of six: two sets need 2 x 5 - 6 = 4 deceivers, and sums are of four sites or more."""


@pytest.fixture(scope="module", params=["members", "threshold"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Six sites have sent their updates. Not to be changed."""
    threshold = None if mode == "members" else THRESHOLD
    federation = make_federation(tmp_path_factory.mktemp(mode), SITES, minimum_sites=4, threshold=threshold)
    federation.plan.unlink()
    federation.open_round(1, federation.plan, quorum=4)
    federation.encrypt_all()
    return federation


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


class Attack:
    """A coordinator and some members who follow no rule, against the others, who follow them all."""

    def __init__(self, own: Federation, members: Sequence[str]) -> None:
        self.own, self.members = own, tuple(members)
        self.round = Round.read(own.plan, own.roster)
        self.uploads = {site: ciphertext_format.read_ciphertext(own.ciphertext(site)) for site in SITES}

    def secret_alone(self) -> Secret | None:
        """The victim's secret from its seals to the members of the coalition, as far as these go."""
        parts: dict[int, Any] = {}
        upload = self.uploads[VICTIM]
        for place, site in enumerate(SITES):
            for name in self.members:
                context = self.round.seal_context(VICTIM, site, upload.contribution.ciphertext_digest)
                with suppress(SignatureError):
                    parts[place] = key_format.read_key(self.own.key(name)).open(upload.sealed[place].tobytes(), context)
        if self.round.plan.mode == "members":
            return randomness.secret_polynomial(next(iter(parts.values()))) if parts else None
        shares = {place: np.frombuffer(part, "<u2") for place, part in parts.items()}
        return shamir.combine(shares, THRESHOLD) if len(shares) >= THRESHOLD else None

    def opened_sum(self, sites: Sequence[str]) -> Secret | None:
        """The sum of these sites' secrets, by asking every honest member for its partial decryption; None if too few
        answer. In members mode a member of the coalition opens it alone."""
        total = self.own.folder / f"{'-'.join(site[-1] for site in sites)}.sum"
        forget(self.own.key("coordinator"))
        common = {"plan": self.own.plan, "roster": self.own.roster}
        uploads = [self.own.ciphertext(site) for site in sites]
        try:
            aggregate(uploads, **common, key=self.own.key("coordinator"), output=total)
        except UcadiError:  # its own program refuses small sums; the coalition's arithmetic is in `secret_alone`
            return None
        shares = {}
        for place, site in enumerate(SITES):
            if site in self.members:
                forget(self.own.key(site))
            answer = self.own.folder / f"{total.name}-{site}.partial"
            with suppress(UcadiError):
                partial_decrypt(total, **common, key=self.own.key(site), output=answer)
                reader = key_format.read_key(self.own.key(self.members[0]))
                shares[place] = open_partial(partial_format.read(answer), self.round, reader)
        return shamir.combine(shares, THRESHOLD) if len(shares) >= THRESHOLD else None

    def reads(self, secret: Secret | None, upload: Ciphertext) -> bool:
        """Whether the secret opens the victim's upload to its very update."""
        if secret is None:
            return False
        round_ = self.round
        parts = scheme.decrypt(upload.ciphertext, round_.values, 1, round_.packing, round_.public_seed, secret)
        try:
            found = np.concatenate([part.astype(np.int64) for part in parts])
        except SignatureError:  # the padding is not zero: another secret
            return False
        found[1:] -= 1 << (round_.bits - 1)
        update = update_format.read_update(self.own.update(VICTIM))
        encoder = Encoder(update, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits)
        return bool((found == np.concatenate(list(encoder.pieces()))).all())

    def reads_the_victim(self) -> bool:
        """Everything that they can do: open the upload, a small sum, or two sums that differ by the victim."""
        upload = self.uploads[VICTIM]
        if self.reads(self.secret_alone(), upload):
            return True
        if self.round.plan.mode == "members" or not self.members:
            return False
        others = [site for site in SITES if site != VICTIM]
        small = (VICTIM, *self.members[:3])
        secret = self.opened_sum(small) if len(self.members) >= 3 else None
        if secret is not None:  # they know their own secrets, and have made them anew for this
            known = sum(self.own_secret(site) for site in self.members[:3])
            return self.reads(secret - known, upload)
        whole, without = self.opened_sum(SITES), self.opened_sum(others)
        return whole is not None and without is not None and self.reads(whole - without, upload)

    def own_secret(self, site: str) -> Secret:
        """A member's own secret: it made it. Here it is put together from the shares in its upload's seals, with all
        keys, as the program that made it has forgotten it."""
        upload, shares = self.uploads[site], {}
        for place, holder in enumerate(SITES):
            context = self.round.seal_context(site, holder, upload.contribution.ciphertext_digest)
            opened = key_format.read_key(self.own.key(holder)).open(upload.sealed[place].tobytes(), context)
            shares[place] = np.frombuffer(opened, "<u2")
        return shamir.combine(shares, THRESHOLD)


EXPECTED: dict[int, tuple[bool, bool]] = {
    0: (False, False),
    1: (True, False),
    2: (True, False),
    3: (True, True),  # a sum of four that is theirs but for one
    4: (True, True),
    5: (True, True),
}
"""By how many members are with the coordinator: whether they read one site's update, in either mode."""


@pytest.mark.parametrize("count", EXPECTED)
def test_a_coordinator_and_so_many_members(own: Federation, mode: str, count: int) -> None:
    assert Attack(own, FRIENDS[:count]).reads_the_victim() == EXPECTED[count][mode == "threshold"]


def test_honest_policies_withstand_one_more(own: Federation, mode: str) -> None:
    """Where every site asks for sums of five, four members are needed."""
    if mode == "members":
        return
    for site in SITES:
        path = own.key(site).with_suffix(".policy.toml")
        path.write_text(path.read_text().replace("minimum_sites = 2", "minimum_sites = 5"))
    assert not Attack(own, FRIENDS[:3]).reads_the_victim()


def test_an_outsider_with_every_file(own: Federation) -> None:
    """Relay, courier, thief of a disk: all files but the keys."""
    for key in own.folder.glob("*.key"):
        key.rename(key.with_suffix(".kept"))
    upload = ciphertext_format.read_ciphertext(own.ciphertext(VICTIM))
    assert not list(own.folder.glob("*.key"))
    attack = Attack(own, ())
    assert attack.secret_alone() is None
    assert not any(attack.reads(secret, upload) for secret in guesses(own))


def guesses(own: Federation) -> list[Secret]:
    """Secrets from what lies about: digests and public keys as seeds."""
    seeds = [path.read_bytes()[:32].ljust(32, b"\0") for path in sorted(own.folder.glob("*.card"))]
    return [randomness.secret_polynomial(seed) for seed in seeds] + [np.zeros(4096, np.int64)]


def test_all_sites_but_one(own: Federation, mode: str) -> None:
    """Once the sum is open they subtract what they sent: nothing in the scheme can prevent it."""
    attack = Attack(own, FRIENDS)
    vectors = {}
    for site in SITES:
        update = update_format.read_update(own.update(site))
        round_ = attack.round
        encoder = Encoder(update, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits)
        vectors[site] = np.concatenate(list(encoder.pieces()))
    total = sum(vectors.values())
    assert (total - sum(vectors[site] for site in FRIENDS) == vectors[VICTIM]).all()
    del mode


def test_the_page_has_the_coalitions_of_this_file() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "coordinator and" in line]
    assert len(rows) >= 4
    for first, second in itertools.pairwise(sorted(EXPECTED)):
        assert EXPECTED[first] <= EXPECTED[second]  # more members never get less
