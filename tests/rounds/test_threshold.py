"""Threshold mode on files: enough holders open a sum, each answers once, coalitions below it open nothing."""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, forget, make_federation

from ucadi.commands.aggregate import aggregate
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.roster import roster_create
from ucadi.errors import MismatchError, SignatureError, UcadiError, UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.formats.signed import sign
from ucadi.lwe import scheme, shamir
from ucadi.lwe.parameters import DEGREE
from ucadi.rounds.round import Round

SITES = ("site-a", "site-b", "site-c", "site-d")
THRESHOLD = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three of four holders needed; all four uploaded, and their sum is `sum.enc`. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("threshold"), SITES, minimum_sites=3, threshold=THRESHOLD)
    federation.plan.unlink()
    federation.open_round(1, federation.plan, quorum=3)
    federation.encrypt_all()
    add(federation, SITES, "sum.enc")
    for site in SITES:
        answer(federation, site)
    return federation


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    """A copy of it that a test may change."""
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


def add(federation: Federation, sites: tuple[str, ...], name: str) -> Path:
    output = federation.folder / name
    uploads = [federation.ciphertext(site) for site in sites]
    key = federation.key("coordinator")
    forget(key)  # by itself, it sums one set a round
    aggregate(uploads, plan=federation.plan, roster=federation.roster, key=key, output=output)
    return output


def answer(federation: Federation, site: str, total: str = "sum.enc", name: str | None = None) -> Path:
    output = federation.folder / (name or f"{site}.partial")
    key = federation.key(site)
    partial_decrypt(federation.folder / total, plan=federation.plan, roster=federation.roster, key=key, output=output)
    return output


def answers(federation: Federation, sites: tuple[str, ...]) -> list[Path]:
    return [federation.folder / f"{site}.partial" for site in sites]


def open_sum(federation: Federation, given: list[Path], output: Path, site: str = "site-a") -> Path:
    total, key = federation.folder / "sum.enc", federation.key(site)
    decrypt(total, plan=federation.plan, roster=federation.roster, key=key, output=output, partial=given)
    return output


def test_every_sufficient_set_of_holders_opens_the_sum_of_the_updates(made: Federation, tmp_path: Path) -> None:
    aggregate(made.updates, plan=made.plan, roster=made.roster, output=tmp_path / "plain")
    expected = (tmp_path / "plain").read_bytes()
    sets = [s for size in (3, 4) for s in itertools.permutations(SITES, size)]
    for number, holders in enumerate(sets):
        opened = open_sum(made, answers(made, holders), tmp_path / str(number), SITES[number % 4])
        assert opened.read_bytes() == expected


def test_a_site_may_vanish_before_or_after_its_upload(own: Federation) -> None:
    for path in (*own.folder.glob("*.partial"), own.folder / "sum.enc"):
        path.unlink()
    for key in own.folder.glob("*.key"):
        forget(key)
    add(own, ("site-a", "site-b", "site-c"), "sum.enc")  # site-d never uploads
    for site in ("site-b", "site-c", "site-d"):  # site-a uploads and vanishes
        answer(own, site)
    opened = open_sum(own, answers(own, ("site-b", "site-c", "site-d")), own.folder / "opened", "site-b")
    three = [own.update(site) for site in ("site-a", "site-b", "site-c")]
    aggregate(three, plan=own.plan, roster=own.roster, output=own.folder / "plain")
    assert opened.read_bytes() == (own.folder / "plain").read_bytes()


def test_too_few_answers(made: Federation, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="2 of 3 partial decryptions") as caught:
        open_sum(made, answers(made, ("site-a", "site-c")), tmp_path / "x")
    assert caught.value.hint == "ask 1 more of: site-b, site-d"
    with pytest.raises(MismatchError, match="two partial decryptions of site-a"):
        open_sum(made, answers(made, ("site-a", "site-a", "site-b")), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_holder_asked_for_two_sets_refuses_the_second(own: Federation) -> None:
    add(own, ("site-a", "site-b", "site-c"), "other.enc")
    with pytest.raises(MismatchError, match="already decrypted for another set"):
        answer(own, "site-a", "other.enc", "second.partial")
    assert not (own.folder / "second.partial").exists()
    # the same set again is the same answer again: an answer may be lost on the way
    again = answer(own, "site-a", name="again.partial")
    opened = open_sum(own, [again, *answers(own, ("site-b", "site-c"))], own.folder / "opened")
    assert opened.exists()


def test_a_second_upload_of_a_site_is_another_set(own: Federation) -> None:
    own.ciphertext("site-b").unlink()
    key = own.key("site-b")
    encrypt(own.update("site-b"), plan=own.plan, roster=own.roster, key=key, output=own.ciphertext("site-b"))
    add(own, SITES, "other.enc")
    with pytest.raises(MismatchError, match="already decrypted for another set"):
        answer(own, "site-a", "other.enc", "second.partial")


def _race(federation: Federation, total: str, results: multiprocessing.Queue[str]) -> None:
    try:
        answer(federation, "site-a", total, f"race-{total}.partial")
        results.put(total)
    except UcadiError:
        results.put("refused")


def test_of_two_sets_at_the_same_time_one_is_answered(own: Federation) -> None:
    forget(own.key("site-a"))
    add(own, ("site-a", "site-b", "site-c"), "other.enc")
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        results = context.Queue()
        racers = [context.Process(target=_race, args=(own, total, results)) for total in ("sum.enc", "other.enc")]
        for racer in racers:
            racer.start()
        outcome = sorted(results.get(timeout=60) for _ in racers)
        for racer in racers:
            racer.join(60)
        assert outcome.count("refused") == 1
        for path in own.folder.glob("race-*"):
            path.unlink()
        forget(own.key("site-a"))


def test_a_set_of_one_or_two_is_never_answered(own: Federation) -> None:
    """The coordinator itself is hostile: it signs sums that its own program would refuse to make."""
    for count in (1, 2):
        held = container.read(own.folder / "sum.enc")
        kept = held.metadata["contributions"][:count]
        uploads = [ciphertext_format.read_ciphertext(own.ciphertext(c["site"])) for c in kept]
        tensors = {
            "ciphertext": scheme.add(upload.ciphertext for upload in uploads),
            "sealed": np.stack([upload.sealed for upload in uploads]),
        }
        digests = {name: container.tensor_digest(tensor) for name, tensor in tensors.items()}
        document = {**held.metadata, "contributions": kept, "digests": digests}
        few = own.folder / f"few-{count}.enc"
        container.write(few, tensors, sign(document, key_format.read_key(own.key("coordinator"))))
        forget(own.key("site-a"))
        with pytest.raises(MismatchError, match=f"{count} of at least 3"):
            answer(own, "site-a", few.name, "x.partial")


def test_policies_that_would_open_small_sums_are_refused(own: Federation) -> None:
    cards = [own.folder / f"{site}.card" for site in SITES]
    for options in ({"minimum_sites": 2, "threshold": 2}, {"threshold": 1}, {"threshold": 5}):
        with pytest.raises(UsageError, match="threshold"):
            roster_create(cards, federation="t", key=own.key("coordinator"), output=own.folder / "x", **options)  # type: ignore[arg-type]


def test_an_answer_under_another_name_for_another_sum_or_changed(own: Federation) -> None:
    good = answers(own, SITES[:3])
    held = container.read(good[0])
    for change, error in (
        ({"site": "site-d"}, "not that of site-d"),
        ({"contributions": "0" * 64}, "not that of site-a"),
        ({"plan": "0" * 64}, "for another sum"),
    ):
        bad = own.folder / "bad.partial"
        container.write(bad, held.tensors, {**held.metadata, **change}, force=True)
        with pytest.raises(UcadiError, match=error):
            open_sum(own, [bad, *good[1:]], own.folder / "x")
    # site-a itself answers for another set
    document = sign({**held.metadata, "contributions": "0" * 64}, key_format.read_key(own.key("site-a")))
    container.write(bad, held.tensors, document, force=True)
    with pytest.raises(MismatchError, match="for another sum"):
        open_sum(own, [bad, *good[1:]], own.folder / "x")
    # site-d signs site-a's answer as its own: the seals are bound to site-a
    document = sign({**held.metadata, "site": "site-d"}, key_format.read_key(own.key("site-d")))
    container.write(bad, held.tensors, document, force=True)
    with pytest.raises(SignatureError, match="does not open"):
        open_sum(own, [bad, *good[1:]], own.folder / "x")
    data = bytearray(good[0].read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    with pytest.raises(SignatureError, match="not what was signed"):
        open_sum(own, [bad, *good[1:]], own.folder / "x")


def test_coalitions_below_the_threshold_with_the_aggregator_open_nothing(made: Federation) -> None:
    """They have every file, and the keys of two holders; they try to open site-d's update."""
    victim = ciphertext_format.read_ciphertext(made.ciphertext("site-d"))
    round_ = Round.read(made.plan, made.roster)
    zeros_at = round_.values

    def opens(secret: np.ndarray) -> bool:
        try:
            next(scheme.decrypt(victim.ciphertext, round_.values, 1, round_.packing, round_.public_seed, secret))
        except UcadiError:
            return False
        return True

    for coalition in itertools.combinations(range(3), THRESHOLD - 1):
        shares = {}
        for place in coalition:
            keys = key_format.read_key(made.key(SITES[place]))
            context = round_.seal_context("site-d", keys.name, victim.contribution.ciphertext_digest)
            opened = keys.open(victim.sealed[place].tobytes(), context)
            shares[place] = np.frombuffer(opened, dtype="<u2")
            for other in set(range(4)) - {place}:  # nobody opens a seal that is another's
                with pytest.raises(SignatureError):
                    keys.open(victim.sealed[other].tobytes(), context)
        assert not opens(shamir.combine(shares, THRESHOLD - 1))  # as if the threshold were lower
        shares[3] = np.zeros(DEGREE, dtype="<u2")  # or with a guess for the share that is missing
        assert not opens(shamir.combine(shares, THRESHOLD))
    assert zeros_at < victim.ciphertext.size * 2

    # the aggregator alone: no secret, and the ciphertext's words are as good as random
    assert not opens(np.zeros(DEGREE, dtype=np.int64))
    words = np.asarray(victim.ciphertext).ravel().astype(np.float64) / 2.0**64
    assert abs(words.mean() - 0.5) < 6 / np.sqrt(12 * words.size)


def test_the_aggregator_cannot_read_an_answer(made: Federation) -> None:
    keys = key_format.read_key(made.key("coordinator"))
    partial = partial_format.read(made.folder / "site-a.partial")
    for row in partial.sealed:
        with pytest.raises(SignatureError):
            keys.open(row.tobytes(), b"")


def test_modes_do_not_mix(made: Federation, tmp_path: Path) -> None:
    plain = make_federation(tmp_path)
    plain.encrypt_all()
    add(plain, plain.sites, "sum.enc")
    with pytest.raises(UsageError, match="one member's key"):
        answer(plain, "site-a")
    with pytest.raises(UsageError, match="one key"):
        open_sum(plain, answers(made, ("site-a",)), tmp_path / "x")
