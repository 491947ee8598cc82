"""Times ucadi, SimpleITK and MONAI doing the same work on the same files, and measures the memory of each.

    python examples/benchmark_preprocess.py [--cases 6] [--slices 200] [--workers 2] [--data FOLDER]

The work: find the series in a folder, read it, turn it to LPS, clip at -1024 and 600 HU, shrink its slices to 128 x 128
by averaging. Everything runs in as many processes as --workers says, one thread each, each way in turn several times
over, on files that are in the page cache; medians are printed. Without --data the cases are phantoms of 512 x 512.
ucadi's own way beyond that (hash, observe, compress, write) is measured as the whole command.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ucadi.commands.phantom import phantom
from ucadi.commands.preprocess import preprocess
from ucadi.ct.reading.parallel import ReadJob, read_one
from ucadi.ct.reading.scan import Scan, read_scan

RUNS = 5
SIZE = 128
HU = (-1024, 600)


def by_ucadi(folder: Path) -> tuple[int, ...]:
    """As `ucadi preprocess` reads a scan, without what it observes in it."""
    return read_scan(folder, size=SIZE, min_slices=2).volume.hu.shape


def by_ucadi_with_observations(folder: Path) -> tuple[int, ...]:
    """With contrast, lungs and units, which the others do not look at."""
    scan = read_one(ReadJob(folder, SIZE, 2))
    assert isinstance(scan, Scan), scan
    return scan.volume.hu.shape


def by_simpleitk(folder: Path) -> tuple[int, ...]:
    """ImageSeriesReader, DICOMOrient, Clamp and BinShrink, which averages whole pixels and is the fastest way."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = SimpleITK.DICOMOrient(reader.Execute(), "LPS")
    columns, rows, _ = image.GetSize()
    image = SimpleITK.BinShrink(SimpleITK.Clamp(image, SimpleITK.sitkInt16, *HU), [columns // SIZE, rows // SIZE, 1])
    return SimpleITK.GetArrayFromImage(image).shape


def by_monai(folder: Path) -> tuple[int, ...]:
    """LoadImage with the pydicom reader, Orientation, a clip, and Resize by area."""
    import torch
    from monai.transforms import Compose, LoadImage, Orientation, Resize

    torch.set_num_threads(1)
    load = LoadImage(reader="PydicomReader", image_only=True, ensure_channel_first=True)
    volume = Compose([load, Orientation("LPS", labels=None)])(str(folder)).clip(*HU)
    small = Resize((SIZE, SIZE, volume.shape[3]), mode="area")(volume)
    return np.asarray(small.round().to(torch.int16))[0].transpose(2, 1, 0).shape


WAYS: dict[str, Callable[[Path], tuple[int, ...]]] = {
    "ucadi": by_ucadi,
    "ucadi, with observations": by_ucadi_with_observations,
    "SimpleITK": by_simpleitk,
    "MONAI": by_monai,
}


def main() -> None:
    """Prints the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", type=int, default=6)
    options.add_argument("--slices", type=int, default=200)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--data", type=Path, help="folder with a folder of DICOM files per case, instead of phantoms")
    options.add_argument("--memory-of", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.memory_of:
        way, folder = chosen.memory_of
        print(*WAYS[way](Path(folder)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pydicom", "SimpleITK", "monai", "torch"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as name:
        cases = chosen.data or Path(name) / "cases"
        if chosen.data is None:
            phantom(cases, patients=chosen.cases, slices=chosen.slices, workers=chosen.workers)
        throughput(cases, Path(name), chosen.workers)
        memory(cases, Path(name) / "study")


def throughput(cases: Path, folder: Path, workers: int) -> None:
    """Every way in turn, RUNS times, after one round that warms up processes and page cache."""
    folders = sorted(path for path in cases.iterdir() if path.is_dir())
    megabytes = sum(path.stat().st_size for path in cases.rglob("*") if path.is_file()) / 1e6
    context = get_context("spawn")
    pools = {way: ProcessPoolExecutor(workers, mp_context=context) for way in WAYS}
    shapes = {way: list(pools[way].map(WAYS[way], [*folders, *folders]))[: len(folders)] for way in WAYS}
    slices = sum(shape[0] for shape in shapes["ucadi"])
    seconds: dict[str, list[float]] = {way: [] for way in [*WAYS, COMMAND]}
    for _ in range(RUNS):
        for way, read in WAYS.items():
            seconds[way].append(timed(lambda way=way, read=read: list(pools[way].map(read, folders))))  # type: ignore[misc]
        run = partial(preprocess, cases, output=folder / "a.h5", unlabelled=True, workers=workers, force=True)
        seconds[COMMAND].append(timed(run))
    for pool in pools.values():
        pool.shutdown()
    print(f"\n{len(folders)} cases, {slices} slices, {megabytes:.0f} MB, {workers} processes:\n")
    print("| way | slices/s | MB/s | s, least to most |\n|---|---|---|---|")
    for way, times in seconds.items():
        alike = shapes.get(way, shapes["ucadi"]) == shapes["ucadi"]
        middle = statistics.median(times)
        note = "" if alike else " (other shapes)"
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"| {way}{note} | {slices / middle:.0f} | {megabytes / middle:.0f} | {spread} |")


COMMAND = "`ucadi preprocess`, starting its processes, to the written file"


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def memory(cases: Path, study: Path) -> None:
    """The most memory that a process has which reads one study of 1,000 slices of 512 x 512."""
    import pydicom

    study.mkdir()
    first = next(path for path in sorted(cases.iterdir()) if path.is_dir())
    files = sorted(first.iterdir())
    for number in range(1000):
        dataset = pydicom.dcmread(files[number % len(files)])
        position = [*dataset.ImagePositionPatient[:2], 0.5 * number]
        dataset.ImagePositionPatient, dataset.InstanceNumber = position, number + 1
        dataset.save_as(study / f"{number:04d}.dcm")
    print("\n| one study of 1,000 slices of 512 x 512 | memory at its peak, MB |\n|---|---|")
    for way in WAYS:
        command = [sys.executable, __file__, "--memory-of", way, str(study)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        *shape, kilobytes = done.stdout.split()
        note = "" if shape == ["1000", str(SIZE), str(SIZE)] else f" (shape {' x '.join(shape)})"
        print(f"| {way}{note} | {int(kilobytes) / 1000:.0f} |")


if __name__ == "__main__":
    main()
