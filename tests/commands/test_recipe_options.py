"""What a recipe may ask for beside the paper's: balanced draws, augmentation, a validation set that decides."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ucadi.commands.apply import apply
from ucadi.commands.evaluate import evaluate
from ucadi.commands.init import init
from ucadi.commands.predict import predict
from ucadi.commands.split import split
from ucadi.commands.train import train
from ucadi.ct.augmentation import augment
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.formats import dataset
from ucadi.formats import update as update_format
from ucadi.hyperparameters import Recipe
from ucadi.labels import Diagnosis
from ucadi.learn.recipe import steps
from ucadi.scoring.metrics import macro_auc
from ucadi.settings import settings_of
from ucadi.workflows.training import TrainingCases

# Balanced draws


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    seed=st.integers(0, 5),
    batch=st.integers(2, 16),
)
@settings(max_examples=60, deadline=None)
def test_a_balanced_epoch_has_every_diagnosis_equally_often(labels: list[int], seed: int, batch: int) -> None:
    recipe = Recipe(balanced=True, seed=seed, batch_size=batch)
    drawn = [int(case) for step in steps(recipe, 1, labels) for case in step.cases]
    assert len(drawn) == len(labels)
    counts = Counter(labels[case] for case in drawn)
    assert set(counts) == set(labels)
    assert max(counts.values()) - min(counts.values()) <= 1
    for label in set(labels):
        often = Counter(case for case in drawn if labels[case] == label)
        times = [often[case] for case, own in enumerate(labels) if own == label]
        assert max(times) - min(times) <= 1, "none is taken again before all have been"


def test_a_balanced_order_is_a_random_one() -> None:
    labels = [0] * 30 + [1] * 10
    orders = [[int(c) for s in steps(Recipe(balanced=True), epoch, labels) for c in s.cases] for epoch in range(2)]
    assert orders[0] != orders[1]
    first_half = [labels[case] for case in orders[0][:20]]
    assert 4 < sum(first_half) < 16


# Augmentation


def test_augmentation_moves_a_chest_a_little() -> None:
    hu = np.full((16, 64, 64), -900, np.int16)
    hu[:, 20:44, 10:34] = 40  # a heart on one side
    heart = np.argwhere(hu > -400).mean(axis=0)[1:]
    columns, sizes = [], []
    for number in range(40):
        changed = augment(hu, np.random.default_rng(number))
        assert changed.dtype == np.int16
        assert changed.shape == hu.shape
        found = np.argwhere(changed > -400)
        row, column = found.mean(axis=0)[1:]
        assert abs(row - heart[0]) < 12
        columns.append(column)
        sizes.append(len(found) / (hu > -400).sum())
        assert np.ptp([np.argwhere(one > -400).mean(axis=0) for one in changed], axis=0).max() < 1, "all slices alike"
    assert min(columns) < 26 < 38 < max(columns), "on either side"
    assert 0.7 < min(sizes) < 0.95
    assert 1.05 < max(sizes) < 1.4
    assert np.array_equal(augment(hu, np.random.default_rng(1)), augment(hu, np.random.default_rng(1)))


def test_slabs_change_with_the_epoch_and_only_with_it(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.h5", LABELS)
    with dataset.open(path) as data:
        plain, moved = TrainingCases(data, Recipe()), TrainingCases(data, Recipe(augment=True))
        assert np.array_equal(moved.slab(3, 1), moved.slab(3, 1))
        assert not np.array_equal(moved.slab(3, 1), moved.slab(4, 1))
        assert not np.array_equal(moved.slab(3, 1), plain.slab(3, 1))
        assert np.array_equal(plain.fixed_slab(3, 1), moved.fixed_slab(4, 1)), "what is measured on stays"
        for cases in (plain, moved):
            assert cases.slab(0, 2).mean() == pytest.approx(0, abs=1e-5)
            assert cases.slab(0, 2).std() == pytest.approx(1, abs=1e-4)
        volume = data.volume(2).hu
        assert data.length(2) == len(volume)
        for indices in ([3, 5, 19], [0, 0, 1, 1], [7, 2]):
            assert np.array_equal(data.slices(2, np.array(indices)), volume[indices])


# AUC


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_macro_auc_is_scikit_learn_s(labels: list[int], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (len(labels), 4)) / 5  # with ties
    areas = [
        roc_auc_score(np.array(labels) == kind, scores[:, kind])
        for kind in range(4)
        if kind in labels and len(set(labels)) > 1
    ]
    assert macro_auc(labels, scores) == (pytest.approx(np.mean(areas)) if areas else None)


# Validation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("recipe")
    write_dataset(folder / "a.h5", LABELS * 6)
    write_dataset(folder / "v.h5", LABELS * 2, first=500)
    write_dataset(folder / "covid.h5", [Diagnosis.COVID] * 6, first=900)
    init(output=folder / "base.weights", width=2, size=16)
    return folder


def options(folder: Path, **changed: object) -> dict[str, object]:
    chosen: dict[str, object] = {
        "dataset": folder / "a.h5", "base": folder / "base.weights", "site": "a", "force": True,
        "total_epochs": 20, "local_epochs": 8, "batch_size": 8, "warmup_epochs": 1, "learning_rate": 0.05,
    }  # fmt: skip
    chosen |= changed
    settings = to_set(**{name: chosen.pop(name) for name in list(chosen) if name in settings_of(Recipe)})
    return {**chosen, "settings": settings}


def test_the_best_epoch_is_kept(folder: Path, tmp_path: Path) -> None:
    """At a rate that is far too high, the last epoch is not the best one."""
    wild = partial(options, folder, validation=folder / "v.h5", learning_rate=0.8)
    seen = train(**wild(), output=tmp_path / "whole.update").validation_auc
    aucs = [auc or 0.0 for auc in seen]
    fallen = next(epoch for epoch in range(1, 8) if aucs[epoch] < max(aucs[:epoch]))
    kept = train(**wild(local_epochs=fallen + 1), output=tmp_path / "best.update", keep_best=True)
    assert kept.validation_auc == seen[: fallen + 1]
    until = train(**wild(local_epochs=aucs.index(max(aucs[:fallen])) + 1), output=tmp_path / "until.update")
    assert until.epochs < kept.epochs
    expected, found = (
        update_format.read_update(p).deltas for p in (tmp_path / "until.update", tmp_path / "best.update")
    )
    assert all(np.array_equal(expected[name], found[name]) for name in expected)

    patient = train(**wild(), output=tmp_path / "p.update", patience=1)
    assert patient.validation_auc == seen[: patient.epochs]
    assert 2 <= patient.epochs <= fallen + 1
    assert update_format.read_update(tmp_path / "p.update").epochs == patient.epochs


def test_a_small_real_training_learns(folder: Path, tmp_path: Path) -> None:
    """From files to an AUC: what `train` writes tells unseen chests apart."""
    result = train(**options(folder, total_epochs=12, local_epochs=12), output=tmp_path / "a.update")  # type: ignore[arg-type]
    assert result.loss[-1] < 0.7 * result.loss[0]
    apply(folder / "base.weights", tmp_path / "a.update", output=tmp_path / "a.weights")
    predict(folder / "v.h5", model=[tmp_path / "a.weights"], output=tmp_path / "v.predictions")
    report = evaluate([tmp_path / "v.predictions"]).reports
    ((held,),) = ((list(one.values())) for one in report.values())
    assert held.macro_auc is not None
    assert held.macro_auc > 0.9
    assert result.missing == ()
    assert result.auc[-1] is not None
    assert result.auc[-1] > 0.9


def test_five_folds(folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "a.split"
    split(folder / "a.h5", output=cut, test=0.2, folds=5)
    aucs = []
    for fold in range(1, 6):
        result = train(
            **options(folder, local_epochs=2, split=cut, part=f"train-{fold}", validation_part=f"val-{fold}"),
            output=tmp_path / f"{fold}.update",
        )  # type: ignore[arg-type]
        aucs.append(result.validation_auc[-1])
        assert 12 <= result.examples <= 19
    assert all(auc is not None for auc in aucs)
    with pytest.raises(MismatchError, match="patients are in training and validation"):
        train(**options(folder, split=cut, part="trainval", validation_part="val-1"), output=tmp_path / "x.update")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"keep_best": True}, UsageError, "seen on a validation set"),
        ({"patience": 2}, UsageError, "seen on a validation set"),
        ({"validation": "v.h5", "validation_part": "val-1"}, UsageError, "one validation set"),
        ({"validation": "a.h5"}, MismatchError, "patients are in training and validation"),
        ({"validation": "covid.h5", "keep_best": True, "local_epochs": 1}, FormatError, "no AUC to choose"),
        ({"dataset": "covid.h5"}, FormatError, "all cases are covid, there is nothing to tell apart"),
    ],
)
def test_refusals(
    folder: Path, tmp_path: Path, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    changed = {n: folder / v if isinstance(v, str) and v.endswith(".h5") else v for n, v in changed.items()}
    with pytest.raises(error, match=message) as caught:
        train(**options(folder, **changed), output=tmp_path / "x.update")  # type: ignore[arg-type]
    assert caught.value.hint  # type: ignore[attr-defined]
    assert not (tmp_path / "x.update").exists()


def test_a_missing_diagnosis_is_told(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "b.h5", [Diagnosis.HEALTHY, Diagnosis.COVID] * 3)
    result = train(**options(folder, dataset=tmp_path / "b.h5", local_epochs=1), output=tmp_path / "b.update")  # type: ignore[arg-type]
    assert result.missing == ("other_viral", "bacterial")
    assert "no case of other_viral, bacterial" in str(result)
