"""How fine a round is: what rounding leaves of small and large sites' updates, and which weight cap fits them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack import add, common, is_refused
from commandline import invoke, to_set
from federation import Federation, forget, make_federation
from hypothesis import given
from hypothesis import strategies as st

from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.init import init
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.round_open import round_open
from ucadi.errors import CapacityError, UsageError
from ucadi.fed.fixedpoint import decode
from ucadi.fed.sizing import BANDS, band_of, fitting_cap
from ucadi.fed.update import Update, is_statistic
from ucadi.formats import consent as consent_format
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.rounds.round import Round

EXAMPLES = {"site-a": 20, "site-b": 80, "site-c": 400}


@given(examples=st.integers(1, BANDS[-1]))
def test_a_band_is_the_next_power_of_four(examples: int) -> None:
    band = band_of(examples)
    assert band in BANDS
    assert examples <= band
    assert band == 1 or examples > band // 4


@given(bands=st.lists(st.none() | st.sampled_from(BANDS)), epochs=st.integers(1, 10))
def test_the_cap_fits_the_largest_site_if_all_state_their_bands(bands: list[int | None], epochs: int) -> None:
    cap = fitting_cap(bands, epochs)
    stated = [band for band in bands if band is not None]
    assert cap == (max(stated) * epochs if stated and len(stated) == len(bands) else None)


@pytest.mark.parametrize("examples", [-1, 0, BANDS[-1] + 1])
def test_what_has_no_band_is_refused(examples: int) -> None:
    with pytest.raises(UsageError, match="no size band"):
        band_of(examples)


def test_a_round_is_opened_with_the_cap_that_the_sites_bands_fit(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    for site, examples, cap in zip(federation.sites, (20, 400, 80), (65536, 65536, 2 * 1024), strict=True):
        keys, path = key_format.read_key(federation.key(site)), tmp_path / f"consents/{site}-0001.json"
        consent = consent_format.read(path, keys.public)
        consent_format.write(path, replace(consent, size_band=band_of(examples)), keys, force=True)
        opened = round_open(
            number=2,
            base=federation.base,
            roster=federation.roster,
            key=federation.key("coordinator"),
            settings=to_set(local_epochs=2),
            output=tmp_path / f"{site}.plan",
        )
        assert opened.weight_cap == cap


def realistic(federation: Federation) -> None:
    """Updates of a network just initialised: a hundredth of each tensor, small steps of what begins at zero."""
    rng = np.random.default_rng(4)
    base = weights_format.read(federation.base)
    for site, examples in EXAMPLES.items():
        deltas = {}
        for name, array in base.arrays.items():
            scale = 0.1 if is_statistic(name) else max(0.01 * float(np.sqrt(np.square(array).mean())), 0.001)
            deltas[name] = np.asarray(rng.normal(0, scale, array.shape), np.float32)
        update_format.write_update(federation.update(site), Update(site, base.digest, examples, 1, deltas), force=True)


def opened_in_a_round(federation: Federation, cap: int) -> dict[str, float]:
    """The relative error of each tensor's mean, against float64, through a whole encrypted round."""
    realistic(federation)
    federation.open_round(1, federation.plan, weight_cap=cap, force=True)
    federation.encrypt_all()
    total, opened = add(federation, federation.folder / "sum.enc"), federation.folder / "opened"
    partials = []
    for site in federation.sites if Round.read(federation.plan, federation.roster).plan.mode == "threshold" else ():
        partials.append(federation.folder / f"{site}.partial")
        partial_decrypt(total, **common(federation), key=federation.key(site), output=partials[-1])
    decrypt(total, **common(federation), key=federation.key("site-b"), output=opened, partial=partials)
    round_, aggregate = Round.read(federation.plan, federation.roster), update_format.read_aggregate(opened)
    updates = [update_format.read_update(path) for path in federation.updates]
    errors, start = {}, 1
    for tensor in round_.plan.layout.tensors:
        part = aggregate.total[start : start + tensor.size]
        mean = decode(part, tensor, weight=aggregate.weight, cap=cap, bits=round_.bits)
        weights = [update.weight for update in updates]
        exact = np.average([u.deltas[tensor.name].astype(np.float64).ravel() for u in updates], axis=0, weights=weights)
        errors[tensor.name] = float(np.linalg.norm(mean - exact) / np.linalg.norm(exact))
        start += tensor.size
    return errors


def network(folder: Path, threshold: int | None) -> Federation:
    federation = make_federation(folder, EXAMPLES, threshold=threshold, minimum_sites=3)
    init(seed=1, width=4, output=federation.base, force=True)
    return federation


@pytest.mark.parametrize("threshold", [None, 2])
def test_with_a_fitting_cap_the_mean_is_that_of_floating_point(tmp_path: Path, threshold: int | None) -> None:
    cap = fitting_cap([band_of(examples) for examples in EXAMPLES.values()], 1)
    assert cap == 1024
    errors = opened_in_a_round(network(tmp_path, threshold), cap)
    assert len(errors) > 50
    assert max(errors.values()) < 0.001


def test_with_a_cap_for_thousands_of_examples_small_changes_are_lost(tmp_path: Path) -> None:
    errors = opened_in_a_round(network(tmp_path, None), 65536)
    assert max(errors.values()) > 0.01


def test_encrypt_says_what_rounding_loses_and_refuses_more_than_is_admitted(tmp_path: Path) -> None:
    federation = network(tmp_path, None)
    realistic(federation)
    losses = {}
    for cap in (1024, 65536):
        federation.open_round(1, federation.plan, weight_cap=cap, force=True)
        for site in EXAMPLES:
            forget(federation.key(site))
            output = tmp_path / f"{site}-{cap}.enc"
            losses[site, cap] = encrypt(
                federation.update(site), **common(federation), key=federation.key(site), output=output
            ).rounding
    assert losses["site-a", 1024] == pytest.approx(losses["site-a", 65536] / 64, rel=0.1)
    assert losses["site-a", 1024] == pytest.approx(20 * losses["site-c", 1024], rel=0.3)
    key, output = federation.key("site-a"), tmp_path / "x.enc"
    error = is_refused(
        lambda: encrypt(federation.update("site-a"), **common(federation), key=key, output=output, max_rounding=0.01),
        tmp_path,
    )
    assert isinstance(error, CapacityError)
    assert error.hint is not None
    assert "it is 65536, this update's is 20" in error.hint
    options = ["--plan", federation.plan, "--roster", federation.roster, "--key", key, "-o", output]
    told = invoke("encrypt", federation.update("site-a"), *options)
    assert told.exit_code == 0
    assert ("rounding loses" in told.stderr) == (losses["site-a", 65536] > 0.05)
    assert "rounding loses" in told.stdout


def test_opening_a_round_says_what_its_cap_means(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    options = ["--base", federation.base, "--roster", federation.roster, "--key", federation.key("coordinator")]
    told = invoke("round", "open", "--number", 1, *options, "-o", tmp_path / "p.json", "--weight-cap", 1024)
    assert told.exit_code == 0
    assert "weight cap 1024 examples x local epochs" in told.stdout
    # of 24 bits: half a quantum of 2^-23 for the largest, thirty-two times that for the next
    assert "6e-08 at weight 1024, 2e-06 at weight 32, 6e-05 at weight 1" in told.stdout
