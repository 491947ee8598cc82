"""Memory: encrypting, adding and opening a model of any size take what a small one takes, beside mapped files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, make_federation
from series import save, slice_dataset

VALUES = 30_000_000
MODEL_BYTES = 4 * VALUES
ROOM_BYTES = 48 << 20
"""What a command may allocate beside the files that it maps: well below the model."""

LIMITED = """
import importlib, resource, sys
import ucadi.cli

importlib.import_module(f"ucadi.commands.{sys.argv[2]}")  # its code is loaded late, and is not what is measured

status = dict(line.split(":") for line in open("/proc/self/status"))
limit = 1024 * int(status["VmData"].split()[0]) + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
ucadi.cli.main()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    shapes = {"a": (VALUES // 2,), "b": (VALUES // 4, 1), "c": (VALUES // 4,)}
    return make_federation(tmp_path_factory.mktemp("large"), shapes=shapes)


def run(federation: Federation, command: str, inputs: list[Path], output: str, key: str = "", *, room: int) -> Path:
    """Runs a command that can allocate only `room` bytes more than it has when it begins."""
    path = federation.folder / output
    options = ["--plan", federation.plan, "--roster", federation.roster, "--output", path]
    if key:
        options += ["--key", federation.key(key)]
    arguments = map(str, [room, command, *inputs, *options])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return path


STUDY = """
import resource, sys
from pathlib import Path
from ucadi.ct.reading.parallel import ReadJob, Scan, read_one

resource.setrlimit(resource.RLIMIT_DATA, (1_000_000_000, 1_000_000_000))
scan = read_one(ReadJob(Path(sys.argv[1]), 128, 40))
assert isinstance(scan, Scan), scan
assert scan.volume.hu.shape == (1000, 128, 128)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits what a process may allocate as Linux does")
def test_a_study_of_a_thousand_slices_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (512, 512)).astype(np.int16)
    for number in range(1000):
        save(tmp_path, [slice_dataset(hu, (0, 0, 0.5 * number))], [f"{number}.dcm"])
    done = subprocess.run([sys.executable, "-c", STUDY, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


MANY_FILES = """
import resource
import ucadi.cli

resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
ucadi.cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_more_uploads_than_a_process_begins_with_room_for(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, [f"site-{i:02}" for i in range(60)], shapes={"a": (5,)})
    federation.encrypt_all()
    options = ["--plan", federation.plan, "--roster", federation.roster, "--key", federation.key("coordinator")]
    arguments = ["aggregate", *federation.ciphertexts, *options, "--output", tmp_path / "sum.enc"]
    done = subprocess.run([sys.executable, "-c", MANY_FILES, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "sum.enc").exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits what a process may allocate as Linux does")
def test_a_round_of_a_large_model_in_little_memory(large: Federation) -> None:
    for site in large.sites:
        run(large, "encrypt", [large.update(site)], f"{site}.enc", site, room=ROOM_BYTES)
    total = run(large, "aggregate", large.ciphertexts, "sum.enc", "coordinator", room=ROOM_BYTES)
    opened = run(large, "decrypt", [total], "opened", "site-a", room=ROOM_BYTES)
    # these two hold their result, and nothing else of its size
    added = run(large, "aggregate", large.updates, "added", room=MODEL_BYTES + ROOM_BYTES)
    run(large, "apply", [large.base, opened], "next.weights", room=MODEL_BYTES + ROOM_BYTES)
    assert opened.read_bytes() == added.read_bytes()
    with pytest.raises(AssertionError, match="MemoryError"):  # the limit is one
        run(large, "apply", [large.base, opened], "again.weights", room=ROOM_BYTES)
