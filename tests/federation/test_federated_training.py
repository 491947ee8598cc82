"""What a plan can ask of the sites' training: norms that stay at home, a pull to the base, bounded updates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from federation import make_federation
from torch import nn

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.encrypt import encrypt
from ucadi.commands.init import init
from ucadi.commands.round_open import round_open
from ucadi.commands.train import train
from ucadi.errors import MismatchError, UsageError
from ucadi.fed.fixedpoint import is_norm
from ucadi.fed.update import learned_norm
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build

SITES = ("site-a", "site-b")


@dataclass(frozen=True)
class Sites:
    """Two sites with a dataset each, and initial weights."""

    folder: Path
    roster: Path
    key: Path
    base: Path

    def open(self, number: int, base: Path, recipe: str) -> dict[str, Path]:
        written, plan = self.folder / f"recipe-{number}.toml", self.folder / f"plan-{number}.json"
        written.write_text("total_epochs = 4\nwarmup_epochs = 0\nbatch_size = 4\nlearning_rate = 0.05\n" + recipe)
        round_open(
            number=number, base=base, roster=self.roster, key=self.key, output=plan, recipe=written, weight_cap=64,
            force=True,
        )  # fmt: skip
        return {"plan": plan, "roster": self.roster}

    def train(self, site: str, base: Path, output: str, **options: object) -> Path:
        path = self.folder / output
        train(self.folder / f"{site}.h5", base=base, site=site, output=path, force=True, **options)  # type: ignore[arg-type]
        return path


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sites")
    federation = make_federation(folder, SITES)
    for number, site in enumerate(SITES):
        write_dataset(folder / f"{site}.h5", LABELS * 2, first=100 * number)
    init(output=folder / "global.weights", width=2, size=16)
    return Sites(folder, federation.roster, federation.key("coordinator"), folder / "global.weights")


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_norms_are_known_by_their_names(kind: str) -> None:
    model = build(Architecture(width=2, size=16, norm=kind), 0)
    of_norms = {
        f"{module}.{name}"
        for module, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm3d | nn.GroupNorm)
        for name in layer.state_dict()
    }
    assert of_norms == {name for name in model.state_dict() if is_norm(name)}


def test_norms_stay_at_home(sites: Sites) -> None:
    round_ = sites.open(1, sites.base, "local_norms = true\n")
    updates = [sites.train(site, sites.base, f"{site}-1.update", **round_) for site in SITES]
    total, following = sites.folder / "sum", sites.folder / "next.weights"
    aggregate(updates, **round_, output=total, force=True)
    apply(sites.base, total, **round_, output=following, force=True)
    before, after = weights_format.read(sites.base), weights_format.read(following)
    own = update_format.read_update(updates[0])
    names = [name for name in before.arrays if is_norm(name)]
    assert names
    for name in before.arrays:
        if name in names:
            assert np.array_equal(before.arrays[name], after.arrays[name]), name
            assert own.deltas[name].any(), name
        elif name.endswith("weight"):  # the bias of a convolution before a norm has no gradient
            assert not np.array_equal(before.arrays[name], after.arrays[name]), name
    assert len(update_format.read_aggregate(total).total) == 1 + sum(
        array.size for name, array in before.arrays.items() if name not in names
    )
    encrypt(
        updates[0], **round_, key=sites.folder / "site-a.key", output=sites.folder / "site-a.enc", force=True
    )  # what is encrypted has the layout's values only, or it would be refused

    personal = sites.folder / "site-a.weights"
    apply(sites.base, total, **round_, local_norms=updates[0], output=personal, force=True)
    mine = weights_format.read(personal)
    for name in before.arrays:
        expected = before.arrays[name] + own.deltas[name] if name in names else after.arrays[name]
        assert np.array_equal(mine.arrays[name], expected), name

    # the next round begins where the site's own norms were
    round_ = sites.open(2, following, "local_norms = true\n")
    goes_on = update_format.read_update(
        sites.train("site-a", following, "a-2.update", **round_, local_norms=updates[0])
    )
    afresh = update_format.read_update(sites.train("site-a", following, "a-2x.update", **round_))
    assert any(not np.array_equal(goes_on.deltas[name], afresh.deltas[name]) for name in names)

    # where they are shared, nobody has any of their own
    round_ = sites.open(3, following, "")
    with pytest.raises(MismatchError, match="shares the norms"):
        sites.train("site-a", following, "x.update", **round_, local_norms=updates[0])
    shared = [sites.train(site, following, f"{site}-3.update", **round_) for site in SITES]
    aggregate(shared, **round_, output=total, force=True)
    with pytest.raises(MismatchError, match="shares the norms"):
        apply(following, total, **round_, local_norms=updates[0], output=personal, force=True)
    with pytest.raises(UsageError, match="without a plan"):
        sites.train("site-a", following, "x.update", local_norms=updates[0], settings=to_set(batch_size=4))


def test_the_pull_to_the_base(sites: Sites) -> None:
    def moved(mu: float) -> float:
        round_ = sites.open(1, sites.base, f"local_epochs = 3\nproximal = {mu}\n")
        return learned_norm(update_format.read_update(sites.train("site-a", sites.base, "p.update", **round_)).deltas)

    assert moved(10.0) < 0.7 * moved(0.0)


def test_an_update_is_bounded(sites: Sites) -> None:
    def trained(more: str) -> update_format.Update:
        return update_format.read_update(
            sites.train("site-a", sites.base, "b.update", **sites.open(1, sites.base, more))
        )

    free = trained("")
    bound = learned_norm(free.deltas) / 3
    tight, wide = trained(f"update_norm = {bound}\n"), trained("update_norm = 1e9\n")
    assert learned_norm(tight.deltas) == pytest.approx(bound, rel=1e-6)
    for name, delta in free.deltas.items():
        np.testing.assert_array_equal(wide.deltas[name], delta)
        np.testing.assert_allclose(tight.deltas[name], delta if "running" in name else delta / 3, rtol=1e-5)
