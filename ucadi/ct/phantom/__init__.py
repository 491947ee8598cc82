"""Synthetic thorax CTs: patients, diseases, scanners, and their series as DICOM."""
