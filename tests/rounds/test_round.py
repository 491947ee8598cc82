"""A round on files: the square of encryption and addition commutes, and attacks on it fail."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, forget, make_federation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_add, roster_create, roster_remove, roster_rotate, roster_show
from ucadi.commands.verify import verify
from ucadi.errors import (
    CapacityError,
    FormatError,
    MismatchError,
    OutputError,
    SignatureError,
    UcadiError,
    UsageError,
)
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats import update as update_format
from ucadi.formats.container import Container
from ucadi.formats.signed import sign


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation whose round is complete: uploads, and their sum in `sum.enc`. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("federation"))
    federation.encrypt_all()
    add_encrypted(federation, federation.folder / "sum.enc")
    return federation


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    """A copy of it that a test may change."""
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


def add_encrypted(
    federation: Federation, output: Path, paths: list[Path] | None = None, signer: str = "coordinator"
) -> Path:
    forget(federation.key(signer))  # by itself, a coordinator sums one set a round
    aggregate(
        federation.ciphertexts if paths is None else paths,
        plan=federation.plan,
        roster=federation.roster,
        key=federation.key(signer),
        output=output,
    )
    return output


def open_sum(federation: Federation, total: Path, output: Path, site: str = "site-a") -> Path:
    decrypt(total, plan=federation.plan, roster=federation.roster, key=federation.key(site), output=output)
    return output


def rewrite(path: Path, change: Callable[[Container], None], signer: Path | None = None) -> None:
    """Reads a container, lets `change` alter it, makes its digests fit again, and signs it if given a key."""
    held = container.read(path)
    held = Container({name: tensor.copy() for name, tensor in held.tensors.items()}, held.metadata)
    change(held)
    digests = {name: container.tensor_digest(tensor) for name, tensor in held.tensors.items()}
    metadata = {**held.metadata, "digests": digests}
    if signer is not None:
        metadata = sign(metadata, key_format.read_key(signer))
    container.write(path, held.tensors, metadata, force=True)


# --- the square -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sites=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-9, 0.01, 0.3]),
    length=st.sampled_from([1, 100, 8127, 8128, 20_000]),
    order=st.randoms(use_true_random=False),
)
def test_decrypting_the_sum_of_ciphertexts_is_adding_updates_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, sites: int, seed: int, scale: float, length: int, order: object
) -> None:
    folder = tmp_path_factory.mktemp("square")
    names = [f"site-{i}" for i in range(sites)]
    federation = make_federation(folder, names, seed=seed, scale=scale, shapes={"a": (length,), "b": (2, 3), "c": ()})
    federation.encrypt_all()
    uploads, updates = federation.ciphertexts, federation.updates
    order.shuffle(uploads)  # type: ignore[attr-defined]
    order.shuffle(updates)  # type: ignore[attr-defined]
    opened = open_sum(federation, add_encrypted(federation, folder / "sum.enc", uploads), folder / "opened", "site-1")
    aggregate(updates, plan=federation.plan, roster=federation.roster, output=folder / "added")
    assert opened.read_bytes() == (folder / "added").read_bytes()
    shutil.rmtree(folder)


def test_every_order_and_every_member_gives_the_same_next_model(made: Federation, tmp_path: Path) -> None:
    digests = set()
    for number, paths in enumerate(itertools.permutations(made.ciphertexts)):
        total = add_encrypted(made, tmp_path / f"{number}.enc", list(paths))
        opened = open_sum(made, total, tmp_path / f"{number}.aggregate", made.sites[number % 3])
        result = apply(made.base, opened, plan=made.plan, roster=made.roster, output=tmp_path / f"{number}.weights")
        digests.add((container.file_digest(total), result.digest))
    assert len(digests) == 1


def test_the_mean_is_the_weighted_mean_of_the_updates(made: Federation, tmp_path: Path) -> None:
    opened = open_sum(made, made.folder / "sum.enc", tmp_path / "opened")
    apply(made.base, opened, plan=made.plan, roster=made.roster, output=tmp_path / "next.weights")
    before, after = container.read(made.base).tensors, container.read(tmp_path / "next.weights").tensors
    updates = [update_format.read_update(path) for path in made.updates]
    for name in before:
        deltas = [update.deltas[name].astype(np.float64) for update in updates]
        mean = np.average(deltas, axis=0, weights=[update.examples * update.epochs for update in updates])
        np.testing.assert_allclose(after[name] - before[name], mean, atol=1e-3)


def test_encrypting_twice_gives_two_ciphertexts(made: Federation, tmp_path: Path) -> None:
    again = tmp_path / "again.enc"
    encrypt(made.update("site-a"), plan=made.plan, roster=made.roster, key=made.key("site-a"), output=again)
    first, second = (ciphertext_format.read_ciphertext(path) for path in (made.ciphertext("site-a"), again))
    assert not (first.ciphertext == second.ciphertext).any()


# --- what is refused --------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(made: Federation, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["site-b.enc", "sum.enc", "plan.json", "federation.json"]))
    good = (made.folder / name).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    copy = Federation(tmp_path / "flipped", made.sites)
    if not copy.folder.exists():
        shutil.copytree(made.folder, copy.folder)
    (copy.folder / name).write_bytes(bad)
    output = copy.folder / "output"
    with pytest.raises(UcadiError):
        add_encrypted(copy, output) if name == "site-b.enc" else open_sum(copy, copy.folder / "sum.enc", output)
    assert not output.exists()
    (copy.folder / name).write_bytes(good)


def test_the_same_site_twice(made: Federation, tmp_path: Path) -> None:
    again = tmp_path / "again.enc"
    encrypt(made.update("site-a"), plan=made.plan, roster=made.roster, key=made.key("site-a"), output=again)
    with pytest.raises(MismatchError, match="two contributions of site-a"):
        add_encrypted(made, tmp_path / "sum.enc", [*made.ciphertexts, again])


def test_a_ciphertext_copied_under_another_name(own: Federation) -> None:
    shutil.copy(own.ciphertext("site-a"), own.ciphertext("site-b"))
    with pytest.raises(MismatchError, match="two contributions of site-a"):
        add_encrypted(own, own.folder / "again.enc")

    def rename(held: Container) -> None:
        held.metadata["site"] = "site-b"

    rewrite(own.ciphertext("site-b"), rename)
    with pytest.raises(SignatureError, match="not that of site-b"):
        add_encrypted(own, own.folder / "again.enc")


def test_a_member_who_signs_another_s_ciphertext_as_its_own_opens_nothing(own: Federation) -> None:
    """site-b copies site-a's polynomials and seals, and signs them: the seals are bound to site-a."""
    shutil.copy(own.ciphertext("site-a"), own.ciphertext("site-b"))

    def rename(held: Container) -> None:
        held.metadata["site"] = "site-b"

    rewrite(own.ciphertext("site-b"), rename, signer=own.key("site-b"))
    total = add_encrypted(own, own.folder / "again.enc")
    with pytest.raises(SignatureError, match="seal"):
        open_sum(own, total, own.folder / "opened")


def test_replay_into_another_round(own: Federation) -> None:
    own.plan.unlink()
    own.open_round(2, own.plan)
    with pytest.raises(MismatchError, match="another round"):
        add_encrypted(own, own.folder / "again.enc")
    with pytest.raises(MismatchError, match="another round"):
        open_sum(own, own.folder / "sum.enc", own.folder / "opened")


def test_a_plan_or_a_sum_by_someone_else_than_the_coordinator(own: Federation) -> None:
    with pytest.raises(MismatchError, match="not the coordinator"):
        add_encrypted(own, own.folder / "again.enc", signer="site-a")
    rewrite(own.folder / "sum.enc", lambda _: None, signer=own.key("site-a"))
    with pytest.raises(SignatureError, match="not that of coordinator"):
        open_sum(own, own.folder / "sum.enc", own.folder / "opened")


def test_a_sum_with_one_polynomial_changed_fails_its_check(own: Federation) -> None:
    """Even signed by the coordinator: the zeros that end every message no longer decrypt to zero."""

    def change(held: Container) -> None:
        held.tensors["ciphertext"][-1] += np.uint64(1 << 40)

    rewrite(own.folder / "sum.enc", change, signer=own.key("coordinator"))
    with pytest.raises(SignatureError, match="check"):
        open_sum(own, own.folder / "sum.enc", own.folder / "opened")
    assert not (own.folder / "opened").exists()


def test_too_few_sites(own: Federation) -> None:
    with pytest.raises(MismatchError, match="missing: site-c"):
        add_encrypted(own, own.folder / "again.enc", own.ciphertexts[:2])
    own.plan.unlink()
    own.open_round(1, own.plan, quorum=2)
    for path in own.ciphertexts:
        path.unlink()
        forget(path.with_suffix(".key"))
    own.encrypt_all()
    add_encrypted(own, own.folder / "two.enc", own.ciphertexts[:2])
    with pytest.raises(MismatchError, match="1 of at least 2"):
        add_encrypted(own, own.folder / "one.enc", own.ciphertexts[:1])


def test_another_base(own: Federation) -> None:
    update = update_format.read_update(own.update("site-a"))
    stale = update_format.Update("site-a", "1" * 64, update.examples, update.epochs, update.deltas)
    update_format.write_update(own.folder / "stale.update", stale)
    with pytest.raises(MismatchError, match="the plan says"):
        encrypt(
            own.folder / "stale.update",
            plan=own.plan,
            roster=own.roster,
            key=own.key("site-a"),
            output=own.folder / "stale.enc",
        )
    with pytest.raises(MismatchError, match="the plan says"):
        aggregate(
            [own.folder / "stale.update", *own.updates[1:]], plan=own.plan, roster=own.roster, output=own.folder / "x"
        )
    with pytest.raises(MismatchError, match="made from base"):
        apply(own.base, own.folder / "stale.update", output=own.folder / "x")


def test_another_roster(own: Federation) -> None:
    keygen("site-d", output=own.folder)
    cards = [own.folder / f"{site}.card" for site in (*own.sites, "site-d")]
    roster_create(cards, federation="test", key=own.key("coordinator"), output=own.roster, force=True)
    with pytest.raises(MismatchError, match="another roster"):
        add_encrypted(own, own.folder / "again.enc")


def test_keys_of_others(own: Federation, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="the key is that of site-b"):
        encrypt(own.update("site-a"), plan=own.plan, roster=own.roster, key=own.key("site-b"), output=tmp_path / "x")
    with pytest.raises(MismatchError, match="coordinator is not in the roster"):
        open_sum(own, own.folder / "sum.enc", tmp_path / "x", "coordinator")
    keygen("site-a", output=tmp_path)
    with pytest.raises(MismatchError, match="lists other keys for site-a"):
        decrypt(
            own.folder / "sum.enc", plan=own.plan, roster=own.roster, key=tmp_path / "site-a.key", output=tmp_path / "x"
        )


def test_seals_swapped_between_receivers(own: Federation) -> None:
    def swap(held: Container) -> None:
        held.tensors["sealed"][[0, 1]] = held.tensors["sealed"][[1, 0]]

    rewrite(own.ciphertext("site-a"), swap, signer=own.key("site-a"))
    total = add_encrypted(own, own.folder / "again.enc")
    with pytest.raises(SignatureError, match="seal"):
        open_sum(own, total, own.folder / "opened")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_key_files_that_others_can_reach(own: Federation, mode: int) -> None:
    own.key("site-a").chmod(mode)
    with pytest.raises(SignatureError, match="others than its owner"):
        open_sum(own, own.folder / "sum.enc", own.folder / "opened")


def test_keys_are_private_and_never_replaced(own: Federation) -> None:
    assert own.key("site-a").stat().st_mode & 0o777 == 0o600
    before = own.key("site-a").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        keygen("site-a", output=own.folder)
    assert own.key("site-a").read_bytes() == before


def test_one_card_for_two_names_or_the_coordinator_as_member(own: Federation) -> None:
    cards = [own.folder / "site-a.card", own.folder / "site-b.card"]
    options = {"federation": "test", "key": own.key("coordinator"), "output": own.folder / "other.json"}
    (own.folder / "another").mkdir()
    keygen("coordinator", output=own.folder / "another")
    with pytest.raises(UsageError, match="coordinator and member"):
        roster_create([*cards, own.folder / "another/coordinator.card"], **options, minimum_sites=2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is in the roster twice"):
        roster_create([*cards, cards[0]], **options, minimum_sites=2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1 sites"):
        roster_create(cards, **options, minimum_sites=1)  # type: ignore[arg-type]


def test_a_pattern_that_finds_the_coordinators_own_card_does_not_make_it_a_member(own: Federation) -> None:
    output, newer = own.folder / "all.json", own.folder / "newer.json"
    found = sorted(own.folder.glob("*.card"))
    made = roster_create(found, federation="test", key=own.key("coordinator"), output=output)
    assert made.left_out == (own.folder / "coordinator.card",)
    assert "coordinator.card: left out" in str(made)
    assert roster_format.read(output).names == own.sites
    keygen("site-d", output=own.folder)
    cards = [own.folder / "coordinator.card", own.folder / "site-d.card"]
    assert roster_add(cards, roster=output, key=own.key("coordinator"), output=newer).left_out == (cards[0],)
    assert roster_format.read(newer).names == (*own.sites, "site-d")


def test_updates_and_ciphertexts_do_not_mix(made: Federation, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"site-a\.update is an update, not an encrypted update"):
        aggregate(
            [made.update("site-a"), made.ciphertext("site-b"), made.ciphertext("site-c")],
            plan=made.plan,
            roster=made.roster,
            output=tmp_path / "x",
        )
    with pytest.raises(FormatError, match=r"site-a.enc is an encrypted update .*, not an encrypted sum"):
        open_sum(made, made.ciphertext("site-a"), tmp_path / "x")
    with pytest.raises(UsageError, match="signed"):
        aggregate(made.ciphertexts, plan=made.plan, roster=made.roster, output=tmp_path / "x")


def test_a_change_beyond_its_range_is_refused_or_clipped_and_counted(own: Federation) -> None:
    own.write_updates(
        np.random.default_rng(1),
        {"conv.weight": (8, 1, 3, 3, 3), "norm.running_var": (8,), "norm.weight": (8,), "scale": ()},
        1e9,
    )
    options = {"plan": own.plan, "roster": own.roster, "key": own.key("site-a"), "output": own.folder / "x.enc"}
    forget(own.key("site-a"))
    with pytest.raises(CapacityError, match="times its range"):
        encrypt(own.update("site-a"), **options)  # type: ignore[arg-type]
    assert not (own.folder / "x.enc").exists()
    result = encrypt(own.update("site-a"), **options, clip=True)  # type: ignore[arg-type]
    assert result.clipped > 0
    assert "clipped" not in container.read(own.folder / "x.enc").metadata  # it would tell how much data a site has


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_and_garbage_uploads_are_refused(made: Federation, tmp_path: Path, data: st.DataObject) -> None:
    good = made.ciphertext("site-a").read_bytes()
    bad = data.draw(
        st.integers(0, len(good) - 1).map(lambda n: good[:n])
        | st.binary(max_size=100)
        | st.binary(min_size=1, max_size=100).map(lambda tail: good + tail)
    )
    path = tmp_path / "bad.enc"
    path.write_bytes(bad)
    with pytest.raises(FormatError):
        add_encrypted(made, tmp_path / "sum.enc", [path, *made.ciphertexts[1:]])
    assert not (tmp_path / "sum.enc").exists()


# --- rosters and verification -----------------------------------------------------------------------


def test_anyone_can_add_again_and_catch_a_coordinator_who_cheats(own: Federation) -> None:
    total = own.folder / "sum.enc"
    honest = verify([total, *own.ciphertexts, own.update("site-a")], plan=own.plan, roster=own.roster)
    assert honest.found["sum.enc"].endswith("adding again gives the same")
    assert honest.found["site-b.enc"] == "encrypted and signed by site-b"
    partly = verify([total, own.ciphertext("site-a")], plan=own.plan, roster=own.roster)
    assert "not checked" in partly.found["sum.enc"]

    def change(held: Container) -> None:
        held.tensors["ciphertext"][0, 0] += np.uint64(1 << 20)

    rewrite(total, change, signer=own.key("coordinator"))
    with pytest.raises(MismatchError, match="not the sum"):
        verify([total, *own.ciphertexts], plan=own.plan, roster=own.roster)


def test_members_come_and_go_and_change_their_keys(own: Federation, tmp_path: Path) -> None:
    options = {"key": own.key("coordinator"), "force": True}
    keygen("site-d", output=own.folder)
    roster_add([own.folder / "site-d.card"], roster=own.roster, output=own.roster, **options)  # type: ignore[arg-type]
    left = roster_remove(["site-b"], roster=own.roster, output=own.roster, **options)  # type: ignore[arg-type]
    assert list(left.fingerprints) == ["coordinator", "site-a", "site-c", "site-d"]
    with pytest.raises(MismatchError, match="site-b is not in the roster"):
        roster_remove(["site-b"], roster=own.roster, output=own.roster, **options)  # type: ignore[arg-type]

    keygen("site-a", output=tmp_path)  # somebody else's idea of site-a
    with pytest.raises(SignatureError, match="does not vouch"):
        roster_rotate([tmp_path / "site-a.card"], roster=own.roster, output=own.roster, **options)  # type: ignore[arg-type]
    (tmp_path / "new").mkdir()
    made = keygen("site-a", output=tmp_path / "new", replaces=own.key("site-a"))
    rotated = roster_rotate([made.card], roster=own.roster, output=own.roster, **options)  # type: ignore[arg-type]
    assert rotated.fingerprints["site-a"] == made.fingerprint
    lost = roster_rotate([tmp_path / "site-a.card"], roster=own.roster, output=own.roster, lost=True, **options)  # type: ignore[arg-type]
    assert lost.fingerprints["site-a"] != made.fingerprint
    with pytest.raises(MismatchError, match="not the coordinator"):
        roster_remove(["site-c"], roster=own.roster, key=own.key("site-c"), output=own.roster, force=True)


def test_a_roster_by_somebody_who_calls_himself_coordinator(own: Federation, tmp_path: Path) -> None:
    genuine = roster_show(own.roster).fingerprints["coordinator"]
    assert roster_show(own.roster, coordinator=genuine).coordinator == "coordinator"
    keygen("coordinator", output=tmp_path)
    cards = [own.folder / f"{site}.card" for site in own.sites]
    roster_create(cards, federation="test", key=tmp_path / "coordinator.key", output=own.roster, force=True)
    with pytest.raises(SignatureError, match="fingerprint"):
        roster_show(own.roster, coordinator=genuine)
    with pytest.raises(SignatureError, match="not that of coordinator"):
        add_encrypted(own, own.folder / "x")
