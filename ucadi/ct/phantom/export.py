"""Writes synthetic scans as CT Image Storage instances (DICOM PS3.3 A.3, C.8.2.1), as the scanner would send them.

All identifiers follow from the seed and all dates are fixed, so equal plans give equal bytes. Names, ids and
institutions are made up, but sit where a real scanner puts them: whatever reads these files must drop them.
Quality Control Image (0028,0300) marks every instance as that of a phantom.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ucadi.ct.phantom.cohort import PatientPlan, Visit, scan_patient
from ucadi.ct.phantom.patient import Patient, PhantomScan
from ucadi.ct.phantom.scanner import INTERCEPT
from ucadi.ct.reading import nifti

FIRST_DAY = date(2020, 1, 7)
TABLE_TOP_MM = -310.0
"""z of the patient's zero in the scanner's frame of reference."""

IMPLEMENTATION_UID = generate_uid(entropy_srcs=["ucadi", "phantom"])
REMARK = "Synthetic phantom, not a real patient"


def write_patient(folder: Path, plan: PatientPlan, masks: Path | None = None) -> None:
    """Scans a patient into `folder`/<case>/*.dcm, and the true lesions into `masks`/<case>.nii.gz if asked."""
    for patient, visit, scan in scan_patient(plan):
        case = plan.case(visit)
        write_series(folder / case, scan, _header(plan, patient, visit, scan), (str(plan.seed), case))
        if masks is not None:
            write_mask(masks / f"{case}.nii.gz", scan)


def write_series(folder: Path, scan: PhantomScan, header: Dataset, entropy: Sequence[str]) -> None:
    """One file per slice; `header` holds what all have in common."""
    folder.mkdir()
    scanner = scan.protocol.scanner
    count = len(scan.hu)
    x, y = scan.protocol.origin
    common = _encoded(header)
    for level, (hu, z) in enumerate(zip(scan.hu, scan.z_mm, strict=True)):
        number = count - level if scanner.head_first else level + 1
        uid = generate_uid(entropy_srcs=[*entropy, "instance", str(number)])
        position = round(float(z) + TABLE_TOP_MM, 3)
        instance = Dataset()
        instance.SOPInstanceUID = uid
        instance.InstanceNumber = number
        instance.ImagePositionPatient = [round(x, 6), round(y, 6), position]
        instance.SliceLocation = position
        instance.add_new("PixelData", "OW", (hu - np.int16(INTERCEPT)).tobytes())
        header.file_meta.MediaStorageSOPInstanceUID = uid
        name = f"{uid[-16:]}.dcm" if scanner.scrambled_names else f"IM{number:04d}.dcm"
        elements = common | _encoded(instance)
        body = b"".join(elements[tag] for tag in sorted(elements))
        (folder / name).write_bytes(_preamble(header.file_meta) + body)


def _encoded(dataset: Dataset) -> dict[int, bytes]:
    """Each element of a data set by its tag, as Explicit VR Little Endian.

    So what all slices have in common is encoded once, and a slice costs only the elements that are its own.
    """
    encoded = {}
    for element in dataset:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element)
        encoded[int(element.tag)] = buffer.getvalue()
    return encoded


def _preamble(meta: FileMetaDataset) -> bytes:
    """The start of a DICOM file (PS3.10 7.1): preamble, prefix and file meta information."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue()


def write_mask(path: Path, scan: PhantomScan) -> None:
    """The true lesions as NIfTI, 1 where the lung is ill, in the geometry of the series."""
    protocol = scan.protocol
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = protocol.spacing, protocol.pixel, protocol.pixel
    affine[:, 3] = *protocol.origin, float(scan.z_mm[0]) + TABLE_TOP_MM, 1
    nifti.write(path, scan.lesions.astype(np.uint8), affine)


def _header(plan: PatientPlan, patient: Patient, visit: Visit, scan: PhantomScan) -> Dataset:
    """What all instances of the series have in common."""
    entropy = (str(plan.seed), plan.patient)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    header.SOPClassUID = CTImageStorage
    header.StudyInstanceUID = generate_uid(entropy_srcs=[*entropy, "study", str(visit.number)])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[*entropy, "series", str(visit.number)])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[*entropy, "frame", str(visit.number)])
    _describe_patient(header, plan, patient, visit)
    _describe_acquisition(header, plan, visit, scan)
    _describe_pixels(header, scan)
    return header


def _describe_patient(header: Dataset, plan: PatientPlan, patient: Patient, visit: Visit) -> None:
    first_day = FIRST_DAY + timedelta(days=(plan.number * 37) % 300)
    day = (first_day + timedelta(days=visit.day)).strftime("%Y%m%d")
    header.PatientName = f"PHANTOM^{plan.site.upper()}^{plan.number:04d}"
    header.PatientID = f"PH{plan.patient}"
    header.PatientBirthDate = f"{first_day.year - patient.habitus.age}0101"
    header.PatientSex = "F" if patient.habitus.female else "M"
    header.PatientAge = f"{patient.habitus.age:03d}Y"
    header.PatientComments = REMARK
    header.QualityControlImage = "YES"
    header.InstitutionName = f"Phantom Hospital {plan.site}"
    header.ReferringPhysicianName = "PHANTOM^PHYSICIAN"
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = day
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = "103000"
    header.StudyID = str(visit.number)
    header.AccessionNumber = f"A{plan.number:05d}{visit.number:02d}"


def _describe_acquisition(header: Dataset, plan: PatientPlan, visit: Visit, scan: PhantomScan) -> None:
    protocol, scanner = scan.protocol, scan.protocol.scanner
    low, high = scanner.tube_current_ma
    current = low + (plan.number * 7919 + visit.number) % (high - low)
    header.Modality = "CT"
    header.Manufacturer = scanner.manufacturer
    header.ManufacturerModelName = scanner.model
    header.StationName = scanner.station
    header.StudyDescription = "Chest CT (phantom)"
    contrast = bool(protocol.contrast_hu)
    header.SeriesDescription = f"Chest {protocol.thickness:g} mm {scanner.kernel}{' CE' if contrast else ''}"
    header.ProtocolName = "Chest"
    header.BodyPartExamined = "CHEST"
    header.PatientPosition = "HFS"
    header.PositionReferenceIndicator = ""
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.ImageComments = REMARK
    header.SeriesNumber = 2
    header.AcquisitionNumber = 1
    header.KVP = scanner.kvp
    header.XRayTubeCurrent = current
    header.ExposureTime = 500
    header.Exposure = current // 2
    header.ConvolutionKernel = scanner.kernel
    header.ReconstructionDiameter = protocol.field_of_view
    header.SliceThickness = protocol.thickness
    header.SpacingBetweenSlices = protocol.spacing
    header.GantryDetectorTilt = 0
    header.RotationDirection = "CW"
    if contrast:
        header.ContrastBolusAgent = "IODINE (SIMULATED)"
        header.ContrastBolusRoute = "IV"


def _describe_pixels(header: Dataset, scan: PhantomScan) -> None:
    scanner = scan.protocol.scanner
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = scan.hu.shape[1:]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 1
    if scanner.padding is not None:
        header.add_new("PixelPaddingValue", "SS", scanner.padding)
    header.PixelSpacing = [round(scan.protocol.pixel, 6)] * 2
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.RescaleIntercept = INTERCEPT
    header.RescaleSlope = 1
    header.RescaleType = "HU"
    header.WindowCenter = [-600, 40]
    header.WindowWidth = [1500, 400]
    header.BurnedInAnnotation = "NO"
