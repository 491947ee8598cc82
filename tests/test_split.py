"""Splits by patient and merged datasets: nobody on two sides, and every case in one place."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hints import raises_with_hint
from hypothesis import given
from hypothesis import strategies as st
from test_cli import ucadi
from test_dataset import REJECTIONS, SIZE, case

from ucadi.commands.merge import merge
from ucadi.commands.split import split
from ucadi.commands.train import train
from ucadi.errors import CapacityError, FormatError, MismatchError, OutputError, UsageError
from ucadi.formats import dataset
from ucadi.formats import split as split_format
from ucadi.labels import Diagnosis
from ucadi.splitting import Split, divide


def cohort(counts: dict[Diagnosis | None, int], scans: int = 1) -> tuple[list[str], list[Diagnosis | None]]:
    """Patients with so many of each diagnosis, scanned `scans` times each."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [f"{n:016x}" for n in range(len(labels)) for _ in range(scans)], [x for x in labels for _ in range(scans)]


@given(
    scans=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([None, *Diagnosis])), min_size=70, max_size=200),
    folds=st.integers(2, 6),
    test=st.floats(0, 0.5),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_every_patient_is_in_exactly_one_place(scans, folds, test, seed, order) -> None:  # type: ignore[no-untyped-def]
    patients, labels = [str(patient) for patient, _ in scans], [label for _, label in scans]
    try:
        made = divide(patients, labels, test=test, folds=folds, seed=seed)
    except CapacityError:
        return
    places = Counter(patient for part in (made.test, *made.folds) for patient in part)
    assert places == Counter(set(patients))
    for k in range(1, folds + 1):
        assert made.patients(f"val-{k}") == made.folds[k - 1]
        training, validation = made.patients(f"train-{k}"), made.patients(f"val-{k}")
        assert not training & validation
        assert training | validation == made.patients("trainval") == set(patients) - made.test
    order.shuffle(scans)
    assert divide([str(p) for p, _ in scans], [x for _, x in scans], test=test, folds=folds, seed=seed) == made


def test_what_is_not_said_is_the_papers_way() -> None:
    patients, labels = cohort({Diagnosis.HEALTHY: 50, Diagnosis.COVID: 50})
    assert divide(patients, labels) == divide(patients, labels, test=0.2, folds=5, seed=0)


def test_every_case_has_a_label_or_none() -> None:
    with pytest.raises(ValueError, match="shorter"):
        divide(["a", "b"], [Diagnosis.COVID])


def test_parts_that_train_are_all_but_those_that_judge() -> None:
    made = divide(*cohort({Diagnosis.COVID: 20}), folds=2)
    assert [part for part in made.parts if Split.trains(part)] == ["trainval", "train-1", "train-2"]
    for part in ("train-3", "val-0", "test-1", "train-1-2"):
        with raises_with_hint(UsageError, f"no part '{part}'", "train-1, val-1, ... val-2$"):
            made.patients(part)


def test_cases_without_a_diagnosis_are_a_stratum_of_their_own() -> None:
    """Of three alike one is for testing, and of six alike one too."""
    for label in Diagnosis:
        assert len(divide(*cohort({None: 3, label: 3}), folds=2).test) == 2


def test_the_shares_are_those_asked_for_in_each_diagnosis() -> None:
    counts = {Diagnosis.HEALTHY: 100, Diagnosis.COVID: 52, Diagnosis.OTHER_VIRAL: 11, Diagnosis.BACTERIAL: 29}
    patients, labels = cohort(counts)
    label_of = dict(zip(patients, labels, strict=True))
    made = divide(patients, labels)
    tested = Counter(label_of[patient] for patient in made.test)
    assert tested == {
        Diagnosis.HEALTHY: 20,
        Diagnosis.COVID: 10,
        Diagnosis.OTHER_VIRAL: 2,
        Diagnosis.BACTERIAL: 6,
    }
    for label, count in counts.items():
        in_folds = [sum(label_of[patient] is label for patient in fold) for fold in made.folds]
        assert sum(in_folds) == count - tested[label]
        assert max(in_folds) - min(in_folds) <= 1
    sizes = [len(fold) for fold in made.folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_have_as_many_scans_though_patients_have_few_or_many() -> None:
    patients = [f"{n}" for n in range(40) for _ in range(1 + n % 7)]
    made = divide(patients, [Diagnosis.COVID] * len(patients), test=0)
    scans = Counter(patients)
    in_folds = [sum(scans[patient] for patient in fold) for fold in made.folds]
    assert made.test == frozenset()
    assert max(in_folds) - min(in_folds) <= 1


def test_a_rare_diagnosis_stays_in_training() -> None:
    patients, labels = cohort({Diagnosis.HEALTHY: 20, Diagnosis.OTHER_VIRAL: 2})
    made = divide(patients, labels)
    assert set(patients[20:]) <= made.patients("trainval")


def test_another_seed_gives_another_split() -> None:
    patients, labels = cohort({Diagnosis.HEALTHY: 50, Diagnosis.COVID: 50})
    drawn = {divide(patients, labels, seed=seed).test for seed in range(20)}
    assert len(drawn) == 20
    assert len(frozenset().union(*drawn)) > 90  # nobody is left out of all draws


def test_a_patient_whose_diagnosis_changed_is_on_one_side() -> None:
    patients = [*(f"{n}" for n in range(30)), "7", "7"]
    labels = [*[Diagnosis.COVID] * 30, Diagnosis.HEALTHY, None]
    made = divide(patients, labels)
    assert sum("7" in part for part in (made.test, *made.folds)) == 1


@pytest.mark.parametrize(("count", "folds", "test"), [(4, 5, 0.0), (2, 2, 0.2), (0, 5, 0.2)])
def test_too_few_patients(count: int, folds: int, test: float) -> None:
    with raises_with_hint(CapacityError, f"{count} patients are too few for {folds} folds", "--folds.*--test"):
        divide(*cohort({Diagnosis.COVID: count}), test=test, folds=folds)


# The file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a dataset of 24 cases of 12 patients."""
    cases = [case(n, [Diagnosis.HEALTHY, Diagnosis.COVID][n // 2 % 2], slices=16) for n in range(24)]
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
    dataset.write(site / "later.h5", [case(n) for n in range(24, 28)], [], size=SIZE)
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
    options = ["--base", site / "base", "--site", "a", "--batch-size", "8"]
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
    first = replace(case(50), series_digest="cd" * 32)
    dataset.write(site / "new.h5", [first], [], size=SIZE, attributes={"revision": 1})
    dataset.write(site / "revised.h5", [first], [], size=SIZE, attributes={"revision": 2})
    dataset.write(
        site / "same-case.h5", [replace(case(3), series_digest="ef" * 32)], [], size=SIZE, attributes={"revision": 1}
    )
    same_scan = replace(case(60), series_digest=f"{5:064x}")
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
