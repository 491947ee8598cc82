"""ucadi against test vectors, which were made without it: see vectors/make.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import VECTORS

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.tag import tag
from ucadi.commands.verify import verify
from ucadi.errors import FormatError
from ucadi.fed.fixedpoint import Encoder, layout_of
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import consent as consent_format
from ucadi.formats import container, signed
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.ledger import Entry, Ledger, What
from ucadi.lwe import randomness, scheme, shamir
from ucadi.lwe.parameters import DEGREE, Packing
from ucadi.rounds.lot import anchor
from ucadi.rounds.round import Round

SITES = ("site-a", "site-b", "site-c")
MODES = ("members", "threshold")


def read(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def stand_in(label: str, length: int) -> bytes:
    """The vectors' stand-in for randomness."""
    return hashlib.shake_256(f"ucadi vectors: {label}".encode()).digest(length)


def sha256(array: np.ndarray, dtype: str) -> str:
    return hashlib.sha256(array.astype(dtype).tobytes()).hexdigest()


def in_hex(words: np.ndarray) -> list[str]:
    return [f"{word:016x}" for word in words]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """The vectors' key files as a site has them: readable by itself alone."""
    paths = {name: tmp_path / f"{name}.key" for name in ("coordinator", *SITES)}
    for path in paths.values():
        shutil.copy(VECTORS / path.name, path)
        path.chmod(0o600)
    return paths


# --- container and documents ----------------------------------------------------------------------------


def test_a_container_has_exactly_these_bytes(tmp_path: Path) -> None:
    accepted = read("container")["accepted"]
    tensors = {
        "b": np.array([[-1], [7]], np.int32),
        "a": np.array(5, np.uint8),
        "c": np.zeros((0, 3), np.float32),
    }
    container.write(tmp_path / "written", tensors, accepted["metadata"])
    assert (tmp_path / "written").read_bytes().hex() == accepted["file"]
    held = container.read(tmp_path / "written", "ucadi-test")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(held.tensors[name], tensor)


@pytest.mark.parametrize("refused", read("container")["refused"], ids=lambda vector: vector["reason"])
def test_a_container_that_is_refused(tmp_path: Path, refused: dict[str, str]) -> None:
    (tmp_path / "file").write_bytes(bytes.fromhex(refused["file"]))
    with pytest.raises(FormatError):
        container.read(tmp_path / "file")


def test_canonical_json() -> None:
    for vector in read("documents")["canonical"]:
        assert container.canonical_json(vector["value"]) == vector["text"]


@pytest.mark.parametrize("name", ["coordinator", *SITES])
def test_keys_cards_signatures_and_fingerprints(keys: dict[str, Path], tmp_path: Path, name: str) -> None:
    party = read("documents")["parties"][name]
    assert keys[name].read_text() == party["key_file"]
    secret = key_format.read_key(keys[name])
    key_format.write_card(tmp_path / "card", secret)
    assert (tmp_path / "card").read_text() == party["card_file"]
    assert key_format.read_card(tmp_path / "card").keys == secret.public
    assert secret.public.fingerprint.replace(" ", "") == party["fingerprint"]
    unsigned = {key: value for key, value in json.loads(party["card_file"]).items() if key != "signature"}
    assert hashlib.sha256(signed._message(unsigned)).hexdigest() == party["signed_bytes_sha256"]
    key_format.write_key(tmp_path / "again.key", secret)
    assert (tmp_path / "again.key").read_bytes() == keys[name].read_bytes()


# --- the scheme ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", read("scheme")["widths"], ids=lambda vector: vector["sites"])
def test_widths(vector: dict[str, int]) -> None:
    packing = Packing(vector["sites"])
    assert (packing.noise_bits, packing.slot_bits, packing.value_bits) == (
        vector["noise_bits"],
        vector["slot_bits"],
        vector["value_bits"],
    )


def test_public_polynomials() -> None:
    vector = read("scheme")["public"]
    A = randomness.public_polynomials(bytes.fromhex(vector["seed"]), 0, 4)
    assert in_hex(A[0, :4]) == vector["A[0][0:4]"]
    assert in_hex(A[3, -4:]) == vector["A[3][4092:4096]"]
    assert sha256(A, "<u8") == vector["sha256_of_4"]


@pytest.mark.parametrize("vector", read("scheme")["secrets"], ids=lambda vector: vector["seed"][:8])
def test_secrets(vector: dict[str, Any]) -> None:
    secret = randomness.secret_polynomial(bytes.fromhex(vector["seed"]))
    assert secret[:16].tolist() == vector["first"]
    assert sha256(secret, "i1") == vector["sha256_as_int8"]


def test_encryption_addition_and_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = read("scheme")["encryption"]
    sites, count, public_seed = vector["sites"], vector["count"], bytes.fromhex(vector["public_seed"])
    packing = Packing(sites)
    secret_seeds = [bytes.fromhex(seed) for seed in vector["secret_seeds"]]
    j = np.arange(count, dtype=np.uint64)
    parts = []
    for i, seed in enumerate(secret_seeds):
        modulus = np.uint64(1 << packing.value_bits)
        values = np.where(j % 5 == i, modulus - np.uint64(1), j * j * np.uint64(i + 1) % modulus)
        drawn = stand_in(f"scheme errors {i}", 8 * DEGREE * 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "urandom", lambda length, drawn=drawn: drawn[:length])
            parts.append(np.concatenate(list(scheme.encrypt([values], count, packing, public_seed, seed))))
        assert in_hex(parts[i][0, :4]) == vector["b[0][0:4]"][i]
        assert in_hex(parts[i][2, -4:]) == vector["b[2][4092:4096]"][i]
        assert sha256(parts[i], "<u8") == vector["sha256"][i]
    total = scheme.add(parts)
    assert sha256(total, "<u8") == vector["sum_sha256"]
    secret = np.sum([randomness.secret_polynomial(seed) for seed in secret_seeds], axis=0)
    assert sha256(secret, "<i2") == vector["secret_sum_sha256_as_int16"]
    opened = np.concatenate(list(scheme.decrypt(total, count, sites, packing, public_seed, secret)))
    assert opened[:8].tolist() == vector["decrypted_first"]
    assert sha256(opened, "<u8") == vector["decrypted_sha256_as_u64"]


@pytest.mark.parametrize("vector", read("shamir"), ids=lambda v: f"{v['threshold']}-of-{v['holders']}")
def test_shares(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    threshold, holders = vector["threshold"], vector["holders"]
    drawn = stand_in(f"shamir {threshold} of {holders}", 2 * DEGREE * (threshold - 1))
    coefficients = np.frombuffer(drawn, "<u2").astype(np.int64).reshape(-1, DEGREE)
    assert coefficients[0, :4].tolist() == vector["first_coefficients"]
    monkeypatch.setattr(shamir, "_uniform", lambda _: coefficients)
    secret = randomness.secret_polynomial(bytes.fromhex(vector["secret_seed"]))
    shares = shamir.split(secret, holders, threshold)
    assert shares[:, :4].tolist() == vector["shares_first"]
    assert [sha256(share, "<u2") for share in shares] == vector["shares_sha256"]
    last = {place: shares[place] for place in range(holders - threshold, holders)}
    np.testing.assert_array_equal(shamir.combine(last, threshold), secret)


# --- fixed point, and a whole round ----------------------------------------------------------------------


def test_fixed_point() -> None:
    vector = read("fixedpoint")
    base = weights_format.read(VECTORS / "members" / "base.weights")
    layout = layout_of(base.arrays, vector["headroom"])
    assert {tensor.name: tensor.exponent for tensor in layout.tensors} == vector["exponents"]
    for site in vector["sites"]:
        update = update_format.read_update(VECTORS / "members" / f"{site['site']}.update")
        assert update.weight == site["weight"]
        assert update.deltas["a"].tobytes().hex() == site["tensor_a_float32"]
        encoded = np.concatenate(list(Encoder(update, layout, cap=vector["weight_cap"], bits=vector["bits"]).pieces()))
        assert encoded[:12].tolist() == site["encoded_first"]
        assert sha256(encoded, "<i8") == site["sha256_as_i64"]
        raised = [site["encoded_first"][0], *(v + (1 << (vector["bits"] - 1)) for v in site["encoded_first"][1:4])]
        assert raised == site["unsigned_first"]


@pytest.mark.parametrize("mode", MODES)
def test_a_round_of_others_is_verified_added_opened_and_applied(
    keys: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    folder = VECTORS / mode
    for name in keys:
        shutil.copy(folder / f"{name}.ledger", tmp_path)
    common = {"plan": folder / "plan.json", "roster": folder / "federation.json"}
    uploads, answers = sorted(folder.glob("site-*.enc")), sorted(folder.glob("*.partial"))
    assert verify([*uploads, folder / "sum.enc", *answers], **common).round == 7
    checked = {"receipt": folder / "receipt.json", "tag": sorted(folder.glob("*.tag.json"))}
    assert verify([folder / "sum.enc"], **common, **checked).verdict == "verified"
    for site in SITES:
        mine = tmp_path / f"{site}.tag.json"
        tag(folder / f"{site}.enc", **common, receipt=checked["receipt"], key=keys[site], output=mine)
        assert mine.read_bytes() == (folder / mine.name).read_bytes()
    aggregate(uploads[::-1], **common, key=keys["coordinator"], output=tmp_path / "sum.enc")
    assert (tmp_path / "sum.enc").read_bytes() == (folder / "sum.enc").read_bytes()
    for site in SITES:
        opened = tmp_path / f"{site}.opened"
        decrypt(folder / "sum.enc", **common, **checked, key=keys[site], output=opened, partial=answers)
        assert opened.read_bytes() == (folder / "opened.aggregate").read_bytes()
    aggregate(sorted(folder.glob("*.update")), **common, output=tmp_path / "added")
    assert (tmp_path / "added").read_bytes() == (folder / "opened.aggregate").read_bytes()
    apply(folder / "base.weights", folder / "opened.aggregate", **common, output=tmp_path / "next.weights")
    assert (tmp_path / "next.weights").read_bytes() == (folder / "next.weights").read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_consents_and_ledgers_of_others(keys: dict[str, Path], mode: str) -> None:
    folder = VECTORS / mode
    roster = roster_format.read(folder / "federation.json")
    for site in SITES:
        member = roster.member(site)
        consent = consent_format.read(folder / f"consents/{site}-0001.json", member)
        consent_format.check_for(consent, roster, site)
        assert consent.lot == anchor(key_format.read_key(keys[site]), "vectors")
        assert consent.size_band == (256 if site == "site-b" else None)
        history = Ledger(folder / f"{site}.ledger", member).read()
        assert history.head == consent.ledger
        assert history.entries == (Entry(What.ACCEPTED, "vectors", 1, roster.digest),)


def test_a_share_sealed_by_others(keys: dict[str, Path]) -> None:
    """What is in a seal of threshold mode is the share that the holder's place in the roster says."""
    folder = VECTORS / "threshold"
    round_ = Round.read(folder / "plan.json", folder / "federation.json")
    upload = ciphertext_format.read_ciphertext(folder / "site-b.enc")
    shares = {}
    for place, site in enumerate(SITES):
        holder = key_format.read_key(keys[site])
        context = round_.seal_context("site-b", site, upload.contribution.ciphertext_digest)
        shares[place] = np.frombuffer(holder.open(upload.sealed[place].tobytes(), context), "<u2")
    secret = randomness.secret_polynomial(stand_in("site-b secret", 32))
    np.testing.assert_array_equal(shamir.combine(shares, 2), secret)


def test_seals_and_their_context(keys: dict[str, Path]) -> None:
    folder = VECTORS / "members"
    round_ = Round.read(folder / "plan.json", folder / "federation.json")
    upload = ciphertext_format.read_ciphertext(folder / "site-a.enc")
    context = round_.seal_context("site-a", "site-c", upload.contribution.ciphertext_digest)
    assert (
        context
        == (
            f'ucadi/seal/v1\n{{"ciphertext":"{upload.contribution.ciphertext_digest}","federation":"vectors",'
            f'"plan":"{round_.plan_digest}","receiver":"site-c","round":7,"sender":"site-a"}}'
        ).encode()
    )
    seed = key_format.read_key(keys["site-c"]).open(upload.sealed[2].tobytes(), context)
    assert seed == stand_in("site-a secret", 32)
