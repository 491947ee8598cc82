"""Attacks on threshold mode that need several hands: holders, coordinator and sites that conspire or lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from attack import add, common, is_refused, replace_ciphertext
from federation import Federation, make_federation

from ucadi.commands.decrypt import decrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.errors import UsageError
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats.roster import Policy
from ucadi.formats.signed import sign
from ucadi.lwe import randomness, shamir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Two of three holders needed; all uploaded, their sum is `sum.enc`. Not to be changed."""
    federation = make_federation(tmp_path_factory.mktemp("threshold"), minimum_sites=3, threshold=2)
    federation.encrypt_all()
    add(federation, federation.folder / "sum.enc")
    return federation


@pytest.fixture
def own(made: Federation, tmp_path: Path) -> Federation:
    """A copy of it that a test may change."""
    shutil.copytree(made.folder, tmp_path / "own")
    return Federation(tmp_path / "own", made.sites)


def answer(federation: Federation, site: str, total: Path) -> Path:
    output = federation.folder / f"{site}.partial"
    partial_decrypt(total, **common(federation), key=federation.key(site), output=output)
    return output


def test_a_threshold_of_half_the_members_is_none() -> None:
    """A coordinator could show one half one sum, the other half another, and have both opened."""
    for members, threshold in ((3, 2), (4, 3), (10, 6)):
        Policy("threshold", 3, threshold).check(members)
        with pytest.raises(UsageError, match=f"threshold {threshold - 1} of {members}"):
            Policy("threshold", 3, threshold - 1).check(members)


def test_the_limit_of_a_threshold_is_what_the_documentation_says() -> None:
    """Two of four holders conspire with the coordinator; the others, shown different sums, answer once each.

    With a threshold of three that opens the difference of two sets, one site's secret; with one of four it cannot.
    """
    secrets = [randomness.secret_polynomial(bytes([i]) * 32) for i in range(4)]
    shares = np.stack([shamir.split(secret, 4, 3) for secret in secrets])
    views = {}
    for sites, honest in ((4, 2), (3, 3)):
        views[sites] = shamir.combine({p: shamir.add(shares[:sites, p]) for p in (0, 1, honest)}, 3)
    np.testing.assert_array_equal(views[4] - views[3], secrets[3])
    with pytest.raises(ValueError, match="2 shares, 3 are needed"):
        shamir.combine({p: shamir.add(shares[:3, p]) for p in (0, 3)}, 3)


def test_a_seal_that_does_not_open_names_its_site_to_the_holder(own: Federation) -> None:
    """The holder has answered for nothing then: its ledger is as before."""

    def garbage(tensors: dict[str, np.ndarray]) -> None:
        tensors["sealed"][0] = 255

    replace_ciphertext(own.ciphertext("site-b"), own.key("site-b"), garbage)
    total = add(own, own.folder / "again.enc")
    error = is_refused(lambda: answer(own, "site-a", total), own.folder)
    assert error.message.startswith("site-b: a seal does not open")


@pytest.mark.parametrize("length", [0, 8191, 1 << 22])
def test_an_answer_of_another_size(own: Federation, length: int) -> None:
    total = own.folder / "sum.enc"
    answers = [answer(own, site, total) for site in ("site-a", "site-b")]
    held = container.read(answers[1])
    tensors = {"body": np.zeros(length, np.uint8), "sealed": held.tensors["sealed"]}
    digests = {name: container.tensor_digest(tensor) for name, tensor in tensors.items()}
    document = sign({**held.metadata, "digests": digests}, key_format.read_key(own.key("site-b")))
    container.write(answers[1], tensors, document, force=True)
    key, output = own.key("site-c"), own.folder / "x"
    error = is_refused(lambda: decrypt(total, **common(own), key=key, output=output, partial=answers), own.folder)
    assert "partial decryption of site-b" in error.message
    assert error.hint == "ask site-b to make it again"
