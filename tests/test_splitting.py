"""Patients divided: nobody on two sides, and every diagnosis everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hints import raises_with_hint
from hypothesis import given
from hypothesis import strategies as st

from ucadi.errors import CapacityError, UsageError
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
