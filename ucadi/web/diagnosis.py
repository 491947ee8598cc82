"""One job, in the worker: the commands preprocess, predict and gradcam, one after another, then the report.

Everything is done in the worker's scratch folder, which the server removes; what is shown goes to the results.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ucadi._version import __version__
from ucadi.commands.gradcam import DICOM, HEATMAP, MONTAGE, GradcamResult, gradcam
from ucadi.commands.predict import predict
from ucadi.commands.preprocess import preprocess
from ucadi.ct.reading import nifti
from ucadi.ct.reading.refusals import Reason
from ucadi.ct.volume import resized_affine
from ucadi.errors import SeriesError
from ucadi.formats import dataset as dataset_format
from ucadi.formats import operating_point as operating_point_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats import weights as weights_format
from ucadi.formats.operating_point import OperatingPoint
from ucadi.labels import LABELS, Diagnosis
from ucadi.pages import quality as quality_format
from ucadi.scoring.calibration import tempered
from ucadi.web.report import report_page

CT = "ct.nii.gz"
OVERLAY = "overlay.nii.gz"
DICOM_ZIP = "heatmap-dicom.zip"
RESULT = "result.json"
REPORT = "report.html"
QUALITY = "quality.html"

PICTURE_SIZE = 256
"""Rows and columns of the CT that is shown: finer than most networks take, and no burden for a telephone."""

STEPS = (
    "reading the CT",
    "preparing the picture",
    "asking the network",
    "seeing where it looked",
    "writing the report",
)


@dataclass(frozen=True)
class Order:
    """What a worker is given: where the files lie, where results go, where to work, and with what.

    diagnosis: what the heatmap is of, empty for the most probable one.
    """

    uploads: Path
    results: Path
    scratch: Path
    model: Path
    calibration: Path | None
    min_slices: int
    dicom: bool
    diagnosis: str


def diagnose(order: Order, tell: Callable[..., None]) -> None:
    """Does the job. `tell` hears of each step. Raises SeriesError, with the reason, for what is no usable chest CT."""
    steps = iter(STEPS)

    def step() -> None:
        name = next(steps)
        tell(step=STEPS.index(name) + 1, steps=len(STEPS), name=name)

    step()
    order.results.mkdir()
    weights = weights_format.read(order.model)
    size = int(weights.architecture["size"])
    source = arrange(order.uploads, order.scratch / "source")
    dataset, found = order.scratch / "case.h5", order.scratch / "quality"
    quality = _read(source, dataset, size, order.min_slices, found, order.results)

    step()
    _picture(source, dataset, size, order)

    step()
    predicted = order.scratch / "case.predictions"
    predict(dataset, model=[order.model], output=predicted)
    held = predictions_format.read(predicted)

    step()
    explained = order.scratch / "gradcam"
    seen, no_dicom = _explain(dataset, held.cases[0], source, explained, order)
    if seen.dicom:
        _zip(explained / DICOM, order.results / DICOM_ZIP)
    for name in (HEATMAP, MONTAGE):
        (explained / name).replace(order.results / name)
    _overlay(order.results / HEATMAP, order.results / OVERLAY, max(size, PICTURE_SIZE))

    step()
    point = operating_point_format.read(order.calibration, weights.digest) if order.calibration else None
    result = {
        "version": __version__,
        "model": {"sha256": weights.digest, "architecture": weights.architecture},
        **probabilities(held.probabilities[0].astype(float).tolist(), point),
        **_heatmap(seen),
        "no_dicom": no_dicom,
        "quality": quality,
    }
    (order.results / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    montage = (order.results / MONTAGE).read_bytes()
    (order.results / REPORT).write_text(report_page(result, montage), encoding="utf-8")


def arrange(uploads: Path, source: Path) -> Path:
    """Uploaded files as `preprocess` takes a case: one zip file, one NIfTI, or a folder of DICOM files.

    What a file is says its beginning; its name stayed with who sent it.
    """
    files = sorted(file for file in uploads.iterdir() if file.name.isdecimal())
    if not files:
        raise SeriesError("no files came", hint="send a zip file or folder of DICOM files, or one NIfTI file")
    source.mkdir()
    suffix = _suffix(files[0]) if len(files) == 1 else ""
    if suffix:
        os.link(files[0], source / f"scan{suffix}")
        return source
    (source / "scan").mkdir()
    for file in files:
        os.link(file, source / "scan" / f"{file.name}.dcm")
    return source


def _suffix(file: Path) -> str:
    with file.open("rb") as opened:
        beginning = opened.read(4)
    if beginning[:2] == b"\x1f\x8b":
        return ".nii.gz"
    if beginning in ((348).to_bytes(4, "little"), (348).to_bytes(4, "big")):  # NIfTI-1's sizeof_hdr
        return ".nii"
    return ".zip" if beginning[:2] == b"PK" else ""


def _read(source: Path, dataset: Path, size: int, min_slices: int, found: Path, results: Path) -> dict[str, Any]:
    """Makes the dataset of one case, and gives what the quality report says of it. The report is kept either way."""
    try:
        preprocess(source, output=dataset, size=size, min_slices=min_slices, report=found, **_alike(dataset.parent))
    except SeriesError:
        record = _keep_quality(found, results)
        reason = Reason(record["reason"])
        detail = f" ({record['detail']})" if record["detail"] else ""
        raise SeriesError(f"{reason.sentence}{detail}", hint=_hint(reason, record)) from None
    return _keep_quality(found, results)


def _keep_quality(found: Path, results: Path) -> dict[str, Any]:
    (found / quality_format.HTML).replace(results / QUALITY)
    record: dict[str, Any] = json.loads((found / quality_format.JSON).read_text(encoding="utf-8"))["cases"][0]
    del record["id"], record["label"]
    return record


def _hint(reason: Reason, record: dict[str, Any]) -> str | None:
    if len(record["not_used"]) > 1:
        series = (f"series {s['series']}: {Reason(s['reason']).sentence}" for s in record["not_used"][:8])
        return "; ".join(series)
    return None if reason.names_an_option else reason.hint


def _alike(scratch: Path) -> dict[str, Any]:
    """Options of both readings. The salt is no secret here, where every scan has the same name: with a new one each
    time, the same scan would be sampled anew and get other probabilities."""
    salt = scratch / "salt"
    salt.write_bytes(b"every upload is called scan")
    return {"unlabelled": True, "workers": 1, "salt": salt}


def _picture(source: Path, dataset: Path, size: int, order: Order) -> None:
    """The CT to look at, finer than the network's where that is coarse."""
    if size < PICTURE_SIZE:
        dataset = order.scratch / "picture.h5"
        preprocess(
            source, output=dataset, size=PICTURE_SIZE, min_slices=order.min_slices, **_alike(order.scratch)
        )  # fmt: skip
    with dataset_format.open(dataset) as data:
        volume = data.volume(0)
    nifti.write(order.results / CT, volume.hu, volume.affine)


def _explain(dataset: Path, case: str, source: Path, folder: Path, order: Order) -> tuple[GradcamResult, str]:
    """The heatmap, with DICOM objects that refer to the uploaded images; or without, and why not."""
    (scan,) = source.iterdir()
    why = "" if order.dicom else "this server makes none"
    explain = partial(gradcam, dataset, model=order.model, case=case, output=folder, diagnosis=order.diagnosis or None)
    if nifti.is_nifti(scan):
        why = "a NIfTI file has no images to refer to"
    if why:
        return explain(), why
    try:
        return explain(dicom=scan), ""
    except Exception as error:  # whatever a header that is read well enough to be shown lacks for them
        why = error.message if isinstance(error, SeriesError) else type(error).__name__
        return explain(force=True), f"they could not be made: {why}"


def _zip(folder: Path, path: Path) -> None:
    """A zip file of a folder's files; equal files give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=1)


def _overlay(heatmap: Path, overlay: Path, side: int) -> None:
    """The heatmap on the picture's grid, linear between its pixels, in steps of 1/255: the viewer takes the nearest."""
    from scipy import ndimage

    values, affine = nifti.read_written(heatmap)
    _, rows, columns = values.shape
    fine = np.empty((len(values), side, side), np.uint8)
    for index, plane in enumerate(values):
        smooth = ndimage.zoom(plane, (side / rows, side / columns), order=1, mode="nearest", grid_mode=True)
        fine[index] = np.rint(255 * smooth.clip(0, 1))
    nifti.write(overlay, fine, resized_affine(affine, (rows, columns), (side, side)))


def probabilities(samplings: list[list[float]], point: OperatingPoint | None) -> dict[str, Any]:
    """What the network said: the mean of the samplings (paper, Methods), how far they spread, calibrated and called
    where an evaluation says how."""
    columns = list(zip(*samplings, strict=True))
    mean = [sum(column) / len(column) for column in columns]
    calibrated = None
    if point is not None and point.temperature is not None:
        calibrated = dict(zip(LABELS, tempered([mean], point.temperature)[0].tolist(), strict=True))
    return {
        "probabilities": dict(zip(LABELS, mean, strict=True)),
        "lowest": {label: min(column) for label, column in zip(LABELS, columns, strict=True)},
        "highest": {label: max(column) for label, column in zip(LABELS, columns, strict=True)},
        "samplings": len(samplings),
        "calibrated": calibrated,
        "operating_point": None if point is None else asdict(point),
        "called": None if point is None else mean[Diagnosis.COVID] >= point.threshold,
    }


def _heatmap(seen: GradcamResult) -> dict[str, Any]:
    return {
        "explained": seen.diagnosis,
        "method": seen.method,
        "regions": [asdict(region) for region in seen.regions],
    }
