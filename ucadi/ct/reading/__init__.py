"""What comes in: DICOM series and NIfTI files, read or refused with a reason."""
