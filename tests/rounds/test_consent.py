"""Consent: a coordinator's signature alone weakens nothing that a site agreed to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import to_set
from federation import SHAPES, Federation, accept_all, forget, make_federation, random_arrays

from ucadi.commands.aggregate import aggregate
from ucadi.commands.encrypt import encrypt
from ucadi.commands.inspect import inspect_file
from ucadi.commands.keygen import keygen
from ucadi.commands.ledger import ledger_accept_loss, ledger_show
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.roster import roster_add, roster_create, roster_remove, roster_rotate
from ucadi.commands.roster_accept import roster_accept
from ucadi.commands.round_open import round_open
from ucadi.errors import ConsentError, FormatError, MismatchError, SignatureError, UcadiError, UsageError
from ucadi.fed.update import Update
from ucadi.files import file_digest
from ucadi.formats import consent as consent_format
from ucadi.formats import keys as key_format
from ucadi.formats import policy as policy_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import roster as roster_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.policy import SitePolicy
from ucadi.formats.receipt import Receipt
from ucadi.formats.signed import sign, write_document
from ucadi.rounds.acceptance import propose
from ucadi.rounds.consenting import Agreement
from ucadi.settings import settings_of

SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Five of five open a sum of five. Not to be changed."""
    return make_federation(tmp_path_factory.mktemp("five"), SITES, minimum_sites=5, threshold=5)


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


def upload(own: Federation, site: str = "site-a", name: str = "x.enc", **changed: Any) -> Path:
    options = {"plan": own.plan, "roster": own.roster, "key": own.key(site), "output": own.folder / name, **changed}
    encrypt(options.pop("update", own.update(site)), **options)
    return own.folder / name


def accept(own: Federation, roster: Path, site: str = "site-a", **options: Any) -> Path:
    return roster_accept(roster, key=own.key(site), yes=file_digest(roster), **options).consent


def new_update(own: Federation, name: str, base: Path, seed: int, site: str = "site-a") -> Path:
    deltas = random_arrays(np.random.default_rng(seed), SHAPES, 0.01)
    path = own.folder / name
    update_format.write_update(path, Update(site, weights_format.read(base).digest, 100, 1, deltas))
    return path


# --- rosters ----------------------------------------------------------------------------------------


@pytest.fixture
def weaker(own: Federation) -> Path:
    """What a coordinator signs alone: the victim, an invented member, and any one of them opens a sum of two."""
    keygen("phantom", output=own.folder)
    members = tuple(key_format.read_key(own.key(name)).public for name in ("phantom", "site-a"))
    held = roster_format.read(own.roster)
    policy = roster_format.Policy("members", 2, 1)
    path = own.folder / "federation-0002.json"
    new = replace(held, members=members, policy=policy, sequence=2, previous=held.digest)
    roster_format.write(path, new, key_format.read_key(own.key("coordinator")))
    return path


def plan_under(own: Federation, roster: Path, name: str = "plan-2.json", **options: Any) -> Path:
    path = own.folder / name
    number = options.pop("number", 2)
    round_open(number=number, base=own.base, roster=roster, key=own.key("coordinator"), output=path, **options)
    return path


def test_a_roster_that_nobody_at_the_site_accepted_gets_no_update(own: Federation, weaker: Path) -> None:
    plan = plan_under(own, weaker)
    accept(own, weaker, "phantom")
    ledger = own.key("site-a").with_suffix(".ledger").read_bytes()
    with pytest.raises(ConsentError, match="roster 2 of test is not accepted by this site") as caught:
        upload(own, plan=plan, roster=weaker)
    assert "ucadi roster accept" in str(caught.value.hint)
    assert not (own.folder / "x.enc").exists()
    assert own.key("site-a").with_suffix(".ledger").read_bytes() == ledger


def test_people_see_what_a_roster_changes(own: Federation, weaker: Path) -> None:
    keys = key_format.read_key(own.key("site-a"))
    shown = str(propose(weaker, keys, Agreement(own.key("site-a"), keys)))
    assert "joins        phantom" in shown
    assert all(f"leaves       {site}" in shown for site in SITES[1:])
    assert "now          any member opens a sum of 2 sites or more" in shown
    assert roster_format.read(weaker).fingerprint in shown
    assert len(shown.splitlines()) <= 20


def test_even_an_accepted_one_is_within_the_policy(own: Federation, weaker: Path) -> None:
    accept(own, weaker)
    accept(own, weaker, "phantom")
    with pytest.raises(ConsentError, match="members_mode = false") as caught:
        upload(own, plan=plan_under(own, weaker), roster=weaker)
    assert "site-a.policy.toml" in str(caught.value.hint)


def test_a_member_whom_nobody_else_saw_does_not_come_in(own: Federation) -> None:
    """A site accepts in good faith; the others do not, and the coordinator cannot consent for them."""
    keygen("phantom", output=own.folder)
    roster = own.folder / "federation-0002.json"
    coordinator = own.key("coordinator")
    roster_add([own.folder / "phantom.card"], roster=own.roster, key=coordinator, output=roster)
    plan = plan_under(own, roster)
    accept(own, roster)
    accept(own, roster, "phantom")
    forged = own.folder / "consents/site-b-0002.json"
    shutil.copy(own.folder / "consents/phantom-0002.json", forged)
    with pytest.raises(ConsentError, match="no consent of site-b, site-c, site-d, site-e in"):
        upload(own, plan=plan, roster=roster)
    forged.unlink()
    accept_all(roster, [own.key(site) for site in SITES[1:]])
    upload(own, plan=plan, roster=roster)


@pytest.mark.parametrize(
    "change",
    [{"roster": "0" * 64}, {"sequence": 3}, {"federation": "other"}, {"site": "site-b"}, {"size_band": 100}],
)
def test_a_consent_to_something_else_is_none(own: Federation, change: dict[str, Any]) -> None:
    path = own.folder / "consents/site-c-0001.json"
    keys = key_format.read_key(own.key("site-c"))
    consent = consent_format.read(path, keys.public)
    consent_format.write(path, replace(consent, **change), keys, force=True)
    with pytest.raises(ConsentError, match="no consent of site-c"):
        upload(own)


def test_a_chain_is_followed_and_a_fork_is_refused(own: Federation, tmp_path: Path) -> None:
    key, second, third = (
        own.key("coordinator"),
        own.folder / "federation-0002.json",
        own.folder / "federation-0003.json",
    )
    roster_remove(["site-e"], roster=own.roster, key=key, output=second, threshold=4, minimum_sites=4)
    roster_remove(["site-d"], roster=second, key=key, output=third, threshold=3, minimum_sites=3)
    with pytest.raises(ConsentError, match="roster 2 comes before it"):
        accept(own, third)
    accept(own, second)
    accept(own, third)
    for earlier in (own.roster, second):
        with pytest.raises(MismatchError, match="roster 3 is accepted here"):
            accept(own, earlier)
    fork, fourth = own.folder / "federation-0003b.json", tmp_path / "federation-0004.json"
    roster_remove(["site-c"], roster=second, key=key, output=fork, threshold=3, minimum_sites=3)
    with pytest.raises(MismatchError, match="roster 3 is accepted here"):
        accept(own, fork)
    keygen("site-f", output=tmp_path)
    roster_add([tmp_path / "site-f.card"], roster=fork, key=key, output=fourth)
    for beside in (second, fork, third):
        shutil.copy(beside, tmp_path)
    with pytest.raises(MismatchError, match="does not follow from roster 3"):
        accept(own, fourth)


def test_a_roster_whose_forebears_are_not_here(own: Federation, tmp_path: Path) -> None:
    key, second, third = own.key("coordinator"), own.folder / "federation-0002.json", tmp_path / "federation-0003.json"
    roster_remove(["site-e"], roster=own.roster, key=key, output=second, threshold=4, minimum_sites=4)
    roster_remove(["site-d"], roster=second, key=key, output=third, threshold=3, minimum_sites=3)
    with pytest.raises(MismatchError, match="does not follow from roster 1") as caught:
        accept(own, third)
    assert "put all rosters" in str(caught.value.hint)


def test_of_another_coordinator(own: Federation, tmp_path: Path) -> None:
    keygen("coordinator", output=tmp_path)
    roster = tmp_path / "federation-0002.json"
    held = roster_format.read(own.roster)
    keys = key_format.read_key(tmp_path / "coordinator.key")
    roster_format.write(roster, replace(held, coordinator=keys.public, sequence=2, previous=held.digest), keys)
    with pytest.raises(MismatchError, match="the trusted roster is of test"):
        accept(own, roster)


def test_one_accepts_what_one_has_compared(own: Federation, weaker: Path) -> None:
    for yes in ("", "yes", file_digest(own.roster), file_digest(weaker)[:20]):
        with pytest.raises(ConsentError, match="not the one given with --yes"):
            roster_accept(weaker, key=own.key("site-a"), yes=yes)
    roster_accept(weaker, key=own.key("site-a"), yes=f"{file_digest(weaker)}  -\n")  # what sha256sum prints


def test_accepting_again_changes_nothing(own: Federation) -> None:
    before = {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()}
    accept(own, own.roster)
    assert {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()} == before
    with pytest.raises(UsageError, match="another size band"):
        accept(own, own.roster, size_band=100)
    (own.folder / "consents/site-a-0001.json").unlink()
    accept(own, own.roster)
    assert {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()} == before


def test_a_roster_of_two_hundred_fits_a_screen(tmp_path: Path) -> None:
    names = [f"site-{number:03}" for number in range(200)]
    for name in ("coordinator", *names):
        keygen(name, output=tmp_path)
    cards, roster = [tmp_path / f"{name}.card" for name in names], tmp_path / "federation.json"
    roster_create(cards, federation="wide", key=tmp_path / "coordinator.key", output=roster)
    key = tmp_path / "site-000.key"
    keys = key_format.read_key(key)
    shown = str(propose(roster, keys, Agreement(key, keys)))
    assert len(shown.splitlines()) <= 20
    assert "ucadi roster show" in shown


def test_rosters_are_in_threshold_mode_unless_asked_otherwise(own: Federation) -> None:
    cards = [own.folder / f"{site}.card" for site in SITES]
    options: dict[str, Any] = {"federation": "test", "key": own.key("coordinator"), "force": True}
    for members, policy in {3: (3, 3), 4: (3, 3), 5: (4, 3)}.items():
        roster_create(cards[:members], output=own.folder / "new.json", **options)
        held = roster_format.read(own.folder / "new.json").policy
        assert (held.mode, held.threshold, held.minimum_sites) == ("threshold", *policy)
    with pytest.raises(UsageError, match="no mode"):
        roster_create(cards, output=own.folder / "new.json", mode="any", **options)
    with pytest.raises(UsageError, match="any one member opens"):
        roster_create(cards, output=own.folder / "new.json", mode="members", threshold=3, **options)


# --- the policy -------------------------------------------------------------------------------------

ORDERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "minimum_sites": ({"minimum_sites": 6}, {}, "a sum of 5 sites or more"),
    "least_threshold": ({"least_threshold": 6}, {}, "a sum that 5 members open"),
    "lot": ({"minimum_sites": 3}, {"site": list(SITES[:4])}, "no place for site-e"),
    "largest_weight_cap": ({"largest_weight_cap": 1000}, {}, "a weight cap of 65536"),
    "largest_epochs": ({"largest_epochs": 2}, {"settings": to_set(local_epochs=3)}, "3 epochs"),
    "least_noise": ({"least_noise": 1.0}, {"settings": to_set(noise=0.5, clip_norm=1.0)}, "noise of 0.5"),
}


@pytest.mark.parametrize("setting", ORDERS)
def test_a_round_that_the_policy_excludes(own: Federation, setting: str) -> None:
    policy, order, says = ORDERS[setting]
    plan = plan_under(own, own.roster, number=1, **order)
    path = own.folder / "site-a.policy.toml"
    policy_format.write(path, replace(policy_format.read(path), **policy), force=True)
    with pytest.raises(ConsentError, match=says) as caught:
        upload(own, plan=plan)
    assert f"{setting} = " in caught.value.message
    assert caught.value.exit_code == 11


def test_the_policy_is_ones_own_and_stays(own: Federation) -> None:
    path = own.folder / "site-a.policy.toml"
    before = path.read_bytes()
    accept(own, own.roster)
    assert path.read_bytes() == before
    accept(own, own.roster, settings=["largest_epochs=7"])
    assert policy_format.read(path) == replace(policy_format.read(own.folder / "site-b.policy.toml"), largest_epochs=7)
    for text in ("largest_epochs = 0\n", "unheard_of = 1\n", "largest_epochs = \n", "\x00"):
        path.write_text(text)
        with pytest.raises(FormatError):
            upload(own)


def test_inspect_shows_it(own: Federation) -> None:
    facts = inspect_file(own.folder / "site-a.policy.toml").facts
    assert (facts["least_threshold"], facts["members_mode"], facts["wait_for_tags"]) == (5, False, None)


def test_what_is_written_is_what_is_read(own: Federation) -> None:
    path = own.folder / "site-a.policy.toml"
    for policy in (
        SitePolicy(),
        SitePolicy(4, True, 3, True, 256, 7, 1.5, False, 72.0),
        SitePolicy(wait_for_tags=0.0),
    ):
        policy_format.write(path, policy, force=True)
        assert policy_format.read(path) == policy


def test_defaults_ask_for_more_than_half(made: Federation) -> None:
    roster = roster_format.read(made.roster)
    assert policy_format.default_for(roster) == SitePolicy(minimum_sites=3, least_threshold=5)
    two = replace(roster, members=roster.members[:2])
    assert policy_format.default_for(two).minimum_sites == 2


def test_a_policy_file_says_everything(own: Federation) -> None:
    text = (own.folder / "site-a.policy.toml").read_text()
    assert all(f"\n{name} = " in text or f"\n# {name} = " in text for name in settings_of(SitePolicy))


def test_holders_refuse_a_small_sum_of_a_large_federation(tmp_path: Path) -> None:
    """Six of six, sums of three: the coordinator and two members plan for themselves and one victim."""
    sites = tuple(f"site-{letter}" for letter in "abcdef")
    own = make_federation(tmp_path, sites, minimum_sites=3, threshold=6)
    for site in sites:  # as `roster accept` writes it, with nothing set
        policy = policy_format.default_for(roster_format.read(own.roster))
        policy_format.write(own.folder / f"{site}.policy.toml", policy, force=True)
    three = plan_under(own, own.roster, number=1, site=list(sites[:3]))
    with pytest.raises(ConsentError, match="minimum_sites = 4"):
        upload(own, "site-a", plan=three)
    quorum = plan_under(own, own.roster, "quorum.json", number=1, quorum=3)
    with pytest.raises(ConsentError, match="minimum_sites = 4"):
        upload(own, "site-a", plan=quorum)
    loose = SitePolicy(minimum_sites=2, least_threshold=1, lot=True)
    for site in sites[:3]:  # as if the victim's people had edited their policy; the holders' have not
        policy_format.write(own.folder / f"{site}.policy.toml", loose, force=True)
    with pytest.raises(ConsentError, match="whom the lot does not draw"):
        upload(own, "site-a", plan=three)
    for site in sites[:3]:
        upload(own, site, f"{site}.enc", plan=quorum)
    total = own.folder / "sum.enc"
    uploads = [own.ciphertext(site) for site in sites[:3]]
    aggregate(uploads, plan=quorum, roster=own.roster, key=own.key("coordinator"), output=total)
    for site in sites[3:]:
        with pytest.raises(ConsentError, match="minimum_sites = 4"):
            partial_decrypt(total, plan=quorum, roster=own.roster, key=own.key(site), output=own.folder / "p")
    assert not (own.folder / "p").exists()


# --- one update, one plan ---------------------------------------------------------------------------


def test_one_update_is_encrypted_for_one_plan(own: Federation) -> None:
    upload(own)
    upload(own, name="again.enc")  # the same again: a file may be lost on the way
    other = plan_under(own, own.roster, number=2)
    with pytest.raises(MismatchError, match="encrypted before, for round 1"):
        upload(own, name="y.enc", plan=other)
    reopened = plan_under(own, own.roster, "plan-1b.json", number=1, quorum=4)
    fresh = new_update(own, "fresh.update", own.base, 1)
    with pytest.raises(MismatchError, match="another plan of that number"):
        upload(own, name="y.enc", plan=reopened, update=fresh)
    with pytest.raises(MismatchError, match="another update was encrypted for this round"):
        upload(own, name="y.enc", update=fresh)
    with pytest.raises(MismatchError, match="contributed to a round from base"):
        upload(own, name="y.enc", plan=other, update=fresh)
    assert not (own.folder / "y.enc").exists()


def test_what_the_file_says_beside_the_update_does_not_make_it_another(own: Federation) -> None:
    upload(own)
    update = update_format.read_update(own.update("site-a"))
    relabelled = own.folder / "relabelled.update"
    examples, epochs = update.weight, 1
    update_format.write_update(relabelled, replace(update, examples=examples, epochs=epochs, plan=None))
    with pytest.raises(MismatchError, match="encrypted before, for round 1"):
        upload(own, name="y.enc", plan=plan_under(own, own.roster, number=2), update=relabelled)


def receipt_of(own: Federation, plan: Path, status: str) -> Path:
    path = own.folder / f"{status}-receipt.json"
    base = weights_format.read(own.base).digest
    total = None if status == "void" else "0" * 64
    receipt = Receipt("test", 1, file_digest(plan), base, status, {}, {}, own.sites, total, None)  # type: ignore[arg-type]
    receipt_format.write(path, receipt, key_format.read_key(own.key("coordinator")))
    return path


def test_after_a_void_round_a_site_trains_anew_from_the_same_base(own: Federation) -> None:
    upload(own)
    other, fresh = plan_under(own, own.roster, number=2), new_update(own, "fresh.update", own.base, 1)
    for receipt, says in (
        (receipt_of(own, own.plan, "closed"), "not void"),
        (receipt_of(own, other, "void"), "contributed to a round from base"),  # of a round that it has not sent to
    ):
        with pytest.raises(MismatchError, match=says):
            upload(own, name="y.enc", plan=other, update=fresh, receipt=[receipt])
        receipt.unlink()
    void = receipt_of(own, own.plan, "void")
    with pytest.raises(MismatchError, match="encrypted before"):  # not with the update of before
        upload(own, name="y.enc", plan=other, receipt=[void])
    upload(own, name="y.enc", plan=other, update=fresh, receipt=[void])


def test_what_does_not_fit_is_not_entered(own: Federation) -> None:
    ledger = own.key("site-a").with_suffix(".ledger")
    before = ledger.read_bytes()
    deltas = {name: 1e9 * array for name, array in random_arrays(np.random.default_rng(1), SHAPES, 1.0).items()}
    update_format.write_update(
        own.folder / "large.update", Update("site-a", weights_format.read(own.base).digest, 9, 1, deltas)
    )
    with pytest.raises(UcadiError, match="times its range"):
        upload(own, update=own.folder / "large.update")
    (own.folder / "taken.enc").write_bytes(b"")
    with pytest.raises(UcadiError, match="exists already"):
        upload(own, name="taken.enc")
    assert ledger.read_bytes() == before


def test_a_coordinator_sums_one_set_a_round(own: Federation) -> None:
    own.encrypt_all()
    options: dict[str, Any] = {"plan": own.plan, "roster": own.roster, "key": own.key("coordinator")}
    aggregate(own.ciphertexts, output=own.folder / "sum.enc", **options)
    aggregate(own.ciphertexts[::-1], output=own.folder / "again.enc", **options)
    assert (own.folder / "sum.enc").read_bytes() == (own.folder / "again.enc").read_bytes()
    own.ciphertext("site-b").unlink()
    upload(own, "site-b", "site-b.enc")  # another ciphertext of the same update
    with pytest.raises(MismatchError, match="summed before, of site-a, site-b"):
        aggregate(own.ciphertexts, output=own.folder / "other.enc", **options)
    assert not (own.folder / "other.enc").exists()


# --- the ledger -------------------------------------------------------------------------------------


def test_a_key_without_its_ledger_does_nothing(own: Federation, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    shutil.copy(own.key("site-a"), copied)
    with pytest.raises(MismatchError, match="the ledger of this key is not here") as caught:
        upload(own, key=copied / "site-a.key")
    assert "accept-loss" in str(caught.value.hint)
    upload(own)
    (copied / "link.key").symlink_to(own.key("site-a"))
    fresh = new_update(own, "fresh.update", own.base, 1)
    with pytest.raises(MismatchError, match="another update was encrypted"):
        upload(own, name="y.enc", update=fresh, key=copied / "link.key")


def test_a_ledger_of_another_key_or_of_another_hand(own: Federation) -> None:
    ledger = own.key("site-a").with_suffix(".ledger")
    whole = ledger.read_bytes()
    shutil.copy(own.key("site-b").with_suffix(".ledger"), ledger)
    with pytest.raises(MismatchError, match="the ledger of another key of site-b"):
        upload(own)
    first, second = whole.splitlines(keepends=True)
    damaged = [
        whole.replace(b'"site":"site-a"', b'"site":"site-b"'),
        first + second.replace(b'"accepted"', b'"promised"'),
        b"",
        b"{}\n",
        second,
        whole + second,
    ]
    for content in damaged:
        ledger.write_bytes(content)
        with pytest.raises(UcadiError):
            upload(own)
        assert not (own.folder / "x.enc").exists()


def test_half_a_line_is_of_one_who_was_killed(own: Federation) -> None:
    ledger = own.key("site-a").with_suffix(".ledger")
    whole = ledger.read_bytes()
    for cut in (b'{"previous":"', b"{", b'{"base":"' + b"0" * 64 + b'"}'):
        ledger.write_bytes(whole + cut)
        upload(own, name=f"{len(cut)}.enc")
        assert ledger_show(own.key("site-a")).lines[-1] == "encrypted an update for round 1 of test"
        assert ledger.read_bytes().startswith(whole)


def test_a_lost_ledger_is_begun_anew_only_by_people(own: Federation) -> None:
    own.encrypt_all()
    ledger = own.key("site-a").with_suffix(".ledger")
    ledger.unlink()
    with pytest.raises(ConsentError, match="nobody is at this terminal"):
        ledger_accept_loss(key=own.key("site-a"))
    assert not ledger.exists()
    ledger_accept_loss(key=own.key("site-a"), yes=True)
    assert ledger_show(own.key("site-a")).lines == ("an earlier ledger was lost",)
    with pytest.raises(ConsentError, match="is not accepted by this site"):
        upload(own)


def test_new_keys_take_the_ledger_of_the_old_ones(own: Federation) -> None:
    upload(own)
    new = own.folder / "new"
    new.mkdir()
    keygen("site-a", output=new, replaces=own.key("site-a"))
    roster = own.folder / "federation-0002.json"
    roster_rotate([new / "site-a.card"], roster=own.roster, key=own.key("coordinator"), output=roster)
    with pytest.raises(MismatchError, match="lists other keys for site-a"):
        accept(own, roster)
    keys = {site: own.key(site) for site in SITES} | {"site-a": new / "site-a.key"}
    accept_all(roster, list(keys.values()))
    plan = plan_under(own, roster)
    with pytest.raises(MismatchError, match="encrypted before, for round 1"):
        upload(own, name="y.enc", plan=plan, roster=roster, key=keys["site-a"])
    # rounds of before are answered with the key of before, from the same ledger
    assert ledger_show(own.key("site-a")).lines == ledger_show(keys["site-a"]).lines
    forget(own.key("site-a").resolve())


def test_one_key_is_not_for_a_coordinator_that_is_no_member(own: Federation) -> None:
    with pytest.raises(MismatchError, match="coordinator is not in the roster"):
        accept(own, own.roster, "coordinator")


@pytest.mark.parametrize("changed", [{"sequence": 0}, {"sequence": 2}, {"previous": "0" * 64}, {"sequence": 10_000}])
def test_a_roster_that_is_no_link_of_a_chain(own: Federation, changed: dict[str, Any]) -> None:
    document = {**json.loads(own.roster.read_text()), **changed}
    del document["signature"]
    write_document(own.roster, sign(document, key_format.read_key(own.key("coordinator"))), force=True)
    with pytest.raises((FormatError, SignatureError)):
        roster_format.read(own.roster)
