"""Tags on files: every member notices a sum that is not that of the uploads, and none needs an upload for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack import replace_ciphertext, resign
from exchanges import Rounds
from federation import make_federation
from hints import raises_with_hint

from ucadi.commands.audit import audit
from ucadi.commands.decrypt import decrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.verify import verify
from ucadi.errors import MismatchError, UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.formats import tag as tag_format
from ucadi.formats.container import file_digest
from ucadi.formats.tag import SiteTag
from ucadi.kinds import Kind
from ucadi.lwe import randomness, scheme
from ucadi.lwe.tags import SUBSETS, tag_of
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.tagging import tag_seed

SITES = ("site-a", "site-b", "site-c")
MODES = {"members": None, "threshold": 2}


@pytest.fixture(scope="module", params=MODES)
def closed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """A round of three sites that is closed, nothing tagged yet. Not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    threshold = MODES[request.param]
    federation = make_federation(folder, SITES, minimum_sites=3 if threshold else 2, threshold=threshold)
    rounds = Rounds.begin(federation, folder / "exchange")
    rounds.open(1)
    for site in SITES:
        rounds.upload(1, site)
    rounds.close(1)
    return rounds


@pytest.fixture
def own(closed: Rounds, tmp_path: Path) -> Rounds:
    """A copy of it that a test may change."""
    return closed.copy(tmp_path / "exchange")


def tag_all(rounds: Rounds) -> None:
    for site in SITES:
        rounds.tag(1, site)


def given(rounds: Rounds) -> dict[str, Any]:
    tags = rounds.exchange.path(Kind.TAG, 1, "site-a").parent
    return {"receipt": rounds.exchange.receipt(1), "tag": [tags], **rounds.signed(1)}


def help_or_open(rounds: Rounds, output: Path, site: str = "site-a", **options: Any) -> Any:
    """What a member does with a sum first: a partial decryption in threshold mode, else opening it."""
    function = partial_decrypt if read_round(rounds.exchange, 1).plan.mode == "threshold" else decrypt
    return function(rounds.exchange.sum(1), key=rounds.federation.key(site), output=output, **given(rounds), **options)


def open_all(rounds: Rounds, output: Path) -> Any:
    partials = []
    if read_round(rounds.exchange, 1).plan.mode == "threshold":
        partials = [output.with_suffix(f".{site}") for site in SITES[:2]]
        for site, partial in zip(SITES, partials, strict=False):
            help_or_open(rounds, partial, site)
    key = rounds.federation.key("site-a")
    return decrypt(rounds.exchange.sum(1), key=key, output=output, partial=partials, **given(rounds))


def everyone_refuses(rounds: Rounds, folder: Path, match: str) -> None:
    """Each member, in what it does first, and who verifies or audits without an upload."""
    for site in SITES:
        with raises_with_hint(MismatchError, match, "do not open it"):
            help_or_open(rounds, folder / "x", site)
    with raises_with_hint(MismatchError, match, "do not open it"):
        verify([rounds.exchange.sum(1)], **given(rounds))
    for site in SITES:
        rounds.exchange.path(Kind.UPLOAD, 1, site).unlink()
    for check in (lambda: verify([rounds.exchange.root]), lambda: audit(rounds.exchange.root)):
        with raises_with_hint(MismatchError, match, "do not open it"):
            check()
    assert not (folder / "x").exists()
    ledgers = rounds.federation.folder.glob("*.ledger")
    assert not any(b'"answered"' in ledger.read_bytes() for ledger in ledgers)


def lie(rounds: Rounds, change: Callable[[np.ndarray, dict[str, np.ndarray]], object]) -> None:
    """The coordinator signs another sum, and a receipt that names it; then the sites tag what they sent."""
    leader = rounds.federation.key("coordinator")
    parts = {
        site: ciphertext_format.read_ciphertext(rounds.exchange.path(Kind.UPLOAD, 1, site)).ciphertext for site in SITES
    }
    replace_ciphertext(rounds.exchange.sum(1), leader, lambda tensors: change(tensors["ciphertext"], parts))
    digest = file_digest(rounds.exchange.sum(1))
    resign(rounds.exchange.receipt(1), lambda receipt: receipt.update(aggregate=digest), leader)
    tag_all(rounds)


def add_to_one_weight(total: np.ndarray, _: dict[str, np.ndarray]) -> None:
    total[0, 17] += np.uint64(12345 << 8)


def drop_a_site(total: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    total -= parts["site-b"]


def add_a_site_twice(total: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    total += parts["site-c"]


def put_one_for_another(total: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    total += parts["site-a"] - parts["site-b"]


def change_the_highest_bit(total: np.ndarray, _: dict[str, np.ndarray]) -> None:
    total[-1, -1] ^= np.uint64(1 << 63)


LIES = [add_to_one_weight, drop_a_site, add_a_site_twice, put_one_for_another, change_the_highest_bit]


def test_a_sum_is_checked_without_any_upload(own: Rounds, tmp_path: Path) -> None:
    tag_all(own)
    for site in SITES:
        own.exchange.path(Kind.UPLOAD, 1, site).unlink()
    opened = open_all(own, tmp_path / "opened")
    assert opened.unchecked == ()
    assert "not checked" not in str(opened)
    verified = verify([own.exchange.sum(1)], **given(own))
    assert verified.exit_code == 0
    assert verified.found["sum.enc"].endswith("its sites' tags add up to its own")
    assert verify([own.exchange.root]).exit_code == 0
    assert audit(own.exchange.root).rounds[0].sum == "its sites' tags add up to its own"


@pytest.mark.parametrize("change", LIES)
def test_a_coordinator_that_lies_about_the_sum_opens_nothing(own: Rounds, tmp_path: Path, change: Any) -> None:
    lie(own, change)
    everyone_refuses(own, tmp_path, "round 1: the coordinator's sum is not that of the uploads, or the tag of one of")


def test_a_changed_bit_at_any_of_a_thousand_places_is_seen(closed: Rounds) -> None:
    """Each time with the receipt that the changed sum would have, and so with other subsets."""
    rng = np.random.default_rng(7)
    round_ = read_round(closed.exchange, 1)
    uploads = [closed.exchange.path(Kind.UPLOAD, 1, site) for site in SITES]
    parts = [ciphertext_format.read_ciphertext(path).ciphertext for path in uploads]
    total = scheme.add(parts)
    for _ in range(1000):
        seed = tag_seed(round_, rng.bytes(32).hex())
        place, bit = rng.integers(total.size), np.uint64(1 << int(rng.integers(64)))
        added = np.sum([tag_of(part, seed) for part in parts], axis=0, dtype=np.uint64)
        assert (tag_of(total, seed) == added).all()
        total.ravel()[place] ^= bit
        assert (tag_of(total, seed) != added).any()
        total.ravel()[place] ^= bit


def test_a_sum_chosen_after_the_tags_is_not_the_receipts(own: Rounds, tmp_path: Path) -> None:
    """Whoever knows the subsets finds another sum with the same tag: so the receipt has to name the sum first."""
    tag_all(own)
    round_ = read_round(own.exchange, 1)
    found = read_receipt(own.exchange, 1, round_)
    assert found is not None
    seed = tag_seed(round_, found[1])
    words = dependent(randomness.subsets(seed, 0, SUBSETS + 1, SUBSETS))

    def change(tensors: dict[str, np.ndarray]) -> None:
        before = tag_of(tensors["ciphertext"], seed)
        tensors["ciphertext"].ravel()[words] ^= np.uint64(1 << 63)
        assert (tag_of(tensors["ciphertext"], seed) == before).all()

    replace_ciphertext(own.exchange.sum(1), own.federation.key("coordinator"), change)
    with raises_with_hint(MismatchError, "not the sum that the receipt names", "ask the coordinator"):
        help_or_open(own, tmp_path / "x")


def dependent(rows: np.ndarray) -> list[int]:
    """Indices of rows of bits whose sum modulo 2 is zero, of one more rows than columns."""
    reduced: dict[int, tuple[int, int]] = {}
    for index, row in enumerate(rows):
        value, made_of = int("".join(map(str, row)), 2), 1 << index
        while value and value.bit_length() in reduced:
            other, others = reduced[value.bit_length()]
            value, made_of = value ^ other, made_of ^ others
        if not value:
            return [i for i in range(len(rows)) if made_of >> i & 1]
        reduced[value.bit_length()] = value, made_of
    raise AssertionError


def test_a_site_does_not_tag_for_a_receipt_that_lists_another_file_as_its_own(own: Rounds) -> None:
    leader = own.federation.key("coordinator")

    def swap(receipt: dict[str, Any]) -> None:
        listed = receipt["contributions"]
        listed["site-a"], listed["site-b"] = listed["site-b"], listed["site-a"]

    resign(own.exchange.receipt(1), swap, leader)
    for site in ("site-a", "site-b"):
        with raises_with_hint(
            MismatchError, f"lists another file than {site}.enc as the upload of {site}", "do not go on"
        ):
            own.tag(1, site)
        assert not own.exchange.has(Kind.TAG, 1, site)
    own.tag(1, "site-c")


def test_two_receipts_are_noticed_by_whose_tags_name_the_other(own: Rounds, tmp_path: Path) -> None:
    own.tag(1, "site-b")
    leader = own.federation.key("coordinator")
    resign(own.exchange.receipt(1), lambda receipt: receipt.update(refused={"x": "y"}), leader)
    own.tag(1, "site-a")
    own.tag(1, "site-c")
    why = "no good tag of site-b; site-b.json: site-b was given another receipt of round 1"
    with raises_with_hint(MismatchError, why, "wait for it"):
        help_or_open(own, tmp_path / "x")


def write_false(rounds: Rounds, site: str, **fields: Any) -> Path:
    """A site signs another tag than its own, or one with other fields."""
    path, keys = rounds.tag(1, site), key_format.read_key(rounds.federation.key(site))
    made = tag_format.read(path, read_round(rounds.exchange, 1).roster)
    said = {"federation": made.federation, "plan": made.plan, "receipt": made.receipt, "sums": made.sums + np.uint64(1)}
    tag_format.write(path, SiteTag(site=site, **{**said, **fields}), keys, force=True)
    return path


def test_a_false_tag_stops_the_opening_and_who_has_the_uploads_names_its_site(own: Rounds, tmp_path: Path) -> None:
    for site in ("site-a", "site-c"):
        own.tag(1, site)
    write_false(own, "site-b")
    uploads = [own.exchange.path(Kind.UPLOAD, 1, site) for site in SITES]
    with raises_with_hint(MismatchError, "site-b: its tag is not that of its upload", "ask site-b"):
        verify([own.exchange.sum(1), *uploads], **given(own))
    (standing,) = verify([own.exchange.root]).rounds
    assert standing.refused == {"site-b.json": "site-b: its tag is not that of its upload"}
    assert standing.tags_of == ("site-a", "site-c")
    everyone_refuses(own, tmp_path, "or the tag of one of these sites is false: site-a, site-b, site-c")


def test_two_liars_whose_lies_cancel_change_nothing(own: Rounds, tmp_path: Path) -> None:
    """The sum is right all the same: what they say of their own uploads is theirs to say."""
    tag_all(own)
    roster = read_round(own.exchange, 1).roster
    for site, by in (("site-a", 5), ("site-b", -5)):
        made = tag_format.read(own.exchange.path(Kind.TAG, 1, site), roster)
        write_false(own, site, sums=made.sums + np.int64(by).astype(np.uint64))
    assert open_all(own, tmp_path / "opened").unchecked == ()


def unsign(path: Path) -> None:
    document = json.loads(path.read_text())
    document["signature"] = "00" * 64
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")


BAD: dict[str, Callable[[Rounds, Path], object]] = {
    "garbage": lambda _, path: path.write_bytes(b"\xff" * 5000),
    "empty": lambda _, path: path.write_bytes(b""),
    "unsigned": lambda _, path: unsign(path),
    "truncated": lambda _, path: path.write_bytes(path.read_bytes()[:-100]),
    "short": lambda rounds, path: resign(path, lambda d: d.update(sums="00" * 8), rounds.federation.key("site-b")),
    "more": lambda rounds, path: resign(path, lambda d: d.update(more=1), rounds.federation.key("site-b")),
    "of another round": lambda rounds, _: write_false(rounds, "site-b", plan="0" * 64),
    "of another federation": lambda rounds, _: write_false(rounds, "site-b", federation="other"),
    "of another receipt": lambda rounds, _: write_false(rounds, "site-b", receipt="0" * 64),
    "by another site": lambda rounds, path: shutil.copy(rounds.exchange.path(Kind.TAG, 1, "site-a"), path),
    "missing": lambda _, path: path.unlink(),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_bad_tag_is_like_none_and_is_waited_for_or_stated(own: Rounds, tmp_path: Path, spoil: Any) -> None:
    tag_all(own)
    good = own.exchange.path(Kind.TAG, 1, "site-b").read_bytes()
    spoil(own, own.exchange.path(Kind.TAG, 1, "site-b"))
    with raises_with_hint(MismatchError, "no good tag of site-b", "wait for it"):
        help_or_open(own, tmp_path / "x")
    assert verify([own.exchange.root]).exit_code == 0  # by the uploads
    made = help_or_open(own, tmp_path / "stated", unchecked=True) if is_threshold(own) else None
    if made is not None:
        assert made.unchecked == partial_format.read(tmp_path / "stated").unchecked == ("site-b",)
        assert "the sum was not checked: no tag of site-b" in str(made)
    own.exchange.path(Kind.TAG, 1, "site-b").write_bytes(good)  # it comes late
    assert open_all(own, tmp_path / "opened").unchecked == ()


def is_threshold(rounds: Rounds) -> bool:
    return read_round(rounds.exchange, 1).plan.mode == "threshold"


def test_a_tag_of_the_round_before_does_not_count(closed: Rounds, tmp_path: Path) -> None:
    rounds = closed.copy(tmp_path / "exchange")
    tag_all(rounds)
    (rounds.exchange.root / "models/0002.weights").write_bytes(rounds.exchange.model(1).read_bytes())
    rounds.open(2)
    for site in SITES:
        rounds.upload(2, site)
    rounds.close(2)
    round_ = read_round(rounds.exchange, 2)
    found = read_receipt(rounds.exchange, 2, round_)
    assert found is not None
    before = rounds.exchange.path(Kind.TAG, 1, "site-a").parent
    why = "no good tag of site-a, site-b, site-c; site-a.json: the tag of another round"
    with raises_with_hint(MismatchError, why, "wait for it"):
        verify_given(rounds, before)


def verify_given(rounds: Rounds, tags: Path) -> None:
    total, key = rounds.exchange.sum(2), rounds.federation.key("site-a")
    options = {"receipt": rounds.exchange.receipt(2), "tag": [tags], **rounds.signed(2)}
    decrypt(total, key=key, output=rounds.exchange.root / "x", **options)


def test_without_a_receipt_it_is_said_that_nothing_was_checked(own: Rounds, tmp_path: Path) -> None:
    key, function = own.federation.key("site-a"), partial_decrypt if is_threshold(own) else decrypt
    made = function(own.exchange.sum(1), key=key, output=tmp_path / "made", **own.signed(1))
    assert made.unchecked == SITES
    assert str(made).endswith("the sum was not checked: no tag of site-a, site-b, site-c")
    for options in ({"tag": [tmp_path]}, {"unchecked": True}):
        with raises_with_hint(UsageError, "receipt", "--"):
            function(own.exchange.sum(1), key=key, output=tmp_path / "x", **own.signed(1), **options)
