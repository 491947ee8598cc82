"""Keys, signatures and seals: they do for whom they are made, and for nobody and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hints import raises_with_hint
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import SignatureError, UsageError
from ucadi.identity import (
    AUTHENTICATION_BYTES,
    SEAL_OVERHEAD,
    PublicKeys,
    SecretKeys,
    check_name,
    decrypt_stream,
    decrypt_with,
    encrypt_stream,
    encrypt_with,
)

ANNA, BERT = SecretKeys.generate("anna"), SecretKeys.generate("bert")
KEY, CONTEXT = bytes(range(32)), b"round 1"


# Parties


def test_keys_are_fresh_and_as_long_as_they_must_be() -> None:
    assert [len(part) for part in (ANNA.signing, ANNA.sealing, ANNA.transport)] == [32, 96, 32]
    public = ANNA.public
    assert [len(part) for part in (public.signing, public.sealing, public.transport)] == [32, 1216, 32]
    for again in (BERT, SecretKeys.generate("anna")):
        parts = [(a, b) for a, b in zip(vars(ANNA).values(), vars(again).values(), strict=True) if isinstance(a, bytes)]
        assert len(parts) == 3
        assert all(a != b for a, b in parts)
    assert public == ANNA.public
    assert public.fingerprint != SecretKeys.generate("anna").public.fingerprint


def test_secret_keys_are_not_printed() -> None:
    assert ANNA.signing.hex()[:8] not in repr(ANNA)
    assert repr(ANNA.signing) not in repr(ANNA)


@pytest.mark.parametrize("field", ["signing", "sealing", "transport"])
@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + b"x", lambda _: b""])
def test_keys_of_a_wrong_length_are_refused(field: str, change: Callable[[bytes], bytes]) -> None:
    for keys, hint in ((ANNA, "as keygen made it"), (ANNA.public, "with keygen")):
        parts: dict[str, Any] = {**vars(keys), field: change(getattr(keys, field))}
        with raises_with_hint(SignatureError, "^anna: (secret|public) keys of a wrong length", hint):
            type(keys)(**parts)


@pytest.mark.parametrize("kind", [SecretKeys, PublicKeys])
def test_keys_have_a_name_that_a_party_may_have(kind: type) -> None:
    keys = ANNA if kind is SecretKeys else ANNA.public
    with pytest.raises(UsageError, match="'Anna' is no name for a site"):
        kind(**{**vars(keys), "name": "Anna"})


def test_a_signature_is_one_partys_over_one_message() -> None:
    signature = ANNA.sign(b"message")
    assert len(signature) == 64
    assert ANNA.public.verify(b"message", signature) is True
    for who, message, given_ in (
        (ANNA, b"messagf", signature),
        (BERT, b"message", signature),
        (ANNA, b"message", BERT.sign(b"message")),
        (ANNA, b"message", signature[:-1] + bytes([signature[-1] ^ 1])),
        (ANNA, b"message", b""),
    ):
        assert who.public.verify(message, given_) is False


def test_a_seal_opens_for_one_party_under_one_context() -> None:
    sealed = ANNA.public.seal(b"secret", CONTEXT)
    assert len(sealed) == len(b"secret") + SEAL_OVERHEAD
    assert sealed != ANNA.public.seal(b"secret", CONTEXT)
    assert ANNA.open(sealed, CONTEXT) == b"secret"
    changed = bytearray(sealed)
    changed[-1] ^= 1
    for who, what, context in (
        (BERT, sealed, CONTEXT),
        (ANNA, sealed, b"round 2"),
        (ANNA, sealed, b""),
        (ANNA, bytes(changed), CONTEXT),
    ):
        with raises_with_hint(
            SignatureError, f"^a seal does not open with the key of {who.name}", "another key, site or round"
        ):
            who.open(what, context)


# Names


@pytest.mark.parametrize("name", ["a", "0", "site-a", "a--b", "a" * 32, "9-9"])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        *(("", None), ("-", None), ("---", None), ("???", None)),
        *(("Site-A", "site-a"), ("-a", "a"), ("a-", "a"), ("a_b", "a-b"), ("a\n", "a"), ("a b  c", "a-b-c")),
        *(("Köln", "koln"), ("St. Mary's", "st-marys"), ("x" * 33, "x" * 32), ("x" * 31 + " y", "x" * 31)),
        *(("Ünïversity of Ω!", "university-of"), ("U.S.A.", "usa"), ("-" + "y" * 40, "y" * 32)),
    ],
)
def test_other_names_are_refused_with_one_that_is_admitted(name: str, proposal: str | None) -> None:
    example = f": {proposal}, for example$" if proposal else "or a digit$"
    with raises_with_hint(UsageError, "is no name for a site$", f"^1 to 32 of a-z, 0-9 and '-'.*{example}"):
        check_name(name)
    with pytest.raises(UsageError, match="is no name for a federation"):
        check_name(name, "a federation")
    if proposal:
        check_name(proposal)


# Under a key for once


def test_an_answer_opens_with_its_key_and_context_alone() -> None:
    encrypted = encrypt_with(KEY, b"message", CONTEXT)
    assert encrypted == AESGCM(KEY).encrypt(bytes(12), b"message", CONTEXT)
    assert decrypt_with(KEY, encrypted, CONTEXT) == b"message"
    for key, what, context in (
        (bytes(32), encrypted, CONTEXT),
        (KEY, encrypted, b"round 2"),
        (KEY, encrypted[:-1] + bytes([encrypted[-1] ^ 1]), CONTEXT),
    ):
        with raises_with_hint(SignatureError, "^a sealed partial decryption does not open", "fresh copy"):
            decrypt_with(key, what, context)


def encrypted_blocks(blocks: list[bytes]) -> list[bytes]:
    return list(encrypt_stream(KEY, blocks, CONTEXT))


def test_a_blocks_nonce_is_its_number_and_whether_it_is_the_last() -> None:
    blocks = [b"a", b"bc", b""]
    for number, (block, encrypted) in enumerate(zip(blocks, encrypted_blocks(blocks), strict=True)):
        nonce = number.to_bytes(11, "big") + bytes([number == 2])
        assert encrypted == AESGCM(KEY).encrypt(nonce, block, CONTEXT)
    assert encrypted_blocks([]) == []


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=300))
def test_a_stream_is_what_was_encrypted(blocks: list[bytes]) -> None:
    encrypted = encrypted_blocks(blocks)
    assert [len(one) - AUTHENTICATION_BYTES for one in encrypted] == [len(block) for block in blocks]
    assert list(decrypt_stream(KEY, encrypted, CONTEXT)) == blocks


@pytest.mark.parametrize(
    "attack",
    [
        lambda blocks: blocks[:-1],
        lambda blocks: blocks[1:],
        lambda blocks: [blocks[1], blocks[0], *blocks[2:]],
        lambda blocks: [blocks[0], blocks[0], *blocks[1:]],
        lambda blocks: [*blocks, blocks[-1]],
        lambda blocks: [*blocks[:-1], blocks[-1][:-1]],
        lambda blocks: [*encrypt_stream(os.urandom(32), [b"x"], CONTEXT), *blocks[1:]],
        lambda _: encrypt_stream(KEY, [b"one", b"two"], b"round 2"),
    ],
)
def test_a_stream_that_was_changed_does_not_open(attack: Callable[[list[bytes]], Any]) -> None:
    attacked = attack(encrypted_blocks([b"one", b"two", b"three"]))
    with raises_with_hint(SignatureError, "^a sealed file does not open", "fresh copy"):
        list(decrypt_stream(KEY, attacked, CONTEXT))
