"""Every reader of files, with sound files to begin from, for `test_fuzz.py` and `fuzz.py`."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from exchanges import Rounds
from federation import make_federation
from fuzzing import Target
from pydicom.dataset import FileMetaDataset
from series import body, save, series
from surveys import Surveyor

from ucadi.commands.inspect import inspect_file
from ucadi.commands.tag import tag
from ucadi.ct.reading import archive, dicomdir, nifti
from ucadi.ct.reading.dicom import PixelReader, read_headers
from ucadi.ct.translation import Window
from ucadi.ct.volume import Volume
from ucadi.fed.fixedpoint import Encoder
from ucadi.fed.optimisers import Memory
from ucadi.files import write_file
from ucadi.formats import (
    caselist,
    casetable,
    checkpoint,
    container,
    courier,
    dataset,
    handover,
    hdf5,
    histogram,
    keys,
    operating_point,
    partial,
    plan,
    predictions,
    receipt,
    roster,
    salt,
    schedules,
    split,
    statement,
    translation_checkpoint,
    translator,
    update,
    weights,
)
from ucadi.formats import tag as tag_format
from ucadi.formats.dataset import Case, Rejection
from ucadi.formats.histogram import Histogram
from ucadi.formats.predictions import Predictions
from ucadi.formats.statement import Statement, Vote
from ucadi.formats.translator import Translator
from ucadi.formats.weights import Weights
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.labels import Diagnosis
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.state import EpochRecord, TrainingState
from ucadi.rounds.closing import read_own_upload, read_total
from ucadi.rounds.contribution import check_belongs
from ucadi.rounds.delivery import let_in
from ucadi.rounds.following import next_weights
from ucadi.rounds.handing import check_handover, open_handover, write_handover
from ucadi.rounds.round import Round
from ucadi.rounds.tagging import check_tag
from ucadi.rounds.threshold import check_partial, combine_partials
from ucadi.scoring import histogram as scoring
from ucadi.splitting import Split
from ucadi.translation.recipe import KINDS, Losses, TranslationRecord, TranslationState, TranslatorArchitecture

Read = Callable[[Path], object]

MODEL, OTHER = "a" * 64, "b" * 64


def make_targets(folder: Path, surveyor: Surveyor) -> dict[str, Target]:
    """All targets, by name. `folder` is filled with a federation's files and a sound file of every kind."""
    targets = [*_of_a_round(folder / "round"), *_of_one_site(folder), *_of_scans(folder / "scans")]
    targets += [_datasets(folder, surveyor)]
    containers = tuple(seed for target in targets for seed in target.seeds if seed[8:9] == b"{")
    documents = tuple(
        seed for target in targets for seed in target.seeds if seed.startswith(b'{"') and b"ucadi" in seed
    )
    targets += [Target("container", containers, container.read)]
    targets += [Target("inspect", (*containers, *documents), _inspected)]
    return {target.name: target for target in targets}


def _inspected(path: Path) -> object:
    """Not of HDF5, for which `inspect` would start a process each time: that is the target `dataset`."""
    if path.read_bytes().startswith(hdf5.MAGIC):
        return None
    shown = str(inspect_file(path))
    assert all(line.isprintable() for line in shown.splitlines())
    return shown


# --- what others send ---------------------------------------------------------------------------------------


def _of_a_round(folder: Path) -> list[Target]:
    """Files of a round in threshold mode. The insider is a member, and where only the coordinator signs, he."""
    folder.mkdir(parents=True)
    federation = make_federation(folder, threshold=2, minimum_sites=3)
    rounds = Rounds.begin(federation, folder / "exchange")
    rounds.open(1)
    for site in federation.sites:
        rounds.upload(1, site)
    rounds.close(1)
    for site in federation.sites:
        rounds.answer(1, site)
    rounds.lead_on(1, "site-a")
    exchange = rounds.exchange
    tagged = folder / "tag"
    tag(
        exchange.path(Kind.UPLOAD, 1, "site-b"), plan=exchange.plan(1), roster=federation.roster,
        receipt=exchange.receipt(1), key=federation.key("site-b"), output=tagged,
    )  # fmt: skip
    round_ = Round.read(exchange.plan(1), federation.roster)
    member, leader = (keys.read_key(federation.key(name)) for name in ("site-b", "coordinator"))
    reader = keys.read_key(federation.key("site-c"))
    total = read_total(exchange, 1, round_)
    base, out = weights.read(federation.base), folder / "out"
    handed = rounds.file(Kind.HANDOVER, 1, "site-b")
    write_handover(handed, federation.base, round_, member)
    said = rounds.file(Kind.METRICS, 1, "site-b")
    words = Statement("site-b", round_.plan_digest, MODEL, (1,) * 4, {"training": 1.5}, {"auc": 0.5})
    more = {"opened": MODEL, "next_sealing": member.public.sealing}
    statement.write(said, replace(words, false_shares=("site-a", "site-c"), vote=Vote.WORSE, **more), member)
    parcel = folder / "parcel"
    carried = [p.name for p in exchange.places() if p.number <= 1 and p.kind is not Kind.OPENED]
    courier.write(parcel, exchange.root, carried, "site-c")
    empty = folder / "empty"

    def answers(path: Path) -> None:
        answer = partial.read(path)
        check_partial(answer, round_, path.name)
        others = [partial.read(exchange.path(Kind.PARTIAL, 1, site)) for site in ("site-a", "site-c")]
        mine = [other for other in others if other.member != answer.member]
        combine_partials([answer, *mine], total, round_, reader)

    def hand_over(path: Path) -> None:
        found = handover.read(path)
        check_handover(found, round_, path.name)
        open_handover(found, round_, reader, out, force=True)

    def sums(path: Path) -> None:
        shutil.copyfile(path, exchange.sum(1))
        read_total(exchange, 1, round_)

    ended, receipt_digest = receipt.read(exchange.receipt(1), round_.roster)

    def tags(path: Path) -> None:
        check_tag(tag_format.read(path, round_.roster), round_, ended, receipt_digest, path.name)

    def opened(path: Path) -> None:
        next_weights(base, update.read_aggregate(path), round_, change=MODEL, name=path.name)

    def plain(path: Path) -> None:
        found = update.read_update(path)
        check_belongs(found, round_)
        for _ in Encoder(found, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits).pieces():
            pass

    def unpack(path: Path) -> None:
        shutil.rmtree(empty, ignore_errors=True)
        empty.mkdir()
        with courier.opened(path) as found:
            let_in(found, type(exchange)(empty), round_.roster)

    enlisted = roster.read(federation.roster)
    of = exchange.path
    return [
        _target("upload", [of(Kind.UPLOAD, 1, "site-b")], lambda path: read_own_upload(path, round_, "site-b"), member),
        _target("sum", [exchange.sum(1)], sums, leader),
        _target("partial", [of(Kind.PARTIAL, 1, "site-b")], answers, member),
        _target("tag", [tagged], tags, member),
        _target("handover", [handed], hand_over, member),
        _target("statement", [said], lambda path: statement.read(path, member.public), member),
        _target("opened", [of(Kind.OPENED, 1, "site-a")], opened),
        _target("update", [federation.update("site-a-1"), federation.update("site-b-1")], plain),
        _target("weights", [federation.base, exchange.model(2), *_weights(folder)], _network),
        _target("roster", [federation.roster], roster.read, leader),
        _target("plan", [exchange.plan(1)], lambda path: plan.read(path, enlisted), leader),
        _target("receipt", [exchange.receipt(1)], lambda path: receipt.read(path, enlisted), leader),
        _target("card", [folder / "site-b.card"], keys.read_card, member),
        _target("key", [federation.key("site-b")], keys.read_key),
        _target("courier", [parcel], unpack, member),
    ]


def _target(name: str, seeds: list[Path], read: Read, insider: SecretKeys | None = None) -> Target:
    return Target(name, tuple(path.read_bytes() for path in seeds), read, insider)


def _weights(folder: Path) -> list[Path]:
    """Weights with what a server optimiser remembers."""
    path = folder / "remembered.weights"
    arrays = {"a.weight": np.ones((2, 2), np.float32)}
    memory = Memory("fedavgm", {"momentum/a.weight": np.ones((2, 2), np.float32)})
    weights.write(path, Weights(arrays, Architecture().description(), {"seed": 1}, memory=memory))
    return [path]


def _network(path: Path) -> None:
    found = weights.read(path)
    if found.architecture.get("name") != "test":
        Architecture.parse(found.architecture)


# --- what a site has ----------------------------------------------------------------------------------------


def _of_one_site(folder: Path) -> list[Target]:
    ids = tuple(f"{number:016x}" for number in range(5))
    probabilities = np.full((5, 2, 4), 0.25, np.float32)
    predictions.write(
        folder / "p", Predictions(MODEL, OTHER, ids, ids, np.arange(-1, 4, dtype=np.int32), probabilities)
    )
    counts = np.arange(16, dtype=np.int64).reshape(2, 8)
    histogram.write(folder / "h", Histogram(MODEL, (OTHER,), counts))
    split.write(folder / "s", Split(frozenset(ids[:1]), (frozenset(ids[1:3]), frozenset(ids[3:]))))
    arrays = {"a.weight": np.ones((2, 3), np.float32)}
    record = EpochRecord(0, 1.0, 0.5, None, 0.01)
    state = TrainingState(1, arrays, arrays, arrays, arrays, 2, (1.0,), probabilities[:, 0], (record,), 7)
    checkpoint.write(folder / "c", {"base": MODEL}, state)
    losses = Losses(1.0, 1.0, 1.0, 1.0)
    pools = {kind: np.ones((1, 3, 4, 4), np.float32) for kind in KINDS}
    translating = TranslationState(
        1, 1, 1, arrays, arrays, arrays, pools, (losses,), (TranslationRecord(0, 0.1, losses),)
    )
    translation_checkpoint.write(folder / "tc", {"base": MODEL}, translating)
    made = Translator(arrays, TranslatorArchitecture().description(), Window(), {"seed": 1})
    translator.write(folder / "t", made)
    (folder / "recipe.toml").write_text(
        "learning_rate = 0.1\nbatch_size = 4\nloss_weights = [1.0, 2.0, 1, 1]\nlocal_norms = true\n"
        '[server]\nmethod = "fedadam"\n'
    )
    (folder / "labels.csv").write_text("case,patient,label\na/1,p1,covid\na/2,p1,healthy\nb,,bacterial\n")
    _table(folder / "readers.csv", [("case", "reader", "decision"), (ids[0], "r", "1"), (ids[1], "r", "0")])
    _table(folder / "groups.csv", [("case", "group"), (ids[0], "old"), (ids[1], "young")])
    (folder / "report.json").write_text(json.dumps(_report()))
    write_file(folder / "salt", bytes(range(32)), mode=0o600)

    def counted(path: Path) -> None:
        found = histogram.read(path)
        if all(found.counts.sum(axis=1)):
            scoring.auc(found.counts)

    def generators(path: Path) -> None:
        TranslatorArchitecture.parse(translator.read(path).architecture)

    return [
        _target("predictions", [folder / "p"], lambda path: predictions.read(path).mean),
        _target("histogram", [folder / "h"], counted),
        _target("split", [folder / "s"], split.read),
        _target("checkpoint", [folder / "c"], lambda path: checkpoint.read(path, {"base": MODEL})),
        _target(
            "translation-checkpoint", [folder / "tc"], lambda path: translation_checkpoint.read(path, {"base": MODEL})
        ),
        _target("translator", [folder / "t"], generators),
        _target("recipe", [folder / "recipe.toml"], schedules.read_recipe),
        _target("labels", [folder / "labels.csv"], lambda path: caselist.read(path, unlabelled=True)),
        _target("readers", [folder / "readers.csv"], casetable.read_readers),
        _target("groups", [folder / "groups.csv"], casetable.read_groups),
        _target("report", [folder / "report.json"], lambda path: operating_point.read(path, MODEL)),
        _target("salt", [folder / "salt"], salt.read_or_make),
    ]


def _table(path: Path, rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_text(text.getvalue())


def _report() -> object:
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    covid = {"sensitivity": figure, "specificity": figure, "auc": figure}
    calibration = {"ece": 0.1, "brier": 0.2}
    details = {"temperature": 1.5, "calibration": calibration, "tempered": calibration}
    return {
        "provenance": {"models": {"m": MODEL}, "operating_point": "youden"},
        "reports": {"m": {"d": {"threshold": 0.5, "cases": 10, "covid": covid}}},
        "details": {"m": {"d": details}},
    }


def _datasets(folder: Path, surveyor: Surveyor) -> Target:
    """Small ones, so that most changes hit the structure; read as every command does, but for the surveyor."""
    affine = np.diag([2.5, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(np.arange(48, dtype=np.int16).reshape(3, 4, 4), affine)
    cases = [
        Case(f"{n:016x}", f"{n:016x}", Diagnosis(n), volume, volume.positions_mm, {"KVP": 1.0}, MODEL, ("lossy",))
        for n in range(2)
    ]
    dataset.write(folder / "d", cases, [Rejection("0" * 16, 1, "gap", 3)], size=4, attributes={"min_slices": 2})
    noise = np.random.default_rng(1).integers(-1000, 500, (5, 16, 16)).astype(np.int16)
    other = replace(cases[0], volume=Volume(noise, affine), positions_mm=Volume(noise, affine).positions_mm)
    dataset.write(folder / "d2", [other], [], size=16)

    def read(path: Path) -> None:
        with hdf5.opened_file(path, surveyor.survey) as root:
            held = dataset.Dataset(path, root)
            for index in range(len(held)):
                held.case(index)

    return _target("dataset", [folder / "d", folder / "d2"], read)


# --- scans --------------------------------------------------------------------------------------------------


def _of_scans(folder: Path) -> list[Target]:
    """What `preprocess` reads of one file: an exception here would refuse the scan as `unreadable`, not end the run."""
    save(folder / "s", series(3))
    files = sorted(path.rename(path.with_name(f"IM{number}")) for number, path in enumerate((folder / "s").iterdir()))
    volume = Volume(body(4), np.diag([2.5, 1.5, 2.0, 1.0])[[2, 1, 0, 3]])
    nifti.write(folder / "v.nii", volume.hu, volume.affine)
    nifti.write(folder / "v.nii.gz", volume.hu, volume.affine)
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", method) as made:
            for file in files[:2]:
                made.write(file, f"a/{file.name}")
    index = _index(folder / "s" / "DICOMDIR", files[0].name)

    def image(path: Path) -> None:
        reader = PixelReader()
        for instance in read_headers(path):
            if instance.reason is None:
                reader.read(instance)

    def nii(suffix: str) -> Read:
        def read(path: Path) -> None:
            nifti.read(shutil.copyfile(path, path.with_name(f"mutant{suffix}")))

        return read

    def unzip(path: Path) -> None:
        with archive.unpacked(path) as unpacked:
            list(unpacked.rglob("*"))

    return [
        _target("scan-dicom", files, image),
        _target("scan-dicomdir", [index], dicomdir.read),
        _target("scan-nifti", [folder / "v.nii"], nii(".nii")),
        _target("scan-nifti-gz", [folder / "v.nii.gz"], nii(".nii.gz")),
        _target("scan-zip", [folder / "stored", folder / "deflated"], unzip),
    ]


def _index(path: Path, name: str) -> Path:
    """A DICOMDIR that lists one image."""
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    record = pydicom.Dataset()
    record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", [name]
    made.DirectoryRecordSequence = [record]
    made.save_as(path, enforce_file_format=True)
    return path
