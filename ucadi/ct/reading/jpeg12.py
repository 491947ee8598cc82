"""JPEG with 12 bits a sample, which pydicom's plug-ins do not decode: by imagecodecs, an extra of the package.

Old archives hold it: the extended process, and the two progressive ones that DICOM retired.

Source: DICOM PS3.5 A.4.1 and 10.10; ITU-T T.81.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from ucadi.parts import Feature

SYNTAXES = {"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"}


def is_available() -> bool:
    """Whether imagecodecs is installed."""
    return not Feature.JPEG12.missing


def decode(dataset: Dataset, frame: int) -> npt.NDArray[np.integer]:
    """The stored values of a frame, (row, column), 16 bits with the signedness of Pixel Representation."""
    import imagecodecs

    image = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    stored = np.asarray(imagecodecs.jpeg_decode(image)).astype(np.uint16)
    return stored.view(np.int16) if dataset.get("PixelRepresentation") == 1 else stored
