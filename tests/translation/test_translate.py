"""ucadi translate: killed and resumed, and synthetic cases that never pass for scans."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commandline import to_set, ucadi
from datasets import LABELS, SIZE, noise_case, write_dataset
from places import REAL, ROOT

from ucadi.commands.gradcam import gradcam
from ucadi.commands.init import init
from ucadi.commands.inspect import inspect_file
from ucadi.commands.merge import merge
from ucadi.commands.predict import predict
from ucadi.commands.split import split
from ucadi.commands.train import train
from ucadi.commands.translate_apply import translate_apply
from ucadi.commands.translate_divide import translate_divide
from ucadi.commands.translate_evaluate import translate_evaluate
from ucadi.commands.translate_train import translate_train
from ucadi.errors import FormatError, MismatchError, OutputError, UsageError
from ucadi.formats import dataset, translation_checkpoint
from ucadi.formats import split as split_format
from ucadi.formats import translator as translator_format
from ucadi.formats.container import file_digest

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no real CT data; UCADI_TEST_DATA names its folder")

OPTIONS: dict[str, Any] = {
    "size": 32,
    "width": 4,
    "blocks": 1,
    "window": (-1024, 600),
    "settings": to_set(total_epochs=2, batch_size=3, slices_per_case=2, seed=4, learning_rate=0.01),
}


def options(**changed: object) -> list[str]:
    """The same as words of a command line."""
    chosen = OPTIONS | changed
    words = [word for one in chosen.pop("settings") for word in ("--set", one)]
    for name, value in chosen.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of six patients with contrast medium, of six without, and what a translator makes of the former."""
    folder = tmp_path_factory.mktemp("translation")
    write_dataset(folder / "contrast.h5", (LABELS * 2)[:6], size=32)
    write_dataset(folder / "plain.h5", (LABELS * 2)[:6], size=32, first=50)
    translate_train(
        folder / "contrast.h5",
        folder / "plain.h5",
        output=folder / "a.translator",
        samples=folder / "samples",
        **OPTIONS,
    )
    translate_apply(folder / "contrast.h5", model=folder / "a.translator", output=folder / "made.h5")
    return folder


# Dividing


@pytest.mark.parametrize(
    ("agent", "estimate", "expected"),
    [
        ("named", "likely", "contrast"), ("named", "unclear", "contrast"), ("named", "unlikely", None),
        (None, "likely", "contrast"), (None, "unlikely", "non-contrast"), (None, "unclear", None), (None, None, None),
        ("none", "unlikely", "non-contrast"), ("none", "likely", None), ("empty", "likely", "contrast"),
    ],
)  # fmt: skip
def test_a_dataset_is_divided(agent: str | None, estimate: str | None, expected: str | None, tmp_path: Path) -> None:
    tags = {"ContrastBolusAgent": agent, "contrast_estimate": estimate}
    facts = [{name: value for name, value in tags.items() if value}, {"contrast_estimate": "likely"}, {}]
    facts[2] = {"contrast_estimate": "unlikely"}
    cases = [replace(noise_case(number), tags=tags) for number, tags in enumerate(facts)]
    dataset.write(tmp_path / "all.h5", cases, [], size=SIZE, attributes={"revision": 2})
    outputs = {"contrast": tmp_path / "contrast.h5", "noncontrast": tmp_path / "plain.h5"}
    result = translate_divide(tmp_path / "all.h5", **outputs)
    assert result.cases == {"contrast": 1 + (expected == "contrast"), "non-contrast": 1 + (expected == "non-contrast")}
    assert result.left_out == ((noise_case(0).id,) if expected is None else ())
    with dataset.open(tmp_path / "plain.h5") as plain:
        assert noise_case(2).id in plain.ids
        assert plain.attributes == {"revision": 2}
    (tmp_path / "known.csv").write_text(f"case,group\n{noise_case(0).id},non-contrast\n")
    again = translate_divide(tmp_path / "all.h5", **outputs, known=tmp_path / "known.csv", force=True)
    assert again.cases == {"contrast": 1, "non-contrast": 2}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{0},winter", "a group 'winter'"),
        ("{0},contrast\n{0},non-contrast", "in both groups"),
        ("ff,contrast", "not in all.h5"),
    ],
)
def test_what_readers_cannot_have_seen(lines: str, message: str, tmp_path: Path) -> None:
    dataset.write(tmp_path / "all.h5", [noise_case(0), noise_case(1)], [], size=SIZE)
    (tmp_path / "known.csv").write_text("case,group\n" + lines.format(noise_case(0).id))
    outputs = {"contrast": tmp_path / "contrast.h5", "noncontrast": tmp_path / "plain.h5"}
    with pytest.raises((UsageError, MismatchError), match=message):
        translate_divide(tmp_path / "all.h5", **outputs, known=tmp_path / "known.csv")
    with pytest.raises(MismatchError, match="no contrast scans"):
        translate_divide(tmp_path / "all.h5", **outputs)
    assert not outputs["contrast"].exists()


# Training


def start(folder: Path, output: Path, *more: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from ucadi.cli import main; main()", "translate", "train"]
    command += [folder / "contrast.h5", folder / "plain.h5", "-o", output, *options(epochs=4), *more]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error


@pytest.mark.slow
def test_killed_at_random_moments(folder: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "whole.translator"
    finish(start(folder, undisturbed))
    killed, checkpoint = tmp_path / "killed.translator", tmp_path / "a.checkpoint"
    rng = random.Random(8)
    stood_at = set()
    for _ in range(3):
        process = start(folder, killed, "--checkpoint", checkpoint, "--checkpoint-every", "0s")
        before = checkpoint.read_bytes() if checkpoint.exists() else b""
        while process.poll() is None and (not checkpoint.exists() or checkpoint.read_bytes() == before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        if killed.exists():
            break
        metadata = translation_checkpoint.container.read(checkpoint).metadata
        stood_at.add((metadata["next_epoch"], metadata["next_step"]))
    assert stood_at, "it was over before it could be killed"
    assert any(step > 0 for _, step in stood_at), "never within an epoch"
    if not killed.exists():
        assert inspect_file(checkpoint).facts["goes_on_at"] == [metadata["next_epoch"], metadata["next_step"]]
        finish(start(folder, killed, "--checkpoint", checkpoint))
    assert file_digest(killed) == file_digest(undisturbed)
    assert not checkpoint.exists(), "there is nothing left to go on with"


def test_another_trainings_checkpoint(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    checkpoint = tmp_path / "a.checkpoint"
    arguments = {"contrast": folder / "contrast.h5", "noncontrast": folder / "plain.h5", "output": tmp_path / "x"}
    with monkeypatch.context() as context:
        context.setattr("ucadi.formats.translator.write", stop)
        with pytest.raises(KeyboardInterrupt):
            translate_train(**arguments, **OPTIONS, checkpoint=checkpoint)  # type: ignore[arg-type]
    for changed, named in (
        ({"settings": [*OPTIONS["settings"], "seed=5"]}, "recipe"),
        ({"window": (-200, 400)}, "window_hu"),
        ({"width": 6}, "architecture"),
    ):
        with pytest.raises(MismatchError, match=rf"another training: {named} differ"):
            translate_train(**arguments, **(OPTIONS | changed), checkpoint=checkpoint)  # type: ignore[arg-type]
    translate_train(**arguments, **OPTIONS, checkpoint=checkpoint)  # type: ignore[arg-type]
    assert file_digest(tmp_path / "x") == file_digest(folder / "a.translator")
    checkpoint.write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(FormatError, match=r"a\.checkpoint"):
        translate_train(**arguments, **OPTIONS, checkpoint=checkpoint, force=True)  # type: ignore[arg-type]


def test_what_cannot_be_trained(folder: Path, tmp_path: Path) -> None:
    arguments = {"contrast": folder / "contrast.h5", "noncontrast": folder / "plain.h5", "output": tmp_path / "x"}
    with pytest.raises(FormatError, match="method is 'wishing'"):
        translate_train(**arguments, method="wishing")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not for training"):
        translate_train(**arguments, split=folder / "s", part="test")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"made\.h5: no scans"):
        translate_train(folder / "made.h5", folder / "plain.h5", output=tmp_path / "x", **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="exists already"):
        translate_train(folder / "absent.h5", folder / "plain.h5", output=folder / "made.h5")
    assert list(tmp_path.iterdir()) == []


def test_samples_are_shown_as_it_trains(folder: Path) -> None:
    (sheet,) = (folder / "samples").iterdir()
    assert sheet.name == "epoch-0002.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_translator_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    facts = inspect_file(folder / "a.translator").facts
    assert facts["window_hu"] == [-1024, 600]
    assert facts["architecture"] == {
        "width": 4,
        "blocks": 1,
        "depth": 3,
        "size": 32,
        "skip": True,
        "method": "cyclegan",
    }
    assert set(facts["origin"]["datasets"]) == {"contrast", "non-contrast"}
    held = translator_format.read(folder / "a.translator")
    assert held.digest == file_digest(folder / "a.translator")
    translator_format.write(tmp_path / "again", held)
    assert file_digest(tmp_path / "again") == held.digest
    translator_format.write(tmp_path / "other", replace(held, architecture={**held.architecture, "blocks": 2}))
    with pytest.raises(MismatchError, match="do not fit"):
        translate_apply(folder / "contrast.h5", model=tmp_path / "other", output=tmp_path / "x.h5")


# Synthetic cases


def test_synthetic_cases_keep_everything_but_hu_and_say_what_made_them(folder: Path) -> None:
    with dataset.open(folder / "contrast.h5") as scans, dataset.open(folder / "made.h5") as made:
        assert len(made) == len(scans)
        assert not set(made.ids) & set(scans.ids)
        assert not set(made.series_digests) & set(scans.series_digests)
        assert all(one is None for one in scans.synthetic)
        assert len(made.scans()) == 0
        for index in range(len(made)):
            one = made.case(index)
            assert one.synthetic is not None
            source = scans.case(scans.ids.index(one.synthetic.source))
            assert (one.synthetic.model, one.synthetic.kind) == (file_digest(folder / "a.translator"), "non-contrast")
            assert "synthetic" in one.flags
            assert (one.patient, one.label) == (source.patient, source.label)
            assert np.array_equal(one.volume.affine, source.volume.affine)
            assert np.array_equal(one.positions_mm, source.positions_mm)
            assert one.volume.hu.shape == source.volume.hu.shape
            assert not np.array_equal(one.volume.hu, source.volume.hu)
    kind = f"non-contrast by {file_digest(folder / 'a.translator')}"
    assert inspect_file(folder / "made.h5").facts["synthetic"] == {kind: 6}
    assert "synthetic" not in inspect_file(folder / "contrast.h5").facts


def test_equal_inputs_give_equal_bytes_and_other_directions_other_cases(folder: Path, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        translate_apply(folder / "contrast.h5", model=folder / "a.translator", output=tmp_path / name)
        assert file_digest(tmp_path / name) == file_digest(folder / "made.h5")
    translate_apply(folder / "contrast.h5", model=folder / "a.translator", output=tmp_path / "c.h5", to="contrast")
    with dataset.open(tmp_path / "c.h5") as one, dataset.open(folder / "made.h5") as other:
        assert not set(one.ids) & set(other.ids)
    small = translate_apply(folder / "contrast.h5", model=folder / "a.translator", output=tmp_path / "d.h5", size=16)
    assert "6 synthetic non-contrast cases of 6 patients" in str(small)
    with dataset.open(tmp_path / "d.h5") as resized, dataset.open(folder / "made.h5") as whole:
        assert resized.size == 16
        assert resized.volume(0).spacing_mm == pytest.approx((2.5, 6, 6))
        assert resized.ids == whole.ids


def test_what_is_not_translated(folder: Path, tmp_path: Path) -> None:
    model = folder / "a.translator"
    with pytest.raises(MismatchError, match="no scans to translate"):
        translate_apply(folder / "made.h5", model=model, output=tmp_path / "x.h5")
    with pytest.raises(UsageError, match="no such kind"):
        translate_apply(folder / "contrast.h5", model=model, output=tmp_path / "x.h5", to="winter")
    with pytest.raises(UsageError, match="the dataset has 32"):
        translate_apply(folder / "contrast.h5", model=model, output=tmp_path / "x.h5", size=64)
    init(output=tmp_path / "w.weights", width=2, size=32)
    with pytest.raises(FormatError, match="is weights, not a translator"):
        translate_apply(folder / "contrast.h5", model=tmp_path / "w.weights", output=tmp_path / "x.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["w.weights"]


def test_a_heatmap_says_that_its_case_is_synthetic(folder: Path, tmp_path: Path) -> None:
    init(output=tmp_path / "w.weights", width=2, size=32)
    for name, synthetic in (("made.h5", True), ("contrast.h5", False)):
        with dataset.open(folder / name) as data:
            first = data.ids[0]
        gradcam(folder / name, model=tmp_path / "w.weights", case=first, output=tmp_path / name)
        assert json.loads((tmp_path / name / "regions.json").read_text())["synthetic"] is synthetic


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Path:
    """Scans without contrast medium and synthetic ones, together; and a split of all patients."""
    write_dataset(folder / "more.h5", LABELS * 2, size=32, first=100)
    for name, number in (("contrast.h5", 1), ("plain.h5", 2), ("more.h5", 3)):  # whose series differ, as in life
        with h5py.File(folder / name, "r+") as file:
            for index, group in enumerate(file["cases"].values()):
                group.attrs["series_digest"] = np.bytes_(f"{number:02x}{index:062x}")
    translate_apply(folder / "contrast.h5", model=folder / "a.translator", output=folder / "made.h5", force=True)
    merge([folder / "contrast.h5", folder / "plain.h5", folder / "more.h5"], output=folder / "scans.h5")
    merge([folder / "made.h5", folder / "plain.h5", folder / "more.h5"], output=folder / "mixed.h5")
    split(folder / "scans.h5", output=folder / "site.split", folds=2, test=0.3)
    return folder


def test_synthetic_cases_are_in_training_parts_only(mixed: Path) -> None:
    made = split_format.read(mixed / "site.split")
    with dataset.open(mixed / "mixed.h5") as data:
        assert sum(one is not None for one in data.synthetic) == 6
        seen = 0
        for part in made.parts:
            chosen = split_format.select(data, mixed / "site.split", part)
            synthetic = sum(one is not None for one in chosen.synthetic)
            assert set(chosen.patients) <= made.patients(part)
            if part in ("test", "val-1", "val-2"):
                assert synthetic == 0
            else:
                seen += synthetic
        of_trained = set(data.patients) & made.patients("trainval")
        assert seen >= sum(
            one is not None and p in of_trained for one, p in zip(data.synthetic, data.patients, strict=True)
        )


def test_split_refuses_patients_of_whom_there_is_nothing_real(mixed: Path, tmp_path: Path) -> None:
    for name in ("made.h5", "mixed.h5"):
        with pytest.raises(MismatchError, match="of 6 patients it has synthetic cases only") as caught:
            split(mixed / name, output=tmp_path / "x.split")
        assert "split the datasets of the scans" in (caught.value.hint or "")
    merge([mixed / "scans.h5", mixed / "made.h5"], output=tmp_path / "both.h5")
    split(tmp_path / "both.h5", output=tmp_path / "both.split", folds=2, test=0.3)
    assert (tmp_path / "both.split").read_bytes() == (mixed / "site.split").read_bytes()


def test_synthetic_cases_train_and_never_test(mixed: Path, tmp_path: Path) -> None:
    init(output=tmp_path / "a.weights", width=2, size=32)
    schedule = {"base": tmp_path / "a.weights", "site": "a", "settings": to_set(total_epochs=1, warmup_epochs=0)}
    result = train(
        mixed / "mixed.h5", output=tmp_path / "a.update", split=mixed / "site.split", part="trainval", **schedule
    )  # type: ignore[arg-type]
    assert result.synthetic > 0
    assert f"({result.synthetic} of them synthetic)" in str(result)
    with pytest.raises(MismatchError, match="are synthetic"):
        train(mixed / "scans.h5", output=tmp_path / "b.update", validation=mixed / "made.h5", **schedule)  # type: ignore[arg-type]
    for arguments in (["made.h5"], ["mixed.h5"], ["mixed.h5", "--split", mixed / "site.split", "--part", "trainval"]):
        refused = ucadi(
            "predict", *arguments, "--model", tmp_path / "a.weights", "-o", tmp_path / "x.predictions", cwd=mixed
        )
        assert refused.returncode == 4
        assert "are synthetic, and say nothing of patients" in refused.stderr
    predict(
        mixed / "mixed.h5", model=[tmp_path / "a.weights"], output=tmp_path / "x.predictions",
        split=mixed / "site.split", part="test",
    )  # fmt: skip


def test_half_a_mark_is_refused(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes((folder / "made.h5").read_bytes())
    with h5py.File(bad, "r+") as file:
        for group in file["cases"].values():
            del group.attrs["synthetic_model"]
    with pytest.raises(FormatError, match="does not say what made it"), dataset.open(bad):
        pass


# Figures


def test_figures_of_a_translation(folder: Path, tmp_path: Path) -> None:
    result = translate_evaluate(
        folder / "made.h5", folder / "contrast.h5", folder / "plain.h5", sheet=tmp_path / "sheet.png"
    )
    assert (result.kind, result.cases) == ("non-contrast", 6)
    assert 0 < result.edges < 1
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "correlation of edges" in str(result)
    init(output=tmp_path / "a.weights", width=2, size=32)
    other = translate_evaluate(
        folder / "made.h5", folder / "contrast.h5", folder / "plain.h5", classifier=tmp_path / "a.weights"
    )
    assert other.histogram == result.histogram
    assert other.kernel != result.kernel
    with pytest.raises(MismatchError, match="6 of the 6 scans are not in it"):
        translate_evaluate(folder / "made.h5", folder / "plain.h5", folder / "plain.h5")
    with pytest.raises(MismatchError, match="not synthetic cases of one kind"):
        translate_evaluate(folder / "plain.h5", folder / "contrast.h5", folder / "plain.h5")


# Real slices


@pytest.mark.slow
@needs_real_data
def test_held_out_real_slices_lose_their_contrast_and_keep_their_edges() -> None:
    """The example, as people run it: five minutes of one core."""
    root = ROOT
    subprocess.run(["examples/translate-slices.sh"], cwd=root, check=True, capture_output=True)
    out = root / "examples/out/translate-slices"
    held_out = {"split": out / "patients.split", "part": "test"}
    to_plain = translate_evaluate(out / "made-noncontrast.h5", out / "contrast.h5", out / "noncontrast.h5", **held_out)
    to_contrast = translate_evaluate(out / "made-contrast.h5", out / "noncontrast.h5", out / "contrast.h5", **held_out)
    assert to_plain.moved is not None
    assert to_plain.moved >= 0.5
    assert to_contrast.moved is not None
    assert to_contrast.moved > 0
    for made in (to_plain, to_contrast):
        assert made.edges > 0.98
        assert made.lung == pytest.approx(1, abs=0.05)
    assert to_plain.mediastinum.after < to_plain.mediastinum.before
    assert to_plain.aorta.after < to_plain.aorta.before - 30
    assert to_plain.histogram.after < to_plain.histogram.before
    assert to_plain.kernel.after < to_plain.kernel.before / 2
