"""The page that is a round gives what the commands give, byte for byte, and each opens what the other encrypted."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from federation import Federation, make_federation
from places import ROOT

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.errors import SignatureError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.rounds.round import Round

PAGE = ROOT / "examples/one_round.py"


@pytest.fixture(scope="module")
def page() -> Any:
    spec = importlib.util.spec_from_file_location("one_round", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["one_round"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def by_commands(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A round that the commands have run: its sum opened, its next weights written."""
    made = make_federation(tmp_path_factory.mktemp("round"))
    made.encrypt_all()
    signed = {"plan": made.plan, "roster": made.roster}
    total, opened = made.folder / "sum.enc", made.folder / "opened.aggregate"
    aggregate(made.ciphertexts, **signed, key=made.key("coordinator"), output=total)
    decrypt(total, **signed, key=made.key("site-a"), output=opened)
    apply(made.base, opened, **signed, output=made.folder / "next.weights")
    return made


def test_the_sum_and_the_next_model_are_the_commands(page: Any, by_commands: Federation) -> None:
    plan, keys, updates = same_round(page, by_commands)
    uploads = [page.encrypt(update, plan) for update in updates]
    total = page.open_sum(page.add(uploads), uploads, plan, keys["site-b"])
    expected = update_format.read_aggregate(by_commands.folder / "opened.aggregate").total
    assert (total.dtype, total.tobytes()) == (expected.dtype, expected.tobytes())
    following, next_weights = page.apply(total, plan), weights_format.read(by_commands.folder / "next.weights").arrays
    assert {name: array.tobytes() for name, array in following.items()} == {
        name: array.tobytes() for name, array in next_weights.items()
    }


def test_the_commands_sum_is_the_sum_of_their_uploads_on_the_page(page: Any, by_commands: Federation) -> None:
    uploads = [
        page.Upload(site, np.array(ciphertext_format.read_ciphertext(by_commands.ciphertext(site)).ciphertext), {})
        for site in by_commands.sites
    ]
    expected = ciphertext_format.read_sum(by_commands.folder / "sum.enc").ciphertext
    np.testing.assert_array_equal(page.add(uploads), expected)


def test_one_upload_less_does_not_open(page: Any, by_commands: Federation) -> None:
    plan, keys, updates = same_round(page, by_commands)
    uploads = [page.encrypt(update, plan) for update in updates]
    with pytest.raises(SignatureError):
        page.open_sum(page.add(uploads), uploads[1:], plan, keys["site-a"])


def test_it_runs_and_is_short() -> None:
    ran = subprocess.run([sys.executable, PAGE], capture_output=True, text=True, check=True)
    assert ran.stdout == "300 examples; the mean of 0.1, 0.2 and 0.6 is 0.3000\n"
    assert len(PAGE.read_text().splitlines()) < 120


def same_round(page: Any, made: Federation) -> tuple[Any, dict[str, Any], list[Any]]:
    """The commands' round as the page's: plan, keys, updates."""
    round_ = Round.read(made.plan, made.roster)
    members = round_.roster.members
    base = weights_format.read(made.base).arrays
    plan = page.Plan(base, tuple(members), round_.plan.weight_cap, round_.public_seed)
    keys = {site: key_format.read_key(made.key(site)) for site in made.sites}
    return plan, keys, [update_format.read_update(path) for path in made.updates]
