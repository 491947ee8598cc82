"""A mutation run: does a test fail for each small change of the heart of the program?

    pip install 'mutmut>=3.8'
    python tests/mutation.py lwe
    python tests/mutation.py lwe --folder F    # keep the run; the next one in F tries the survivors again

One run takes minutes. It works on a copy and reads `mutation_equivalents.toml`: changes that no test can see, each with
its reason. mutmut leaves properties, other decorated functions and constants of modules as they are.

The score is killed / (mutants - wording - equivalents). A mutant changes the wording if nothing differs but text that
an error is given, or that is its hint.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.toml")
COPIED = ("ucadi", "tests", "docs", "examples", "pyproject.toml")

TESTS = {
    "lwe": ("scheme", "ring", "shamir", "vectors"),
    "fed": ("fixedpoint", "update", "plan", "robust", "server_optimisers"),
    "splitting.py": ("splitting",),
    "ct/reading/stack.py": ("stack",),
    "ct/reading/series.py": ("series", "dicomdir"),
    "scoring/metrics.py": ("metrics",),
    "formats/container.py": ("container",),
    "relay/store.py": ("relay_store",),
    "identity.py": ("identity",),
    "rounds": ("round",),
}
"""For each part of the heart the tests that are to notice its changes: fast, and in the process itself."""

UNNOTICED = (0, 5, 33)
"""How pytest ends if all tests pass or there is none, and what mutmut writes if none runs the function."""

FAILED = (1, 3)
"""How pytest ends if a test fails. A crash or a timeout is noticed too, but a busy machine makes some too."""

# Failing examples need not be small, and a run should find what the last one found.
PROFILE = """
from hypothesis import Phase, settings

settings.register_profile(
    "mutation", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("mutation")
"""


@dataclass(frozen=True)
class Mutant:
    """One change: its name in mutmut, the function, the removed and added lines, and what became of it.

    killed: something noticed it; failed: and that was a test which failed. wording: it changes nothing else.
    """

    name: str
    function: str
    removed: str
    added: str
    killed: bool
    failed: bool
    wording: bool

    @property
    def key(self) -> str:
        """What stands for it in the list of equivalents."""
        return self.added or f"without {self.removed}"


def prepare(folder: Path, part: str) -> None:
    """Copies the tree, with mutmut's configuration for one part. What was found in `folder` before stays."""
    for name in COPIED:
        source, copy = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "out"))
        else:
            shutil.copy2(source, copy)
    settings = {
        "source_paths": [f"ucadi/{part}"],
        "also_copy": COPIED,
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": [
            str(next(ROOT.glob(f"tests/**/test_{name}.py")).relative_to(ROOT)) for name in TESTS[part]
        ],
        "timeout_multiplier": 15.0,
        "timeout_constant": 4.0,
    }
    with (folder / "pyproject.toml").open("a") as file:
        lines = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))
    with (folder / "tests/conftest.py").open("a") as file:
        file.write(PROFILE)


def records(folder: Path, part: str) -> Iterator[tuple[Path, Path]]:
    """The mutated modules of a part, each with mutmut's record of what became of its mutants."""
    source = folder / "ucadi" / part
    for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        mutated = folder / "mutants" / path.relative_to(folder)
        record = mutated.with_name(mutated.name + ".meta")
        if record.exists():
            yield mutated, record


def forget_survivors(folder: Path, part: str) -> None:
    """Lets mutmut try those again in which no test failed, and find anew which tests run them."""
    (folder / "mutants/mutmut-stats.json").unlink(missing_ok=True)
    for _, record in records(folder, part):
        known = json.loads(record.read_text())
        codes = known["exit_code_by_key"]
        known["exit_code_by_key"] = {name: code if code in FAILED else None for name, code in codes.items()}
        record.write_text(json.dumps(known))


def run(folder: Path, processes: int) -> None:
    """Runs mutmut; its output goes to a file, as its progress is megabytes."""
    log = folder / "mutmut.log"
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes)]
    # pytest starts for every mutant, and loading its plugins takes longer than most tests
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with log.open("wb") as output:
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if ended.returncode:
        sys.exit(f"mutmut failed: see {log}")


def results(folder: Path, part: str) -> Iterator[Mutant]:
    """The mutants of a part that have been tried."""
    for mutated, record in records(folder, part):
        functions = {n.name: n for n in ast.walk(ast.parse(mutated.read_text())) if isinstance(n, ast.FunctionDef)}
        for name, code in json.loads(record.read_text())["exit_code_by_key"].items():
            if code in (None, 2):
                sys.exit(f"{name} has not been tried: see {folder / 'mutmut.log'}")
            module, _, mangled = name.rpartition(".")
            stem = mangled.partition("__mutmut_")[0]
            before, after = functions[f"{stem}__mutmut_orig"], functions[mangled]
            before.name = after.name = stem.removeprefix("x_").rpartition("ǁ")[2]
            removed, added = changed_lines(before, after)
            function = f"{module}.{stem.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"
            yield Mutant(
                name, function, removed, added, code not in UNNOTICED, code in FAILED, only_wording(before, after)
            )


def changed_lines(before: ast.FunctionDef, after: ast.FunctionDef) -> tuple[str, str]:
    """The lines that differ, each statement written in one line."""
    lines = list(difflib.ndiff(ast.unparse(before).splitlines(), ast.unparse(after).splitlines()))
    removed, added = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    return " ".join(removed), " ".join(added)


def only_wording(before: object, after: object, told: bool = False) -> bool:
    """Whether two syntax trees differ in nothing but text that an error or an assertion is given, or that is a hint."""
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(only_wording(*pair, told) for pair in zip(before, after, strict=True))
    if not isinstance(before, ast.AST) or type(before) is not type(after):
        return before == after
    if isinstance(before, ast.Constant) and isinstance(after, ast.Constant):
        both_text = isinstance(before.value, str) and isinstance(after.value, str)
        return before.value == after.value or (told and both_text)
    if isinstance(before, ast.Call):
        told = told or ast.unparse(before.func).endswith("Error")
    if isinstance(before, ast.keyword):
        told = told or before.arg == "hint"
    return all(
        only_wording(
            getattr(before, name), getattr(after, name), told or (isinstance(before, ast.Assert) and name == "msg")
        )
        for name in before._fields
    )


def report(part: str, mutants: list[Mutant]) -> int:
    """Prints what was found; the exit code says whether the list of equivalents is true."""
    listed = {
        (function, key): reason
        for function, entries in tomllib.loads(EQUIVALENTS.read_text()).items()
        for key, reason in entries.items()
    }
    survivors = [mutant for mutant in mutants if not mutant.killed]
    wording = [mutant for mutant in survivors if mutant.wording]
    equivalent = [m for m in survivors if not m.wording and (m.function, m.key) in listed]
    for mutant in survivors:
        if mutant not in wording and mutant not in equivalent:
            print(f"{mutant.name}\n  - {mutant.removed}\n  + {mutant.added}")
    module = "ucadi." + part.removesuffix(".py").replace("/", ".") + "."
    seen = {(m.function, m.key) for m in survivors}
    stale = [
        f"{function}: {key}" for function, key in listed if function.startswith(module) and (function, key) not in seen
    ]
    killed = len(mutants) - len(survivors)
    counted = len(mutants) - len(wording) - len(equivalent)
    unsure = sum(mutant.killed and not mutant.failed for mutant in mutants)
    print(
        f"{part}: {len(mutants)} mutants, {killed} killed ({unsure} by a timeout or crash), {len(survivors)} survived: "
        f"{len(wording)} change only the wording, {len(equivalent)} are equivalent; score {killed / counted:.3f}"
    )
    for line in stale:
        print(f"listed as equivalent, but no survivor: {line}")
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(TESTS))
    parser.add_argument("--folder", type=Path, help="work here and keep it; survivors of a run in it are tried again")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        prepare(folder, options.part)
        forget_survivors(folder, options.part)
        run(folder, options.processes)
        return report(options.part, list(results(folder, options.part)))


if __name__ == "__main__":
    sys.exit(main())
