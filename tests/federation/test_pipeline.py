"""The whole pipeline through the command line: phantoms to heatmap, and a federated round in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commandline import run, ucadi
from federation import Federation, accept_all

from ucadi.formats import predictions as predictions_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format

SITES = ("site-a", "site-b", "site-c")
SIZE, WIDTH = 16, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three sites with datasets of four phantoms each, a roster, initial weights and the plan of round 1."""
    folder = tmp_path_factory.mktemp("pipeline")
    for site in SITES:
        phantoms = folder / f"{site}-dicom"
        run("phantom", phantoms, "--site", site, "--patients", 4, "--matrix", 64, "--slices", 40, "--workers", 1)
        labels = phantoms / "labels.csv"
        run("preprocess", phantoms, "--labels", labels, "--size", SIZE, "--workers", 1, "-o", folder / f"{site}.h5")
        run("keygen", site, "-o", folder)
    run("keygen", "coordinator", "-o", folder)
    federation = Federation(folder, SITES)
    cards = [folder / f"{site}.card" for site in SITES]
    key = federation.key("coordinator")
    run("roster", "create", *cards, "--federation", "test", "--key", key, "-o", federation.roster)
    accept_all(federation.roster, [federation.key(site) for site in SITES])
    run("init", "--width", WIDTH, "--size", SIZE, "-o", federation.base)
    run(
        "round", "open", "--number", 1, "--base", federation.base, "--roster", federation.roster, "--key", key,
        "--set", "local_epochs=2", "--set", "total_epochs=4", "--set", "batch_size=2", "-o", federation.plan,
    )  # fmt: skip
    return federation


def in_round(federation: Federation) -> tuple[str | Path, ...]:
    return "--plan", federation.plan, "--roster", federation.roster


def test_a_round_from_training_to_heatmap(made: Federation, tmp_path: Path) -> None:
    for site in SITES:
        trained = run(
            "train",
            made.folder / f"{site}.h5",
            "--base",
            made.base,
            *in_round(made),
            "--site",
            site,
            "-o",
            made.update(site),
        )
        assert (trained["examples"], trained["epochs"]) == (4, 2)
        run("encrypt", made.update(site), *in_round(made), "--key", made.key(site), "-o", made.ciphertext(site))
    total, opened, plain = tmp_path / "sum.enc", tmp_path / "opened.aggregate", tmp_path / "plain.aggregate"
    key = made.key("coordinator")
    run("aggregate", *reversed(made.ciphertexts), *in_round(made), "--key", key, "-o", total)
    run("verify", total, *made.ciphertexts, *in_round(made))
    partials = [tmp_path / f"{site}.partial" for site in SITES]
    for site, partial in zip(SITES, partials, strict=True):
        run("partial-decrypt", total, *in_round(made), "--key", made.key(site), "-o", partial)
    run("decrypt", total, *partials, *in_round(made), "--key", made.key("site-b"), "-o", opened)
    run("aggregate", *made.updates, *in_round(made), "-o", plain)
    assert opened.read_bytes() == plain.read_bytes()

    model = tmp_path / "federated.weights"
    run("apply", made.base, opened, *in_round(made), "-o", model)
    own = tmp_path / "own.weights"
    run("apply", made.base, made.update("site-a"), "-o", own)
    assert model.read_bytes() != own.read_bytes()
    before, after = weights_format.read(made.base), weights_format.read(model)
    assert any((before.arrays[name] != after.arrays[name]).any() for name in before.arrays)

    dataset = made.folder / "site-a.h5"
    run("predict", dataset, "--model", model, "--model", own, "-o", tmp_path / "predictions")
    files = sorted((tmp_path / "predictions").rglob("*.predictions"))
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "predictions/federated/site-a.predictions",
        "predictions/own/site-a.predictions",
    ]
    held = predictions_format.read(files[0])
    assert held.probabilities.shape == (4, 5, 4)
    np.testing.assert_allclose(held.mean.sum(axis=1), 1, atol=1e-6)
    assert held.model == after.digest
    reports = run("evaluate", *files)["reports"]
    assert reports["federated"]["site-a"]["cases"] == 4

    case = run("inspect", dataset)["facts"]["for_example"]["covid"]
    shown = run("gradcam", dataset, "--model", model, "--case", case, "-o", tmp_path / "heatmap")
    assert set(shown["probabilities"]) == {"healthy", "covid", "other_viral", "bacterial"}
    assert sorted(path.name for path in (tmp_path / "heatmap").iterdir()) == [
        "ct.nii.gz",
        "heatmap.nii.gz",
        "montage.png",
        "regions.json",
    ]


def test_training_twice_gives_the_same_bytes(made: Federation, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(
            "train",
            made.folder / "site-a.h5",
            "--base",
            made.base,
            "--site",
            "site-a",
            "--set",
            "batch_size=2",
            "-o",
            tmp_path / name,
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_site_alone_trains_a_model_in_one_step(made: Federation, tmp_path: Path) -> None:
    """Without --site: the very tensors that an update and apply would give."""
    options = (made.folder / "site-a.h5", "--base", made.base, "--set", "batch_size=2", "--set", "total_epochs=2")
    own, update, applied = (tmp_path / name for name in ("own.weights", "a.update", "applied.weights"))
    alone = run("train", *options, "-o", own)
    assert (alone["weights"], alone["update"], alone["site"]) == (str(own), None, None)
    shared = run("train", *options, "--site", "site-a", "-o", update)
    assert (shared["weights"], shared["update"], shared["site"]) == (None, str(update), "site-a")
    run("apply", made.base, update, "-o", applied)
    one, two = weights_format.read(own), weights_format.read(applied)
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in two.arrays)
    assert one.origin == {"base": weights_format.read(made.base).digest, "examples": 4, "epochs": 1}
    run("predict", made.folder / "site-a.h5", "--model", own, "-o", tmp_path / "own.predictions")
    again = run("train", *options, "--base", own, "-o", tmp_path / "again.weights")
    assert again["examples"] == 4


def test_a_learning_rate_of_zero_changes_only_the_norms_statistics(made: Federation, tmp_path: Path) -> None:
    run(
        "train", made.folder / "site-a.h5", "--base", made.base, "--site", "site-a", "--set", "learning_rate=0",
        "--set", "batch_size=2", "-o", tmp_path / "still.update",
    )  # fmt: skip
    deltas = update_format.read_update(tmp_path / "still.update").deltas
    changed = {name for name, delta in deltas.items() if delta.any()}
    assert changed
    assert all("running" in name for name in changed)


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (4, "the network takes 16 x 16", ["other-size.h5", "--site", "site-a"]),
        (4, "the plan begins from", ["site-a.h5", "--site", "site-a", "--base", "other.weights", "PLAN"]),
        (2, "a round takes a site's update", ["site-a.h5", "PLAN"]),
        (4, "site-x is no site of this round", ["site-a.h5", "--site", "site-x", "PLAN"]),
        (2, "the plan sets the schedule", ["site-a.h5", "--site", "site-a", "--set", "seed=3", "PLAN"]),
        (2, "not all in the schedule", ["site-a.h5", "--site", "site-a", "--first-epoch", "100"]),
        (3, "No such file", ["absent.h5", "--site", "site-a"]),
        (3, "is a secret key, not a dataset", ["site-a.key", "--site", "site-a"]),
        (3, "is an update, not weights", ["site-a.h5", "--site", "site-a", "--base", "some.update"]),
    ],
)
def test_bad_input_to_training(made: Federation, tmp_path: Path, code: int, message: str, arguments: list[str]) -> None:
    folder = made.folder
    if not (folder / "other.weights").exists():
        run("init", "--seed", 9, "--width", WIDTH, "--size", SIZE, "-o", folder / "other.weights")
        phantoms = folder / "site-a-dicom"
        run("preprocess", phantoms, "--labels", phantoms / "labels.csv", "--size", 24, "-o", folder / "other-size.h5")
        run(
            "train",
            folder / "site-a.h5",
            "--base",
            made.base,
            "--site",
            "a",
            "--set",
            "batch_size=2",
            "-o",
            folder / "some.update",
        )
    given: list[str | Path] = ["train"]
    for argument in arguments:
        given += in_round(made) if argument == "PLAN" else [folder / argument if "." in argument else argument]
    if "--base" not in arguments:
        given += ["--base", made.base]
    result = ucadi(*given, "-o", tmp_path / "out.update")
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
