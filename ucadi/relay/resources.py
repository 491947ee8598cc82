"""What the relay's process asks of its operating system: open files, and memory taken and given back."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path


def allow_open_files(count: int) -> None:
    """Raises the soft limit of open files as far as allowed: at the limit, libzmq can accept nobody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
