"""The demo: from nothing to a page, with the model that the package brings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from commandline import ucadi
from places import ROOT

from ucadi.demo.demo import MODEL, demo
from ucadi.formats import dataset, predictions
from ucadi.formats import weights as weights_format

DIGEST = "1ff06436441f7e94164a20b2aeb2a285b146220fbf331c7269258049751b7b33"
"""Stated in examples/demo-model.sh, which made the model."""


def test_the_model_is_the_one_whose_figures_are_stated() -> None:
    model = weights_format.read(MODEL)
    assert model.digest == DIGEST
    assert DIGEST in (ROOT / "examples/demo-model.sh").read_text()
    assert model.origin["examples"] == 256


def test_one_command_from_nothing_to_a_page(tmp_path: Path) -> None:
    result = demo(output=tmp_path / "shown", patients=8)
    assert str(result).endswith(str(tmp_path / "shown/index.html"))
    assert result.cases == 8
    page = (tmp_path / "shown/index.html").read_text()
    assert result.auc is not None
    assert f"{result.auc:.3f}" in page
    assert page.count('src="data:image/png;base64,') == 3
    assert ".part" not in page, "names of the temporary folder"
    assert not list(tmp_path.glob(".*")), "the temporary folder itself"
    for target in re.findall(r'href="([^"]+)"', page):
        assert (tmp_path / "shown" / target).exists(), target

    held = predictions.read(tmp_path / "shown/predictions/demo-model/demo.predictions")
    with dataset.open(tmp_path / "shown/demo.h5") as data:
        assert tuple(data.ids) == held.cases

    commands = [line for line in re.findall(r"<td>(ucadi [^<]+)</td>", page) if " predict " in line]
    again = ucadi(*shlex.split(commands[0])[1:], "--force", cwd=tmp_path / "shown")
    assert again.returncode == 0, again.stderr
    assert predictions.read(tmp_path / "shown/predictions/demo-model/demo.predictions").cases == held.cases


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "ucadi-demo").mkdir()
    (tmp_path / "ucadi-demo" / "mine.txt").write_text("mine")
    result = ucadi("demo", cwd=tmp_path)
    assert result.returncode == 7
    assert "exists already" in result.stderr
    assert (tmp_path / "ucadi-demo" / "mine.txt").read_text() == "mine"
