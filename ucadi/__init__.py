"""Federated learning for chest CT: encrypted rounds as files, from DICOM to heatmap."""

__version__ = "0.1.0"
