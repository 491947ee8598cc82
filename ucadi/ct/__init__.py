"""Computed tomography as numpy arrays: volumes, DICOM, NIfTI, sampling, phantoms."""
