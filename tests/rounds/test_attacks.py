"""Attacks by outsiders, couriers and insiders that the other tests do not try.

Each must end in a UcadiError that names what is wrong and what to do, with nothing written: never in a
traceback, and never in memory running out.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack import Document, add, common, everything, is_refused, replace_ciphertext, resign
from commandline import invoke
from federation import Federation, make_federation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ucadi.commands.aggregate import aggregate
from ucadi.commands.decrypt import decrypt
from ucadi.commands.inspect import inspect_file
from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create, roster_show
from ucadi.commands.verify import verify
from ucadi.errors import FormatError, MismatchError, SignatureError, UcadiError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats.container import canonical_json
from ucadi.formats.signed import sign
from ucadi.identity import SecretKeys


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation whose round is complete. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("attacked"))
    federation.encrypt_all()
    add(federation, federation.folder / "sum.enc")
    return federation


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    """A copy of it that a test may change."""
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


# --- plans and rosters that their signer should not have signed -------------------------------------------

PLANS: dict[str, Callable[[Document], object]] = {
    "no quorum": lambda d: d.update(quorum=0),
    "a quorum of more than all": lambda d: d.update(quorum=4),
    "a quorum that is a truth value": lambda d: d.update(quorum=True),
    "a weight cap beyond any weight": lambda d: d.update(weight_cap=1 << 60),
    "a weight cap that its slot cannot hold": lambda d: d.update(weight_cap=1 << 24),
    "no weight": lambda d: d.update(weight_cap=0),
    "a site that is not in the roster": lambda d: d.update(sites=[*d["sites"], "site-x"]),
    "a site twice": lambda d: d.update(sites=["site-a", "site-a", "site-b"]),
    "no sites": lambda d: d.update(sites=[]),
    "a site whose name a terminal would obey": lambda d: d.update(sites=["site-a", "\x1b[2J"]),
    "round zero": lambda d: d.update(round=0),
    "another federation": lambda d: d.update(federation="other"),
    "another key mode": lambda d: d.update(mode="threshold"),
    "an exponent out of range": lambda d: d["layout"][0].update(exponent=1000),
    "an exponent that is a float": lambda d: d["layout"][0].update(exponent=0.5),
    "a layout that no memory holds": lambda d: d["layout"][0].update(shape=[1 << 31] * 8),
    "a layout of many dimensions": lambda d: d["layout"][0].update(shape=[1] * 9),
    "a layout with a negative dimension": lambda d: d["layout"][0].update(shape=[-1]),
    "a layout that is not sorted": lambda d: d["layout"].reverse(),
    "a layout without tensors": lambda d: d.update(layout=[]),
    "a layout of something else": lambda d: d.update(layout=[[]]),
    "no local epochs": lambda d: d["schedule"].update(local_epochs=0),
    "a learning rate beyond any float": lambda d: d["schedule"].update(learning_rate=10**400),
    "no schedule": lambda d: d.pop("schedule"),
    "a base that is no digest": lambda d: d.update(base="0" * 63),
    "a later version": lambda d: d.update(version=2),
    "another format": lambda d: d.update(format="ucadi-roster"),
    "no format": lambda d: d.update(format=None),
}


@pytest.mark.parametrize("change", PLANS.values(), ids=PLANS.keys())
def test_a_plan_that_its_coordinator_should_not_have_signed(own: Federation, change: Callable[[Document], Any]) -> None:
    decrypt(own.folder / "sum.enc", **common(own), key=own.key("site-a"), output=own.folder / "opened")
    resign(own.plan, change, own.key("coordinator"))
    for attempt in everything(own, own.folder / "output"):
        is_refused(attempt, own.folder)


def test_ranges_altered_on_the_way_of_a_round_make_it_another_round(own: Federation) -> None:
    resign(own.plan, lambda d: d["layout"][0].update(exponent=9), own.key("coordinator"))
    assert "another round" in is_refused(lambda: add(own, own.folder / "x"), own.folder).message


ROSTERS: dict[str, Callable[[Document], object]] = {
    "a threshold of none": lambda d: d["policy"].update(mode="threshold", threshold=0, minimum_sites=3),
    "a threshold of one": lambda d: d["policy"].update(mode="threshold", threshold=1, minimum_sites=3),
    "a threshold of more than all": lambda d: d["policy"].update(mode="threshold", threshold=4, minimum_sites=3),
    "a threshold and sums of two": lambda d: d["policy"].update(mode="threshold", threshold=2, minimum_sites=2),
    "sums of one": lambda d: d["policy"].update(minimum_sites=1),
    "sums of more than all": lambda d: d["policy"].update(minimum_sites=4),
    "an unknown mode": lambda d: d["policy"].update(mode="open"),
    "no members": lambda d: d.update(members=[]),
    "a member twice": lambda d: d["members"].append(d["members"][-1]),
    "a member under two names": lambda d: d["members"].append({**d["members"][-1], "name": "site-z"}),
    "a member that is the coordinator": lambda d: d["members"].append({**d["coordinator"], "name": "site-z"}),
    "a member whose name is a path": lambda d: d["members"][0].update(name="../site-a"),
    "a member with a short key": lambda d: d["members"][0].update(signing="00"),
    "a member whose keys are none": lambda d: d["members"][0].update(sealing="ff" * 1216),
    "a member whose key agrees on nothing": lambda d: d["members"][0].update(
        sealing=d["members"][0]["sealing"][: 2 * 1184] + "00" * 32
    ),
    "a member whose key is in capitals": lambda d: d["members"][0].update(signing=d["members"][0]["signing"].upper()),
    "a federation whose name is a path": lambda d: d.update(federation="/etc"),
}


@pytest.mark.parametrize("change", ROSTERS.values(), ids=ROSTERS.keys())
def test_a_roster_that_its_coordinator_should_not_have_signed(
    own: Federation, change: Callable[[Document], Any]
) -> None:
    resign(own.roster, change, own.key("coordinator"))
    is_refused(lambda: roster_show(own.roster), own.folder)
    for attempt in everything(own, own.folder / "output"):
        is_refused(attempt, own.folder)


def test_a_card_whose_keys_are_none_does_not_get_into_a_roster(own: Federation) -> None:
    """Its owner signs it properly; every other site's encryption would fail."""
    card = own.folder / "site-c.card"
    resign(card, lambda d: d.update(sealing="ff" * 1216), own.key("site-c"))
    cards = [own.folder / "site-a.card", own.folder / "site-b.card", card]
    options = {"federation": "test", "key": own.key("coordinator"), "output": own.folder / "other.json"}
    error = is_refused(lambda: roster_create(cards, **options), own.folder)  # type: ignore[arg-type]
    assert "site-c" in error.message


# --- bytes edited on the way --------------------------------------------------------------------------------


def is_the_same_key(first: Path, second: Path) -> bool:
    """X25519 ignores five bits of a secret key: where only those differ, the key is the same."""
    try:
        return key_format.read_key(first).public == key_format.read_key(second).public
    except UcadiError:
        return False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_edits_of_signed_documents_and_keys_are_noticed(made: Federation, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["federation.json", "plan.json", "site-a.card", "site-a.key"]))
    good = (made.folder / name).read_bytes()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    new = data.draw(st.binary(max_size=8) | st.text('0123456789abcdefABCDEF{}[]",:-. \n', max_size=8).map(str.encode))
    bad = good[:start] + new + good[end:]
    copy = Federation(tmp_path / "edited", made.sites)
    if not copy.folder.exists():
        shutil.copytree(made.folder, copy.folder)
    path = copy.folder / name
    path.write_bytes(bad)
    output = copy.folder / "output"
    if bad != good and not (name.endswith(".key") and is_the_same_key(path, made.key("site-a"))):
        if name.endswith(".card"):
            is_refused(lambda: key_format.read_card(path), copy.folder)
        else:
            is_refused(everything(copy, output)[0], copy.folder)
            is_refused(everything(copy, output)[3], copy.folder)
    path.write_bytes(good)


@pytest.mark.parametrize("name", ["federation.json", "plan.json", "site-a.card"])
@pytest.mark.parametrize("spell", [str.upper, lambda text: text[:2] + " " + text[2:]], ids=["capitals", "a space"])
def test_a_signature_has_one_spelling(own: Federation, name: str, spell: Callable[[str], str]) -> None:
    """Else a courier could make two plans of one, and a holder would answer for both."""
    path = own.folder / name
    document = json.loads(path.read_text())
    path.write_text(canonical_json({**document, "signature": spell(document["signature"])}) + "\n")
    if name.endswith(".card"):
        is_refused(lambda: key_format.read_card(path), own.folder)
    else:
        is_refused(lambda: add(own, own.folder / "x"), own.folder)


# --- ciphertexts that their site should not have signed -----------------------------------------------------


def _cut(tensors: dict[str, np.ndarray]) -> None:
    tensors["sealed"] = tensors["sealed"][:, :-1].copy()


def _fewer_seals(tensors: dict[str, np.ndarray]) -> None:
    tensors["sealed"] = tensors["sealed"][:-1].copy()


def _more_polynomials(tensors: dict[str, np.ndarray]) -> None:
    tensors["ciphertext"] = np.concatenate([tensors["ciphertext"]] * 2)


@pytest.mark.parametrize("change", [_cut, _fewer_seals, _more_polynomials])
def test_a_ciphertext_of_another_size_harms_its_site_alone(own: Federation, change: Callable[..., None]) -> None:
    replace_ciphertext(own.ciphertext("site-b"), own.key("site-b"), change)
    assert "site-b" in is_refused(lambda: add(own, own.folder / "x"), own.folder).message
    shutil.copy(own.ciphertext("site-b"), own.folder / "other-name.enc")
    uploads = [own.ciphertext("site-a"), own.folder / "other-name.enc", own.ciphertext("site-c")]
    key = own.key("coordinator")
    error = is_refused(lambda: aggregate(uploads, **common(own), key=key, output=own.folder / "x"), own.folder)
    assert "site-b" in error.message


def test_seals_that_do_not_open_name_their_site(own: Federation) -> None:
    """Nobody but the receivers can notice; they learn whose seals they were."""

    def zeros(tensors: dict[str, np.ndarray]) -> None:
        tensors["sealed"][:] = 0

    replace_ciphertext(own.ciphertext("site-b"), own.key("site-b"), zeros)
    total = add(own, own.folder / "again.enc")
    key = own.key("site-c")
    error = is_refused(lambda: decrypt(total, **common(own), key=key, output=own.folder / "x"), own.folder)
    assert isinstance(error, SignatureError)
    assert error.message.startswith("site-b: a seal does not open")


@pytest.mark.parametrize(
    "fields",
    [{"note": "x" * 900_000}, {"clipped": "0000000067"}, {"digests": {}}, {"scheme": "paillier"}, {"site": "\x07"}],
)
def test_a_ciphertext_that_says_something_else_of_itself(own: Federation, fields: Document) -> None:
    """Left in, a long note would fill the header of the sum."""
    replace_ciphertext(own.ciphertext("site-b"), own.key("site-b"), lambda _: None, **fields)
    assert "site-b" in is_refused(lambda: add(own, own.folder / "x"), own.folder).message
    is_refused(lambda: verify([own.ciphertext("site-b")], **common(own)), own.folder)


def test_a_sum_that_lists_an_upload_of_another_size(own: Federation) -> None:
    """Site and coordinator conspire; who adds again notices."""
    replace_ciphertext(own.ciphertext("site-b"), own.key("site-b"), _more_polynomials)
    documents = [container.read(path).metadata for path in own.ciphertexts]
    total = own.folder / "sum.enc"
    replace_ciphertext(total, own.key("coordinator"), lambda _: None, contributions=documents)
    verify([total, own.ciphertext("site-a")], **common(own))  # cannot be added again from this
    error = is_refused(lambda: verify([total, *own.ciphertexts], **common(own)), own.folder)
    assert "sum.enc: lists an upload of another size" in error.message


@pytest.mark.parametrize("fields", [{"scheme": "other"}, {"scheme": None}, {"version": 2}, {"version": True}])
def test_a_sum_of_another_scheme_or_version(own: Federation, fields: Document) -> None:
    total = own.folder / "sum.enc"
    replace_ciphertext(total, own.key("coordinator"), lambda _: None, **fields)
    for attempt in (lambda: verify([total], **common(own)), lambda: inspect_file(total), everything(own, total)[3]):
        is_refused(attempt, own.folder)


# --- oversized files ----------------------------------------------------------------------------------------

HUGE = 10 << 30


def sparse_ciphertext(own: Federation, polynomials: int) -> Path:
    """A file of site-b with a sound header, signed by it, and gigabytes of holes."""
    path = own.ciphertext("site-b")
    held = container.read(path)
    sealed = held.tensors["sealed"].tobytes()
    metadata = canonical_json(sign(held.metadata, key_format.read_key(own.key("site-b"))))
    size = polynomials * 4096 * 8
    header = {
        "__metadata__": {"ucadi": metadata},
        "ciphertext": {"dtype": "U64", "shape": [polynomials, 4096], "data_offsets": [0, size]},
        "sealed": {"dtype": "U8", "shape": [3, 1168], "data_offsets": [size, size + len(sealed)]},
    }
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size + len(sealed))
    return path


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="needs files with holes")
def test_gigabytes_with_a_sound_header_are_refused_unread(own: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sparse_ciphertext(own, HUGE // 32768)
    assert path.stat().st_size > HUGE
    digest = container.tensor_digest

    def bounded(tensor: np.ndarray) -> str:
        assert tensor.nbytes < 1 << 24
        return digest(tensor)

    monkeypatch.setattr(ciphertext_format, "tensor_digest", bounded)
    assert "site-b" in is_refused(lambda: add(own, own.folder / "x"), own.folder).message


def test_a_header_that_claims_more_than_the_file_has(own: Federation) -> None:
    path = sparse_ciphertext(own, HUGE // 32768)
    os.truncate(path, 1 << 20)
    for attempt in (lambda: add(own, own.folder / "x"), lambda: inspect_file(path)):
        assert isinstance(is_refused(attempt, own.folder), FormatError)


# --- members of other federations, and the folder of keys ---------------------------------------------------


def test_a_member_of_another_federation(own: Federation, tmp_path: Path) -> None:
    """Same names, even the same base; other keys, roster and plan."""
    (tmp_path / "other").mkdir()
    other = make_federation(tmp_path / "other")
    other.encrypt_all()
    add(other, other.folder / "sum.enc")
    shutil.copy(other.ciphertext("site-b"), own.ciphertext("site-b"))
    assert "another round" in is_refused(lambda: add(own, own.folder / "x"), own.folder).message
    total, output = own.folder / "sum.enc", own.folder / "x"
    for files, key in (
        (common(own), other.key("site-a")),
        (common(other), own.key("site-a")),
        (common(other), other.key("site-a")),
        ({"plan": own.plan, "roster": other.roster}, own.key("site-a")),
        ({"plan": other.plan, "roster": own.roster}, own.key("site-a")),
    ):
        error = is_refused(lambda files=files, key=key: decrypt(total, **files, key=key, output=output), own.folder)  # type: ignore[misc]
        assert isinstance(error, MismatchError)


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Whoever may write to the folder puts a link where the key will be: the key does not land elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "site-a.key").symlink_to(elsewhere)
    is_refused(lambda: keygen("site-a", output=tmp_path), tmp_path)
    assert not elsewhere.exists()
    elsewhere.write_text("kept")
    (tmp_path / "site-b.key").symlink_to(elsewhere)
    is_refused(lambda: keygen("site-b", output=tmp_path), tmp_path)
    assert elsewhere.read_text() == "kept"


def test_a_key_is_private_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    link = os.link

    def watched(part: Path, target: Path, **options: Any) -> None:
        modes.append(part.stat().st_mode & 0o777)
        link(part, target, **options)

    monkeypatch.setattr(os, "link", watched)
    previous = os.umask(0)
    try:
        key_format.write_key(tmp_path / "site-a.key", SecretKeys.generate("site-a"))
    finally:
        os.umask(previous)
    assert modes == [0o600]


def test_secrets_are_not_printed() -> None:
    keys = SecretKeys.generate("site-a")
    for secret in (keys.signing, keys.sealing, keys.transport):
        assert secret.hex() not in f"{keys!r}{keys}"
        assert repr(secret) not in f"{keys!r}{keys}"


def test_at_the_command_line_an_attack_is_a_message_a_hint_and_an_exit_code(own: Federation) -> None:
    resign(own.plan, lambda d: d.update(quorum=0), own.key("coordinator"))
    arguments = ["--plan", own.plan, "--roster", own.roster, "--key", own.key("site-a"), "--output", own.folder / "x"]
    result = invoke("encrypt", own.update("site-a"), *arguments)
    assert result.exit_code == 3
    assert result.stderr.startswith("ucadi: error: plan.json: quorum 0")
    assert "ucadi: hint: " in result.stderr
    assert not (own.folder / "x").exists()


def test_a_name_that_a_terminal_would_obey_is_not_shown(own: Federation) -> None:
    held = container.read(own.update("site-a"))
    container.write(own.update("site-a"), held.tensors, {**held.metadata, "site": "\x1b]0;owned\x07"}, force=True)
    is_refused(lambda: inspect_file(own.update("site-a")), own.folder)
