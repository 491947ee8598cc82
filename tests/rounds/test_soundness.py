"""What malicious sites send: sums that no updates have, and shares that are of no secret. Nothing of it is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attack import add, common, is_refused
from commandline import invoke
from federation import Federation, forget, make_federation
from malice import Parts, Words, add_to_value, deal_falsely, lie_in_partials, write_false_upload

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.decrypt import DecryptResult, decrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.round_open import round_open
from ucadi.errors import SignatureError, UnsoundError
from ucadi.fed.update import Update
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.lwe.parameters import VALUES
from ucadi.rounds.round import COUNTS, Round
from ucadi.rounds.threshold import UnsettledError
from ucadi.scoring.histogram import BINS

SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three sites, all uploaded. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("members"))
    federation.encrypt_all()
    return federation


@pytest.fixture(scope="module")
def holders(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Five sites of which three open a sum, all uploaded. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("holders"), SITES, minimum_sites=3, threshold=3)
    federation.encrypt_all()
    return federation


@pytest.fixture
def own(members: Federation, tmp_path: Path) -> Federation:
    shutil.copytree(members.folder, tmp_path / "own")
    return Federation(tmp_path / "own", members.sites)


@pytest.fixture
def shared(holders: Federation, tmp_path: Path) -> Federation:
    shutil.copytree(holders.folder, tmp_path / "shared")
    return Federation(tmp_path / "shared", holders.sites)


def upload_falsely(federation: Federation, change: Words, parts: Parts | None = None, site: str = "site-c") -> Path:
    """A site replaces its upload; the sum with it."""
    round_ = Round.read(federation.plan, federation.roster)
    update = update_format.read_update(federation.update(site))
    write_false_upload(
        federation.ciphertext(site), update, round_, key_format.read_key(federation.key(site)), change, parts
    )
    total = federation.folder / "sum.enc"
    total.unlink(missing_ok=True)
    return add(federation, total)


def open_members(federation: Federation, total: Path, site: str = "site-a") -> DecryptResult:
    return decrypt(total, **common(federation), key=federation.key(site), output=federation.folder / "opened")


def weights_of(federation: Federation) -> dict[str, int]:
    return {site: update_format.read_update(federation.update(site)).weight for site in federation.sites}


def largest(federation: Federation, index: int) -> int:
    """What brings the sum of a value to the limit of all sites' ranges."""
    round_ = Round.read(federation.plan, federation.roster)
    aggregate(federation.updates, **common(federation), output=federation.folder / "plain", force=True)
    now = int(update_format.read_aggregate(federation.folder / "plain").total[index])
    return len(federation.sites) * ((1 << (round_.bits - 1)) - 1) - now


CAP = 65536

LIES: dict[str, tuple[str, Callable[[Federation, Round], Words]]] = {
    "a weight of sixty million": ("weight", lambda _, r: add_to_value(r, 0, 60_000_000)),
    "a weight over all caps by one": (
        "weight",
        lambda f, r: add_to_value(r, 0, 3 * CAP + 1 - sum(weights_of(f).values())),
    ),
    "a weight that makes the sum zero": ("weight", lambda f, r: add_to_value(r, 0, -sum(weights_of(f).values()))),
    "a weight that leaves one for three": ("weight", lambda f, r: add_to_value(r, 0, 1 - sum(weights_of(f).values()))),
    "a weight that leaves two for three": ("weight", lambda f, r: add_to_value(r, 0, 2 - sum(weights_of(f).values()))),
    "a weight below zero": ("weight", lambda _, r: add_to_value(r, 0, (1 << r.packing.slot_bits) - 10**6)),
    "a weight below zero that borrows from its neighbour": ("padding", lambda _, r: add_to_value(r, 0, -(10**6))),
    "a weight that wraps its slot": ("weight", lambda _, r: add_to_value(r, 0, 1 << (r.packing.slot_bits - 1))),
    "a value over the limit by one": ("values", lambda f, r: add_to_value(r, 5, largest(f, 5) + 1)),
    "a value below the limit by one": (
        "values",
        lambda f, r: add_to_value(r, 5, largest(f, 5) - 2 * 3 * ((1 << (r.bits - 1)) - 1) - 1),
    ),
    "a value of half its slot": ("values", lambda _, r: add_to_value(r, 7, 1 << (r.packing.slot_bits - 1))),
    "a value that its slot does not hold": ("padding", lambda _, r: add_to_value(r, 7, (1 << r.packing.slot_bits) - 1)),
    "the last value": ("values", lambda f, r: add_to_value(r, r.values - 1, largest(f, r.values - 1) + 1)),
    "the first zero after the values": ("padding", lambda _, r: add_to_value(r, r.values, 1)),
    "the last zero of all": ("padding", lambda _, r: add_to_value(r, r.polynomials * VALUES - 1, 1)),
    "a negative zero": ("padding", lambda _, r: add_to_value(r, r.polynomials * VALUES - 3, -1)),
}


@pytest.mark.parametrize(("reason", "lie"), LIES.values(), ids=LIES.keys())
def test_a_sum_that_no_updates_have_is_not_written(
    own: Federation, reason: str, lie: Callable[[Federation, Round], Words]
) -> None:
    total = upload_falsely(own, lie(own, Round.read(own.plan, own.roster)))
    for site in own.sites:  # all members find the same
        error = is_refused(lambda site=site: open_members(own, total, site), own.folder)  # type: ignore[misc]
        assert isinstance(error, UnsoundError)
        assert (error.reason, error.kind, error.exit_code) == (reason, "unsound", 4)
    # a clear error at the command line, for people and for programs
    arguments = ["decrypt", total, "--plan", own.plan, "--roster", own.roster, "--key", own.key("site-a"), "-o", "/x"]
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr.count("ucadi: hint: ")) == (4, 1)


def test_the_limits_themselves_are_admitted(own: Federation) -> None:
    round_ = Round.read(own.plan, own.roster)
    weight = add_to_value(round_, 0, 3 * CAP - sum(weights_of(own).values()))
    value = add_to_value(round_, 5, largest(own, 5))

    def both(words: np.ndarray) -> None:
        weight(words)
        value(words)

    assert open_members(own, upload_falsely(own, both)).weight == 3 * CAP


def test_an_aggregate_from_elsewhere_has_the_same_bounds(own: Federation) -> None:
    """A published sum, or one that a plain round added: whoever applies it, or audits with it, checks it again."""
    aggregate(own.updates, **common(own), output=own.folder / "plain")
    held = update_format.read_aggregate(own.folder / "plain")
    for index, value in ((0, 2), (0, 3 * CAP + 1), (4, 3 * (1 << 23)), (len(held.total) - 1, -3 * (1 << 23))):
        total = held.total.copy()
        total[index] = value
        update_format.write_sum(own.folder / "bad", total, base=held.base, plan=held.plan, sites=held.sites, force=True)
        error = is_refused(
            lambda: apply(own.base, own.folder / "bad", **common(own), output=own.folder / "next"), own.folder
        )
        assert error.message.startswith("bad: a ")
    for sites in (("site-a", "site-b", "stranger"), ()):
        update_format.write_sum(own.folder / "bad", held.total, base=held.base, plan=held.plan, sites=sites, force=True)
        is_refused(lambda: apply(own.base, own.folder / "bad", **common(own), output=own.folder / "next"), own.folder)


@pytest.mark.parametrize(
    ("reason", "index", "amount"),
    [("counts", 1, -8), ("counts", 2 * BINS, 3 * (1 << 23)), ("weight", 0, 1), ("weight", 0, -1)],
)
def test_counts_that_nobody_can_have_are_not_written(own: Federation, reason: str, index: int, amount: int) -> None:
    key, model = own.key("coordinator"), "5" * 64
    round_open(number=1, count_scores_of=model, roster=own.roster, key=key, output=own.plan, force=True)
    round_ = Round.read(own.plan, own.roster)
    for site in own.sites:
        counts = np.ones((2, BINS), np.float32)
        update = Update(site, model, 1, 1, {COUNTS: counts})
        change = add_to_value(round_, index, amount if site == "site-b" else 0)
        write_false_upload(own.ciphertext(site), update, round_, key_format.read_key(own.key(site)), change)
    total = add(own, own.folder / "sum.enc")
    error = is_refused(lambda: open_members(own, total), own.folder)
    assert isinstance(error, UnsoundError)
    assert error.reason == reason


def test_in_members_mode_a_sealed_secret_that_is_not_the_uploads_is_noticed_by_its_receiver(own: Federation) -> None:
    def for_the_first(sealed: list[bytes]) -> None:
        sealed[0] = bytes(32)

    total = upload_falsely(own, lambda _: None, for_the_first)
    error = is_refused(lambda: open_members(own, total, "site-a"), own.folder)
    assert isinstance(error, UnsoundError)
    assert error.reason == "seals"
    assert open_members(own, total, "site-b").sites == own.sites


# --- false shares ---------------------------------------------------------------------------------------------


def answer(federation: Federation, *sites: str) -> list[Path]:
    paths = []
    for site in sites:
        paths.append(federation.folder / f"{site}.partial")
        key, total = federation.key(site), federation.folder / "sum.enc"
        if not paths[-1].exists():
            forget(key)  # of another sum of this round, in a test before
            partial_decrypt(total, **common(federation), key=key, output=paths[-1])
    return paths


def open_shared(federation: Federation, partials: list[Path], site: str = "site-a") -> DecryptResult:
    total, key = federation.folder / "sum.enc", federation.key(site)
    output = federation.folder / f"opened-by-{site}"
    return decrypt(total, **common(federation), key=key, output=output, partial=partials, force=True)


def expected(federation: Federation) -> bytes:
    aggregate(federation.updates, **common(federation), output=federation.folder / "plain", force=True)
    return (federation.folder / "plain").read_bytes()


@pytest.mark.parametrize("coefficients", [1, 4096])
@pytest.mark.parametrize("liars", [("site-a",), ("site-e",), ("site-b", "site-d"), ("site-a", "site-e")])
def test_holders_whose_shares_are_false_are_named_and_the_sum_is_opened_without_them(
    shared: Federation, monkeypatch: pytest.MonkeyPatch, liars: tuple[str, ...], coefficients: int
) -> None:
    """One in five is within the code's capacity, two are not, and then the zeros tell."""
    add(shared, shared.folder / "sum.enc")
    answer(shared, *(site for site in SITES if site not in liars))
    for number, site in enumerate(liars):
        with monkeypatch.context() as patch:
            lie_in_partials(patch, coefficients, 2 + 5 * number)
            answer(shared, site)
    for site in SITES:
        result = open_shared(shared, answer(shared, *SITES), site)
        assert result.false_shares == liars
        assert result.aggregate.read_bytes() == expected(shared)
    assert f"without the false shares of {', '.join(liars)}" in str(result)


def test_a_site_that_deals_false_shares_spoils_neither_the_round_nor_its_receivers_name_for_good(
    shared: Federation, tmp_path: Path
) -> None:
    """The member is named whose share is false: that a site has dealt it so, only that member can know."""
    upload_falsely(shared, lambda _: None, deal_falsely([1]), site="site-d")
    result = open_shared(shared, answer(shared, *SITES))
    assert result.false_shares == ("site-b",)
    # at the command line on stderr, and in the result
    arguments = ["--plan", shared.plan, "--roster", shared.roster, "--key", shared.key("site-c"), "-o", tmp_path / "x"]
    said = invoke("decrypt", shared.folder / "sum.enc", *answer(shared, *SITES), *arguments)
    assert said.exit_code == 0
    assert "site-b: its share is false" in said.stderr
    assert "without the false shares of site-b" in said.stdout


def test_too_few_shares_to_say_who_lies_ask_for_more(shared: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    add(shared, shared.folder / "sum.enc")
    with monkeypatch.context() as patch:
        lie_in_partials(patch)
        answer(shared, "site-a")
    given = answer(shared, "site-a", "site-b", "site-c")
    error = is_refused(lambda: open_shared(shared, given), shared.folder)
    assert isinstance(error, UnsettledError)
    assert "shares of site-a, site-b, site-c do not open the sum: fewer than 3" in error.message
    assert error.hint == "ask 1 more of: site-d, site-e"
    # a liar and a holder who is gone: four of five are here
    result = open_shared(shared, [*given, *answer(shared, "site-e")])
    assert result.false_shares == ("site-a",)


def test_more_liars_than_shares_to_spare_end_the_round_when_all_have_answered(
    shared: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(shared, shared.folder / "sum.enc")
    for number, site in enumerate(("site-a", "site-b", "site-c")):
        with monkeypatch.context() as patch:
            lie_in_partials(patch, offset=1 + number**2)
            answer(shared, site)
    partials = answer(shared, *SITES)
    error = is_refused(lambda: open_shared(shared, partials[:4]), shared.folder)
    assert isinstance(error, UnsettledError)
    error = is_refused(lambda: open_shared(shared, partials), shared.folder)
    assert isinstance(error, UnsoundError)
    assert error.reason == "shares"


def test_false_zeros_and_a_false_share_together(shared: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site's lie is found, and no holder is blamed for it."""
    round_ = Round.read(shared.plan, shared.roster)
    upload_falsely(shared, add_to_value(round_, round_.values, 9))
    answer(shared, *SITES[1:])
    with monkeypatch.context() as patch:
        lie_in_partials(patch)
        answer(shared, "site-a")
    error = is_refused(lambda: open_shared(shared, answer(shared, *SITES)), shared.folder)
    assert isinstance(error, UnsoundError)
    assert error.reason == "padding"


def test_a_seal_of_nonsense_to_one_holder_names_its_site_and_the_others_open(shared: Federation) -> None:
    def nonsense(sealed: list[bytes]) -> None:
        sealed[0] = np.full(4096, 65535, "<u2").tobytes()

    upload_falsely(shared, lambda _: None, nonsense)
    result = open_shared(shared, answer(shared, *SITES))  # added modulo the prime, it is a share like another
    assert result.false_shares == ("site-a",)
    with pytest.raises(SignatureError):
        open_shared(shared, answer(shared, *SITES[:3]))
