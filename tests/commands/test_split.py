"""Files of splits and merged datasets: every case in one place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import ucadi
from datasets import REJECTIONS, SIZE, noise_case

from ucadi.commands.merge import merge
from ucadi.commands.split import split
from ucadi.commands.train import train
from ucadi.errors import FormatError, MismatchError, OutputError, UsageError
from ucadi.formats import dataset
from ucadi.formats import split as split_format
from ucadi.labels import Diagnosis
from ucadi.splitting import Split


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a dataset of 24 cases of 12 patients."""
    cases = [noise_case(n, [Diagnosis.HEALTHY, Diagnosis.COVID][n // 2 % 2], slices=16) for n in range(24)]
    cases = [replace(each, series_digest=f"{n:064x}") for n, each in enumerate(cases)]
    dataset.write(tmp_path / "site.h5", cases, REJECTIONS, size=SIZE, attributes={"revision": 1})
    return tmp_path


def test_a_dataset_is_read_by_parts(site: Path) -> None:
    result = split(site / "site.h5", output=site / "site.split", folds=3)
    assert result.parts["test"] == {"patients": 2, "cases": 4, "healthy": 2, "covid": 2}
    assert sum(result.parts[f"val-{k}"]["cases"] for k in (1, 2, 3)) == result.parts["trainval"]["cases"] == 20
    assert str(result).splitlines()[2].split() == ["test", "2", "4", "2", "2"]
    made = split_format.read(site / "site.split")
    with dataset.open(site / "site.h5") as data:
        for part in made.parts:
            some = split_format.select(data, site / "site.split", part)
            assert set(some.patients) == made.patients(part)
            assert (some.size, some.digest) == (data.size, data.digest)
            for index, identifier in enumerate(some.ids):
                whole = data.case(data.ids.index(identifier))
                assert (some.case(index).volume.hu == whole.volume.hu).all()
                assert (some.labels[index], some.patients[index]) == (whole.label, whole.patient)
        assert len(data) == 24
        assert split_format.select(data, None, None) is data


def test_equal_datasets_give_equal_splits(site: Path) -> None:
    for name in ("a", "b"):
        split(site / "site.h5", output=site / name, seed=3, folds=2)
    assert (site / "a").read_bytes() == (site / "b").read_bytes()
    with pytest.raises(OutputError):
        split(site / "site.h5", output=site / "a", folds=2)


def test_what_does_not_fit_is_refused(site: Path) -> None:
    split(site / "site.h5", output=site / "site.split", folds=3)
    dataset.write(site / "later.h5", [noise_case(n) for n in range(24, 28)], [], size=SIZE)
    with dataset.open(site / "later.h5") as data, pytest.raises(MismatchError, match="2 of the 2 patients"):
        split_format.select(data, site / "site.split", "test")
    with dataset.open(site / "site.h5") as data:
        for part in ("val-4", "val-0", "fold-1", "train-", "", "all"):
            with pytest.raises(UsageError, match="no part"):
                split_format.select(data, site / "site.split", part)
        for arguments in ((site / "site.split", None), (None, "test")):
            with pytest.raises(UsageError, match="go together"):
                split_format.select(data, *arguments)
    with pytest.raises(UsageError, match="not for training"):
        train(site / "site.h5", base=site / "none", site="a", output=site / "o", split=site / "site.split", part="test")


@pytest.mark.parametrize(
    "change",
    [
        {"folds": [["a"], ["a"]]},
        {"test": ["b"], "folds": [["b"], ["c"]]},
        {"folds": [["a"]]},
        {"folds": ["a", "b"]},
        {"folds": [["a"], [1]]},
        {"folds": None},
        {"version": 2},
    ],
)
def test_a_forged_split_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    split_format.write(tmp_path / "a", Split(frozenset("x"), (frozenset("a"), frozenset("b"))))
    document = json.loads((tmp_path / "a").read_text()) | change
    (tmp_path / "a").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(FormatError):
        split_format.read(tmp_path / "a")


def test_train_and_predict_take_a_part(site: Path) -> None:
    def run(*arguments: str | Path) -> dict:  # type: ignore[type-arg]
        done = ucadi(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    data, parts = site / "site.h5", site / "site.split"
    run("split", data, "--folds", "3", "-o", parts)
    assert run("inspect", parts)["facts"] == {"test": 2, "folds": [4, 3, 3]}
    run("init", "--width", "2", "--size", SIZE, "-o", site / "base")
    options = ["--base", site / "base", "--site", "a", "--set", "batch_size=8"]
    trained = run("train", data, *options, "--split", parts, "--part", "train-3", "-o", site / "update")
    assert trained["examples"] == 14
    predicted = run("predict", data, "--model", site / "base", "--split", parts, "--part", "val-3", "-o", site / "p")
    assert predicted["cases"] == 6


# Merging


def test_merged_datasets_are_one(site: Path) -> None:
    with dataset.open(site / "site.h5") as data:
        cases, attributes = [data.case(index) for index in range(len(data))], data.attributes
    dataset.write(site / "a.h5", cases[::3], REJECTIONS[:1], size=SIZE, attributes=attributes)
    others = [*cases[1::3], *cases[2::3]]
    dataset.write(site / "b.h5", others, REJECTIONS[1:], size=SIZE, attributes=attributes)
    result = merge([site / "b.h5", site / "a.h5"], output=site / "all.h5")
    assert (result.cases, result.patients, result.merged) == (24, 12, 2)
    assert (site / "all.h5").read_bytes() == (site / "site.h5").read_bytes()
    merge([site / "a.h5", site / "b.h5"], output=site / "again.h5")
    assert (site / "again.h5").read_bytes() == (site / "site.h5").read_bytes()


def test_what_does_not_belong_together_is_not_merged(site: Path) -> None:
    first = replace(noise_case(50), series_digest="cd" * 32)
    dataset.write(site / "new.h5", [first], [], size=SIZE, attributes={"revision": 1})
    dataset.write(site / "revised.h5", [first], [], size=SIZE, attributes={"revision": 2})
    dataset.write(
        site / "same-case.h5",
        [replace(noise_case(3), series_digest="ef" * 32)],
        [],
        size=SIZE,
        attributes={"revision": 1},
    )
    same_scan = replace(noise_case(60), series_digest=f"{5:064x}")
    dataset.write(site / "same-scan.h5", [same_scan], [], size=SIZE, attributes={"revision": 1})
    merge([site / "site.h5", site / "new.h5"], output=site / "all.h5")
    for name, words in (
        ("revised", "made with"),
        ("same-case", r"is in site\.h5 too"),
        ("same-scan", r"is in site\.h5"),
    ):
        with pytest.raises(MismatchError, match=words):
            merge([site / "site.h5", site / f"{name}.h5"], output=site / "none.h5")
    assert not (site / "none.h5").exists()
