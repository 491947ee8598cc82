"""The long fuzz: every reader against as many mutants as there is time for. Not collected by pytest.

    python tests/fuzz.py --minutes 60 --start 0 --keep faults [--only dataset ...] [--coverage TARGET]

Mutants follow from their numbers, so a run goes on where another ended: --start. A fault is kept as a file and counted,
and the run goes on; what kills the process itself is the newest `*.mutant` in its folder. With --coverage, atheris
(`pip install atheris`) chooses the inputs of one target by the branches of `ucadi` that they reach.

What is counted: one input is one file that one reader was given. Of `dataset`, one process surveys up to 100 of them:
see `surveys.py`. Signatures of mutants are real, by the key of an insider, in most of what is signed.
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

if "--coverage" in sys.argv:  # what is to be instrumented must not be loaded yet
    import atheris

    with atheris.instrument_imports(include=["ucadi"]):
        importlib.import_module("fuzz_targets")

from fuzz_targets import make_targets
from fuzzing import HangError, Outcome, Target, mutant, try_one
from surveys import surveyor

BATCH = 200
"""Mutants of one target before the next one has its turn."""


def main() -> int:
    """Runs it and prints the figures; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder for inputs that are faults")
    parser.add_argument("--only", nargs="*", help="names of targets")
    parser.add_argument("--coverage", metavar="TARGET", help="guide this target's inputs by coverage")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    np.seterr(all="raise")
    with tempfile.TemporaryDirectory(prefix="ucadi-fuzz-") as folder, surveyor() as running:
        targets = make_targets(Path(folder) / "sound", running)
        if options.coverage:
            return _guided(targets[options.coverage], Path(folder), options.minutes, options.keep)
        chosen = {name: target for name, target in targets.items() if not options.only or name in options.only}
        return _run(chosen, Path(folder), options.minutes, options.start, options.keep)


def _run(targets: dict[str, Target], folder: Path, minutes: float, start: int, keep: Path) -> int:
    outcomes = {name: Outcome() for name in targets}
    for name in targets:
        (folder / f"{name}.mutant").touch(0o600)  # a key that others can read is not read
    faults: Counter[str] = Counter()
    end, number = time.monotonic() + 60 * minutes, start
    while time.monotonic() < end:
        for name, target in targets.items():
            for one in range(number, number + BATCH):
                data = mutant(target, random.Random(f"{name}:{one}"))
                _read(target, data, folder / f"{name}.mutant", outcomes[name], faults, keep)
        number += BATCH
        _print(outcomes, faults, number)
    return int(bool(faults))


def _read(target: Target, data: bytes, path: Path, outcome: Outcome, faults: Counter[str], keep: Path) -> None:
    path.write_bytes(data)
    try:
        try_one(target, path, outcome)
    except (Exception, HangError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{target.name}: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
        if not faults[fault]:
            (keep / f"{target.name}-{type(error).__name__}-{frame.lineno}").write_bytes(data)
            traceback.print_exc()
        faults[fault] += 1


def _print(outcomes: dict[str, Outcome], faults: Counter[str], number: int) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    total = sum(outcome.inputs for outcome in outcomes.values())
    print(f"\nmutants to {number}; {total:,} inputs, {sum(faults.values())} faults, memory at most {memory} MiB")
    for name, outcome in outcomes.items():
        refused = ", ".join(f"{count} {kind}" for kind, count in outcome.refused.most_common())
        print(f"  {name:24}{outcome.inputs:>9,}, read {outcome.accepted}, {refused}; slowest {outcome.slowest:.2f} s")
    for fault, count in faults.most_common():
        print(f"  FAULT {fault}: {count}")
    sys.stdout.flush()


def _guided(target: Target, folder: Path, minutes: float, keep: Path) -> int:
    corpus, path, outcome = folder / "corpus", folder / "guided", Outcome()
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)

    def test_one(data: bytes) -> None:
        path.write_bytes(data)
        try_one(target, path, outcome)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        made: bytes = mutant(Target(target.name, (data, *target.seeds), target.read, target.keys), rng)[:most]
        return made

    limits = [f"-max_total_time={int(60 * minutes)}", "-max_len=65536", "-rss_limit_mb=1024", "-timeout=10"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={keep}/", str(corpus)], test_one, custom_mutator=mutate)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
