"""Sealing keys for one round: what a thief of every long-term key cannot open, and what happens when one is lost."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
from federation import copy_key, forget
from looping import Hub, make_hub, run_until_killed

from ucadi.commands.decrypt import decrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.errors import FormatError, MismatchError, SignatureError
from ucadi.federation.site import site_run
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.formats import statement as statement_format
from ucadi.formats.container import canonical_json
from ucadi.formats.exchange import Exchange
from ucadi.formats.signed import read_document, sign
from ucadi.identity import public_sealing
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_round, read_total
from ucadi.rounds.sealing import members_here, round_keys
from ucadi.rounds.threshold import open_partial

MODES = pytest.mark.parametrize("threshold", [None, 2], ids=["members", "threshold"])


def play(hub: Hub, number: int) -> None:
    """A round up to its end at every site; those whose turn came too early get another."""
    for site in hub.sites:
        hub.site(site, until_round=number)
    hub.coordinate(until_round=number)
    for site in hub.sites * 2:
        hub.site(site, until_round=number)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, Hub]:
    """Three rounds are planned, one is over; in members mode and in threshold mode. Not to be changed."""
    hubs = {}
    for threshold in (None, 2):
        folder = tmp_path_factory.mktemp("begun") / "hub"
        hubs[threshold] = make_hub(folder, rounds=3, threshold=threshold, minimum_sites=3 if threshold else 2, quorum=2)
        play(hubs[threshold], 1)
        hubs[threshold].coordinate()  # opens round 2
    return hubs


def opens(hub: Hub, number: int, thief: Path, output: Path) -> bool:
    """Whether somebody with every long-term key, and all files of the exchange, opens the round's sum."""
    exchange = Exchange(hub.exchange)
    signed = {"plan": exchange.plan(number), "roster": exchange.roster(number)}
    total, output = exchange.sum(number), output / f"{number}"
    output.mkdir(parents=True)
    answers = [exchange.root / place.name for place in exchange.places(Kind.PARTIAL, number)]
    if read_round(exchange, number).plan.mode == "threshold":
        for site in hub.sites:  # with answers of the thief's own making
            try:
                made = output / f"{site}.partial"
                forget(thief / f"{site}.key")
                partial_decrypt(total, key=thief / f"{site}.key", output=made, **signed)
            except SignatureError:
                continue
            answers = [*[path for path in answers if path.name != made.name], made]
    for site in hub.sites:
        try:
            decrypt(total, partial=answers, key=thief / f"{site}.key", output=output / f"{site}.aggregate", **signed)
        except SignatureError:
            continue
        return True
    return False


def seals_that_open(hub: Hub, number: int, thief: Path) -> int:
    """How many of the seals in the uploads, the sum and the partial decryptions open to the long-term keys."""
    exchange, opened = Exchange(hub.exchange), 0
    round_ = read_round(exchange, number)
    uploads = [ciphertext_format.read_ciphertext(path) for path in exchange.uploads(number).iterdir()]
    answers = [partial_format.read(exchange.root / place.name) for place in exchange.places(Kind.PARTIAL, number)]
    for place, site in enumerate(round_.roster.names):
        keys = key_format.read_key(thief / f"{site}.key")
        for upload in uploads:
            who = upload.contribution
            context = round_.seal_context(who.site, site, who.ciphertext_digest)
            try:
                keys.open(upload.sealed[place].tobytes(), context)
            except SignatureError:
                continue
            opened += 1
        for answer in answers:
            try:
                open_partial(answer, round_, keys)
            except SignatureError:
                continue
            opened += 1
    return opened


@MODES
def test_afterwards_every_long_term_key_opens_nothing(
    begun: dict[int | None, Hub], tmp_path: Path, threshold: int | None
) -> None:
    hub = begun[threshold].copy(tmp_path / "hub")
    play(hub, 2)
    thief = tmp_path / "thief"
    thief.mkdir()
    for site in (*hub.sites, "coordinator"):
        copy_key(hub.key(site), thief)
    assert len({path.name for site in hub.sites for path in hub.work(site).glob("*.aggregate")}) == 2
    assert seals_that_open(hub, 1, thief) > 0
    assert opens(hub, 1, thief, tmp_path), "the first round is sealed to long-term keys: nobody had spoken before"
    assert seals_that_open(hub, 2, thief) == 0
    assert not opens(hub, 2, thief, tmp_path)


@MODES
def test_a_secret_is_private_is_for_one_round_and_goes(
    begun: dict[int | None, Hub], tmp_path: Path, threshold: int | None
) -> None:
    hub = begun[threshold].copy(tmp_path / "hub")
    (first,) = hub.work("site-a").glob("*.sealing")
    assert first.stat().st_mode & 0o777 == 0o600
    secret = first.read_bytes()
    play(hub, 2)
    (second,) = hub.work("site-a").glob("*.sealing")
    assert first.name < second.name
    assert secret != second.read_bytes()
    assert not [path for path in hub.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


@MODES
def test_a_lost_secret_locks_nobody_out(
    begun: dict[int | None, Hub], tmp_path: Path, threshold: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A private folder restored from a backup: the site says so, the others go on and hand it the model."""
    hub = begun[threshold].copy(tmp_path / "hub")
    for path in hub.work("site-a").glob("*.sealing"):
        path.unlink()
    for site in hub.sites:
        hub.site(site)
    hub.coordinate()
    for site in hub.sites:
        hub.site(site)  # tags
    capsys.readouterr()
    waiting = hub.site("site-a").waiting_for
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "round key lost" in line]
    assert (told["round"], "restored" in told["hint"]) == (2, True)
    assert waiting == "a round after round 2, which is void"
    model = hub.play()
    assert (hub.work("site-a") / f"{model}.weights").exists()
    assert hub.coordinate().rounds == {1: "closed", 2: "closed", 3: "closed"}
    assert hub.coordinate().missing[3] == ()


@MODES
def test_without_a_statement_the_long_term_key_serves(
    begun: dict[int | None, Hub], tmp_path: Path, threshold: int | None
) -> None:
    """A relay may withhold it, and a courier does not bring it: the secrecy afterwards is lost, and not the round."""
    hub = begun[threshold].copy(tmp_path / "hub")
    (hub.exchange / "rounds/0001/metrics/site-a.json").rename(tmp_path / "withheld")
    for site in hub.sites[1:]:
        hub.site(site)
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 2)
    assert sorted(round_keys(exchange, round_)) == ["site-b", "site-c"]
    (tmp_path / "withheld").rename(hub.exchange / "rounds/0001/metrics/site-a.json")
    hub.play()
    assert hub.coordinate().missing == {1: (), 2: (), 3: ()}


def test_nobody_can_put_a_key_in_anothers_mouth(begun: dict[int | None, Hub], tmp_path: Path) -> None:
    hub = begun[None].copy(tmp_path / "hub")
    exchange = Exchange(hub.exchange)
    round_ = read_round(exchange, 2)
    place = exchange.path(Kind.METRICS, 1, "site-a")
    own = round_keys(exchange, round_)
    assert set(own) == set(hub.sites)
    mine, document = key_format.read_key(hub.key("site-b")), read_document(place)
    key = mine.public.sealing.hex()
    for forged in (document | {"next_sealing": key}, sign(document | {"next_sealing": key}, mine)):
        place.write_bytes(canonical_json(forged).encode() + b"\n")
        assert set(round_keys(exchange, round_)) == {"site-b", "site-c"}
    # its own word on another round, kept for later
    keys = key_format.read_key(hub.key("site-a"))
    old = {name: value for name, value in document.items() if name != "signature"} | {"plan": round_.plan_digest}
    place.write_bytes(canonical_json(sign(old, keys)).encode() + b"\n")
    assert set(round_keys(exchange, round_)) == {"site-b", "site-c"}


@pytest.mark.parametrize("sealing", ["", "00", "ff" * 1216, "00" * 1216, "00" * 1184 + "01" + "00" * 31])
def test_a_key_to_which_nothing_can_be_sealed_is_no_key(
    begun: dict[int | None, Hub], tmp_path: Path, sealing: str
) -> None:
    """Else one member would stop all others."""
    hub = begun[None].copy(tmp_path / "hub")
    place, keys = Exchange(hub.exchange).path(Kind.METRICS, 1, "site-a"), key_format.read_key(hub.key("site-a"))
    document = {name: value for name, value in read_document(place).items() if name != "signature"}
    place.write_bytes(canonical_json(sign(document | {"next_sealing": sealing}, keys)).encode() + b"\n")
    with pytest.raises(FormatError, match="nothing can be sealed to its next_sealing"):
        statement_format.read(place, keys.public)
    exchange = Exchange(hub.exchange)
    for member in members_here(hub.exchange, read_round(exchange, 2)):
        assert member.seal(b"x", b"y")


def test_by_hand_the_same_keys_are_used(begun: dict[int | None, Hub], tmp_path: Path) -> None:
    hub = begun[2].copy(tmp_path / "hub")
    for site in hub.sites:
        hub.site(site)
    hub.coordinate()
    exchange = Exchange(hub.exchange)
    signed = {"plan": exchange.plan(2), "roster": exchange.roster(2), "exchange": exchange.root}
    total = exchange.sum(2)
    with pytest.raises(SignatureError, match="a seal does not open"):
        partial_decrypt(total, key=hub.key("site-a"), output=tmp_path / "none", **signed)
    made = []
    for site in hub.sites[:2]:
        (secret,) = hub.work(site).glob("*.sealing")
        made.append(tmp_path / f"{site}.partial")
        partial_decrypt(total, key=hub.key(site), output=made[-1], round_key=secret, **signed)
    del signed["exchange"]
    opened = decrypt(total, made, key=hub.key("site-b"), output=tmp_path / "opened", round_key=secret, **signed)
    assert opened.sites == read_total(exchange, 2, read_round(exchange, 2)).sites
    secret.chmod(0o644)
    with pytest.raises(SignatureError, match="others than its owner"):
        decrypt(total, made, key=hub.key("site-b"), output=tmp_path / "again", round_key=secret, **signed)
    round_ = read_round(exchange, 2)
    exchange.plan(2).unlink()
    with pytest.raises(MismatchError, match="not the exchange directory of this plan"):
        members_here(exchange.root, round_)


@pytest.mark.slow
def test_killed_before_any_file_a_secret_is_never_published_and_lost(
    begun: dict[int | None, Hub], tmp_path: Path
) -> None:
    hub = begun[2].copy(tmp_path / "hub")
    for site in hub.sites:
        hub.site(site)
    hub.coordinate()
    for site in hub.sites[1:] * 2:
        hub.site(site)
    for at in itertools.count(3):
        own = hub.copy(tmp_path / str(at))
        if not run_until_killed(site_run, own.site_options("site-a"), tmp_path / f"count-{at}", at):
            break
        said = Exchange(own.exchange).path(Kind.METRICS, 2, "site-a")
        if said.exists():
            statement = statement_format.read(said, key_format.read_key(own.key("site-a")).public)
            secrets = [key_format.read_round_key(path) for path in own.work("site-a").glob("*.sealing")]
            assert statement.next_sealing in [public_sealing(secret) for secret in secrets]
        shutil.rmtree(own.folder)
    assert at >= 5
    own.site("site-a")
    assert len(list(own.work("site-a").glob("*.sealing"))) == 1
