"""A heatmap as DICOM objects that a PACS takes, beside the series that it explains.

Three series of one study: pictures of every slice (Secondary Capture, PS3.3 A.8.1), the values (Parametric Map,
A.75) and a segmentation whose fraction is the heat (A.51). Patient and study are those of the source, every
object refers to its images. UIDs are 2.25 (PS3.5 B.2) followed by a digest of what the objects are made of, and dates
are those of the source, so that equal inputs give equal bytes and sending again changes nothing in the archive.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from highdicom import content, pm, sc, seg
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from ucadi.ct.overlay import Style, overlay
from ucadi.ct.placing import edges, onto_slice
from ucadi.ct.reading.dicom import PixelReader
from ucadi.ct.reading.elements import text
from ucadi.ct.reading.instance import Instance
from ucadi.ct.statement import HeatmapDescription
from ucadi.ct.volume import Affine
from ucadi.errors import SeriesError

PARAMETRIC_MAP = "parametric-map.dcm"
SEGMENTATION = "segmentation.dcm"

STEPS = 65535
"""The heat 1 as it is stored in the parametric map."""

UNKNOWN_DATE, UNKNOWN_TIME = "19000101", "000000"
"""Where the source says no date, and DICOM asks for one."""


def write(
    folder: Path,
    instances: Sequence[Instance],
    heatmap: npt.NDArray[np.float32],
    affine: Affine,
    statement: HeatmapDescription,
    style: Style,
) -> None:
    """Writes the objects of a heatmap (slice, row, column) in [0, 1] that lies by `affine` into `folder`.

    `instances` are the images that the volume was made of. Raises SeriesError if they cannot be referred to, because
    they lack UIDs.
    """
    source = _Source(instances, statement)
    heat = np.stack([onto_slice(heatmap, affine, instance) for instance in source.instances])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in the source, and is taken over as it is
        _write_pictures(folder, source, heat, style)
        _save(_parametric_map(source, heat), folder / PARAMETRIC_MAP, source)
        _save(_segmentation(source, heat), folder / SEGMENTATION, source)


class _Source:
    """The images that are referred to, in the order of their stack, and what the new objects take from them."""

    def __init__(self, instances: Sequence[Instance], statement: HeatmapDescription) -> None:
        first = instances[0]
        normal = np.cross(first.across, first.down)
        self.instances = sorted(instances, key=lambda i: float(normal @ i.position))
        self.statement = statement
        headers: dict[Path, Dataset] = {}
        for instance in self.instances:
            if instance.path not in headers:
                headers[instance.path] = _header(instance.path)
        self.headers = headers
        self.first = headers[self.instances[0].path]
        digests = "\n".join(sorted(header.SOPInstanceUID for header in headers.values()))
        self._seed = "\0".join((digests, *map(str, (statement.model, statement.version, statement.diagnosis))))
        self._seed += "\0".join(("", statement.method, *statement.details))
        for header in headers.values():
            if "FrameOfReferenceUID" not in header or not header.FrameOfReferenceUID:
                header.FrameOfReferenceUID = self.uid("frame of reference")

    def uid(self, *words: str) -> str:
        """A UID that follows from the source, the statement and the words."""
        digest = hashlib.sha256("\0".join(("ucadi heatmap", self._seed, *words)).encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"

    def header(self, instance: Instance) -> Dataset:
        return self.headers[instance.path]

    @property
    def moment(self) -> tuple[str, str]:
        """Date and time of the source: when the images were made, as far as it is known."""
        for kind in ("Content", "Acquisition", "Series", "Study"):
            date = text(self.first, f"{kind}Date")
            if date:
                return date, text(self.first, f"{kind}Time") or UNKNOWN_TIME
        return UNKNOWN_DATE, UNKNOWN_TIME

    def common(self, series: str, number: int) -> dict[str, Any]:
        """The arguments that every kind of object takes."""
        date, time = self.moment
        return {
            "series_instance_uid": self.uid("series", series),
            "series_number": number,
            "series_description": self.statement.description,
            "manufacturer": "ucadi",
            "manufacturer_model_name": "ucadi gradcam",
            "device_serial_number": self.statement.model[:16],
            "software_versions": self.statement.version,
            "content_date": date,
            "content_time": time,
        }


_NEEDED_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
"""Elements that every DICOM object has, if only empty."""


def _header(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            if not UID(text(header, keyword)).is_valid:
                raise SeriesError(
                    f"{path.name}: {keyword} is missing or no UID, so nothing can refer to this image",
                    hint="leave out --dicom: montage and NIfTI need no UIDs",
                )
    for keyword in _NEEDED_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    if text(header, "PatientSex") not in ("", "M", "F", "O"):
        header.PatientSex = None
    return header


def _write_pictures(folder: Path, source: _Source, heat: npt.NDArray[np.float32], style: Style) -> None:
    """A Secondary Capture image for every slice, numbered as the slices are stacked."""
    reader = PixelReader()
    count = len(source.instances)
    for number, (instance, plane) in enumerate(zip(source.instances, heat, strict=True), start=1):
        sides = edges(instance)
        pixels, side_mm = overlay(
            reader.read(instance).hu, plane, instance.spacing_mm, sides, style, f"slice {number} of {count}"
        )
        header = source.header(instance)
        image = sc.SCImage.from_ref_dataset(
            header,
            pixels,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            sop_instance_uid=source.uid("picture", str(number)),
            instance_number=number,
            patient_orientation=(sides[1], sides[3]),
            pixel_spacing=(side_mm, side_mm),  # type: ignore[arg-type]  # they may well be fractions
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **source.common("pictures", 901),
        )
        image.SourceImageSequence = [_reference(header, instance)]
        image.DerivationDescription = source.statement.description
        image.BurnedInAnnotation = "NO"  # of the patient, that is
        _save(image, folder / f"overlay-{number:04d}.dcm", source)


def _reference(header: Dataset, instance: Instance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if "NumberOfFrames" in header:
        item.ReferencedFrameNumber = instance.frame + 1
    return item


def _geometry(source: _Source) -> dict[str, Any]:
    """Where the frames lie: as the source's images, whose own headers may say it in other ways."""
    first = source.instances[0]
    positions = np.array([instance.position for instance in source.instances])
    normal = np.cross(first.across, first.down)
    spacing = float(np.median(np.diff(positions @ normal))) if len(positions) > 1 else 1.0
    return {
        "pixel_measures": content.PixelMeasuresSequence(
            pixel_spacing=first.spacing_mm, slice_thickness=spacing, spacing_between_slices=spacing
        ),
        "plane_orientation": content.PlaneOrientationSequence("PATIENT", (*first.across, *first.down)),
        "plane_positions": [content.PlanePositionSequence("PATIENT", i.position) for i in source.instances],
    }


def _references(source: _Source) -> list[Dataset]:
    return [source.headers[path] for path in dict.fromkeys(instance.path for instance in source.instances)]


def _parametric_map(source: _Source, heat: npt.NDArray[np.float32]) -> Dataset:
    stored = np.rint(heat * STEPS).astype(np.uint16)
    meaning = pm.RealWorldValueMapping(
        lut_label="heat",
        lut_explanation="share of the maximum of each sampling, averaged",
        unit=codes.UCUM.NoUnits,
        value_range=(0, STEPS),
        slope=1 / STEPS,
        intercept=0.0,
        quantity_definition=codes.DCM.Saliency,
    )
    return pm.ParametricMap(
        _references(source),
        stored,
        sop_instance_uid=source.uid("parametric map"),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[content.VOILUTTransformation(window_center=STEPS / 2, window_width=STEPS)],
        content_label="HEATMAP",
        content_description=source.statement.description,
        **_geometry(source),
        **source.common("parametric map", 902),
    )


def _segmentation(source: _Source, heat: npt.NDArray[np.float32]) -> Dataset:
    statement = source.statement
    algorithm = content.AlgorithmIdentificationSequence(
        name=statement.method,
        family=codes.DCM.ArtificialIntelligence,
        version=statement.version,
        parameters={"model": statement.model, "details": " ".join(statement.details)},
    )
    segment = seg.SegmentDescription(
        segment_number=1,
        segment_label=f"where {statement.diagnosis} was seen",
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=codes.DCM.Saliency,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    segment.SegmentDescription = "heat, share of the maximum; no probability; not for clinical use"
    return seg.Segmentation(
        _references(source),
        heat,
        segmentation_type="FRACTIONAL",
        segment_descriptions=[segment],
        fractional_type="PROBABILITY",
        sop_instance_uid=source.uid("segmentation"),
        instance_number=1,
        omit_empty_frames=bool(heat.any()),
        content_label="HEATMAP",
        content_description=statement.description,
        **_geometry(source),
        **source.common("segmentation", 903),
    )


def _save(dataset: Dataset, path: Path, source: _Source) -> None:
    """Writes an object without the moment of its making, and with UIDs that follow from what it is."""
    date, time = source.moment
    for item in (dataset, *_items(dataset)):
        for name, value in (("Date", date), ("Time", time)):
            for keyword in (f"InstanceCreation{name}", f"{name}OfSecondaryCapture"):
                if keyword in item:
                    setattr(item, keyword, value)
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
        if "DimensionOrganizationUID" in item:
            item.DimensionOrganizationUID = source.uid("dimensions", dataset.SOPClassUID)
    dataset.BodyPartExamined = "CHEST"  # LUNG, as some scanners say, would be one of a pair and ask for a side
    dataset.save_as(path, enforce_file_format=True)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """All items of all sequences, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)
