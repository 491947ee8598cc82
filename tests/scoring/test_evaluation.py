"""`evaluate` with all its options and `histogram`, on predictions as files."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import run
from datasets import make_case
from predictions import predicted

from ucadi.commands.evaluate import evaluate
from ucadi.commands.histogram import histogram
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.formats import dataset as dataset_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats.predictions import Predictions
from ucadi.scoring import metrics

MODELS = {"local": 0.7, "federated": 1.6}
"""How well each tells the diagnoses apart."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Test predictions of two models on two sites, and one validation file of each."""
    test, validation = [], []
    for number, (model, strength) in enumerate(MODELS.items()):
        for seed, site in enumerate(("north", "south"), 1):
            test.append(predicted(tmp_path / model / f"{site}.predictions", strength, seed, model=f"{number:064x}"))
        validation.append(predicted(tmp_path / f"val-{model}", strength, 9, model=f"{number:064x}"))
    return test, validation


def test_everything_at_once(files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    test, validation = files
    held = predictions_format.read(test[0])
    readers, groups = tmp_path / "readers.csv", tmp_path / "groups.csv"
    truth = held.labels == 1
    decisions = {"ann": truth, "bob": ~truth, "eve": np.where(np.arange(60) < 30, truth, True)}
    lines = [f"{c},{who},{int(d[i])}" for who, d in decisions.items() for i, c in enumerate(held.cases)]
    readers.write_text("case,reader,decision\n" + "\n".join(lines) + "\n")
    groups.write_text("case,group\n" + "\n".join(f"{c},vendor <A>" for c in held.cases[:40]) + "\n")
    options = [
        "--validation",
        validation[0],
        "--validation",
        validation[1],
        "--operating-point",
        "sensitivity=0.9",
        "--compare",
    ]
    options += ["--readers", readers, "--subgroups", groups]
    # readers and subgroups are of cases of the northern site alone
    north = [path for path in test if path.stem == "north"]
    result = run("evaluate", *north, *options, "--report", tmp_path / "report")
    again = run("evaluate", *north, *options, "--report", tmp_path / "again")
    assert [one.pop("report") for one in (result, again)] == [str(tmp_path / "report"), str(tmp_path / "again")]
    assert result == again

    for index, model in enumerate(MODELS):
        tuned = predictions_format.read(validation[index])
        positive = tuned.mean[tuned.labels == 1, 1]
        at = result["reports"][model]["north"]["threshold"]
        assert (positive >= at).mean() >= 0.9 > (positive > at).mean()
    details = result["details"]["local"]["north"]
    assert set(details["readers"]) == {"ann", "bob", "eve", "majority"}
    assert details["readers"]["ann"]["sensitivity"]["value"] == 1
    assert details["readers"]["bob"]["specificity"]["value"] == 0
    # ann and bob cancel out, so the majority is eve
    assert details["readers"]["majority"] == details["readers"]["eve"]
    assert details["subgroups"]["vendor <A>"]["cases"] == 40
    (pair,) = result["comparisons"]["north"]
    other = predictions_format.read(test[2])
    expected = metrics.delong_test(truth, held.mean[:, 1], other.mean[:, 1])
    assert pair["auc"]["p"] == pair["auc_p_holm"] == pytest.approx(expected.p)

    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3 + 4
    assert "vendor &lt;A&gt;" in page
    assert not re.search("https?:", page)
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["reports"] == result["reports"]
    with (tmp_path / "report" / "report.csv").open() as file:
        assert [row["model"] for row in csv.DictReader(file)] == list(MODELS)
    for name in ("report.html", "report.csv", "report.json"):
        assert (tmp_path / "report" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_by_patient_takes_the_mean(files: tuple[list[Path], list[Path]]) -> None:
    path = files[0][0]
    held = predictions_format.read(path)
    report = evaluate([path], unit="patient").reports["local"]["north"]
    mean = held.mean.reshape(30, 2, 4).mean(axis=1)
    assert report == metrics.evaluate(held.labels[::2], mean)


def test_readers_and_subgroups_of_patients(files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    path = files[0][0]
    held = predictions_format.read(path)
    patients, truth = held.patients[::2], held.labels[::2] == 1
    readers, groups = tmp_path / "readers.csv", tmp_path / "groups.csv"
    lines = [f"{p},ann,{int(d)}" for p, d in zip(patients, truth, strict=True)]
    readers.write_text("patient,reader,decision\n" + "\n".join(lines) + "\n")
    groups.write_text("patient,group\n" + "\n".join(f"{p},over 65" for p in patients[:12]) + "\n")
    details = evaluate([path], unit="patient", readers=readers, subgroups=groups).details["local"]["north"]
    assert (details.readers["ann"].cases, details.readers["ann"].sensitivity.value) == (30, 1)
    assert details.subgroups["over 65"].cases == 12
    with pytest.raises(FormatError, match="lacks columns") as error:
        evaluate([path], readers=readers)
    assert error.value.hint == "the first line is: case,reader,decision"


def test_readers_of_one_site_among_several(files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    north, south = files[0][:2]
    case = predictions_format.read(north).cases[0]
    (tmp_path / "readers.csv").write_text(f"case,reader,decision\n{case},ann,1\n")
    details = evaluate([north, south], readers=tmp_path / "readers.csv").details["local"]
    assert {name: len(held.readers) for name, held in details.items()} == {"north": 1, "south": 0, "pooled": 1}


def test_subgroups_from_the_datasets_tags(tmp_path: Path) -> None:
    """Three cases of two scanners: the groups are what the dataset says, and of the predicted cases only."""
    kinds = [("ge", "named", 1.25), ("ge", "none", 5.0), ("siemens", "none", 5.0)]
    cases = [
        replace(make_case(number), tags={"Manufacturer": vendor, "ContrastBolusAgent": agent, "SliceThickness": thick})
        for number, (vendor, agent, thick) in enumerate(kinds)
    ]
    dataset_format.write(tmp_path / "north.h5", cases, [], size=16)
    held = Predictions(
        *("0" * 64, "1" * 64, tuple(c.id for c in cases), tuple(c.patient for c in cases)),
        *(np.array([1, 0, 0], np.int32), np.full((3, 1, 4), 0.25, np.float32)),
    )
    predictions_format.write(tmp_path / "north.predictions", held)
    result = evaluate([tmp_path / "north.predictions"], dataset=[tmp_path / "north.h5"])
    (details,) = next(iter(result.details.values())).values()
    assert {name: group.cases for name, group in details.subgroups.items()} == {
        "contrast agent: named": 1,
        "contrast agent: none": 2,
        "contrast by its HU: not given": 3,
        "slices: over 2 mm": 2,
        "slices: up to 2 mm": 1,
        "vendor: ge": 2,
        "vendor: siemens": 1,
    }


def test_what_does_not_fit_is_refused(files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    test, validation = files
    with pytest.raises(UsageError, match="validation"):
        evaluate(test, operating_point="youden")
    with pytest.raises(MismatchError, match="no validation predictions"):
        evaluate(test, validation=validation[:1])
    with pytest.raises(MismatchError, match="validation and test"):
        evaluate(test[:1], validation=test[:1], operating_point="youden")
    with pytest.raises(MismatchError, match="other cases"):
        evaluate([test[0], predicted(tmp_path / "less" / "north.predictions", 1, 5, model="a" * 64)], compare=True)
    case = ("0" * 16,)
    twice = predicted(tmp_path / "twice" / "x.predictions", 1, 5, model="a" * 64, cases=case * 60)
    with pytest.raises(MismatchError, match="twice"):
        evaluate([twice])
    one = predicted(tmp_path / "one" / "x.predictions", 1, 5, model="a" * 64, labels=np.ones(60, dtype=np.int32))
    assert evaluate([one], report=tmp_path / "of-one").details["one"]["x"].bootstrap is None
    with pytest.raises(MismatchError, match="positive"):
        evaluate(
            [test[0]],
            validation=[predicted(tmp_path / "v", 1, 8, model="0" * 64, labels=one_kind())],
            operating_point="youden",
        )
    patient = predicted(tmp_path / "mixed" / "x.predictions", 1, 5, model="a" * 64, patients=case * 60)
    with pytest.raises(MismatchError, match="different diagnoses"):
        evaluate([patient], unit="patient")


def one_kind() -> Any:
    return np.ones(60, dtype=np.int32)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("case,reader\na,b\n", "lacks columns"),
        ("case,reader,decision\na,b,2\n", "decision"),
        ("case,reader,decision\na,b,1\na,b,0\n", "twice"),
        ("case,reader,decision\na,,1\n", "empty"),
        ("case,reader,decision\n", "no lines"),
        ("case,reader,decision\na,b,1\n", "none of the cases"),
    ],
)
def test_readers_that_cannot_be_used(
    files: tuple[list[Path], list[Path]], tmp_path: Path, table: str, what: str
) -> None:
    path = tmp_path / "readers.csv"
    path.write_text(table)
    with pytest.raises((FormatError, MismatchError), match=what):
        evaluate(files[0][:1], readers=path)


def test_histograms_of_sites_give_the_pooled_auc(files: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    north, south = files[0][2:]
    for site, path in (("n", north), ("s", south)):
        run("histogram", path, "-o", tmp_path / site)
    found = run("histogram", tmp_path / "s", tmp_path / "n", "-o", tmp_path / "sum")
    facts = run("inspect", tmp_path / "sum")["facts"]
    assert facts["covid"] + facts["others"] == 120
    histogram([north, south], output=tmp_path / "direct")
    assert (tmp_path / "sum").read_bytes() == (tmp_path / "direct").read_bytes()
    pooled = evaluate([north, south]).reports["federated"]["pooled"].covid.auc
    assert pooled is not None
    assert found["auc"]["least"] <= pooled.value <= found["auc"]["most"]
    assert found["auc"]["area"]["low"] == pytest.approx(pooled.low, abs=0.003)
    with pytest.raises(MismatchError, match="counted twice"):
        histogram([tmp_path / "sum", south], output=tmp_path / "again")
    with pytest.raises(MismatchError, match="several models"):
        histogram([north, files[0][1]], output=tmp_path / "again")
