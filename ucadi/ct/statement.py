"""What a heatmap's pictures and DICOM objects say of themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeatmapDescription:
    """diagnosis, method: as words. model: SHA-256 in hex of the weights. version: of ucadi. details: whatever else
    decides what the heatmap is; objects of equal statements about one series have equal UIDs."""

    diagnosis: str
    probability: float
    method: str
    model: str
    version: str
    details: tuple[str, ...]

    @property
    def description(self) -> str:
        """At most 64 characters, DICOM's limit of a description."""
        return f"{self.method} of {self.diagnosis}, not for clinical use"

    @property
    def title(self) -> tuple[str, str]:
        """Two lines for a picture."""
        return (
            f"{self.method} of {self.diagnosis}, probability {self.probability:.2f}",
            f"model {self.model[:12]}, ucadi {self.version}",
        )
