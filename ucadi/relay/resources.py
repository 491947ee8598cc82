"""What the relay's process asks of its operating system: memory taken and given back."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def return_memory() -> None:
    """Gives freed memory back to the system, where its C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
