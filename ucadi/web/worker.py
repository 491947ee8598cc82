"""The process that opens an upload: `python -m ucadi.web.worker`, one job, within limits.

Its order comes as a line of JSON on stdin. It tells its steps, and how it ended, in lines of JSON on stdout. When
stdin ends, the server is gone, and so goes the worker: the next server does the job again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from ucadi.errors import UcadiError

FILE_BYTES = 16 << 30
"""Longest file that a worker may write; an archive of 8 GiB makes none that is longer."""


def main() -> None:
    """Reads the order, sets the limits, does the job."""
    order = json.loads(sys.stdin.buffer.readline())
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders print

    def tell(**said: Any) -> None:
        print(json.dumps(said), file=out, flush=True)

    limit(order["memory_bytes"], order["seconds"])
    threading.Thread(target=_end_with_server, daemon=True).start()
    try:
        from ucadi.web.diagnosis import Order, diagnose

        calibration = Path(order["calibration"]) if order["calibration"] else None
        paths = (Path(order["uploads"]), Path(order["results"]), Path.cwd(), Path(order["model"]))
        diagnose(Order(*paths, calibration, order["min_slices"], order["dicom"], order["diagnosis"]), tell)
    except UcadiError as error:
        tell(error=error.message, hint=error.hint)
    except MemoryError:
        tell(error="it takes too much memory", hint="upload one series, not a whole archive")
    except Exception as error:
        # what it says is left out, as it may quote the scan
        frame = traceback.extract_tb(error.__traceback__)[-1]
        tell(error=f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}", hint="please report it")
    else:
        tell(done=True)


def limit(memory_bytes: int, seconds: float) -> None:
    """Limits this process and all that it starts: memory, processor time, files. No core dumps: they hold pixels."""
    processor = int(seconds * (os.cpu_count() or 1)) + 1
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))
    os.umask(0o077)
    os.nice(5)


def _end_with_server() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock a thread at rest would keep from the interpreter's end
    os._exit(1)


if __name__ == "__main__":
    main()
