"""DICOM from an archive and to it, over DICOMweb (PS3.18) or the DICOM protocol (PS3.7, PS3.8)."""
