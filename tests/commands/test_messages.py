"""What people and programs are told: errors as JSON, closed pipes, full disks, verdicts, one update for one plan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commandline import ucadi
from exchanges import Rounds
from federation import Federation, make_federation
from looping import make_hub

from ucadi.commands.aggregate import aggregate
from ucadi.commands.audit import audit
from ucadi.commands.encrypt import encrypt
from ucadi.commands.evaluate import table
from ucadi.commands.verify import verify
from ucadi.errors import FormatError, MismatchError, SignatureError, UsageError
from ucadi.events import Events
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats import schedules
from ucadi.formats import update as update_format
from ucadi.formats.container import file_digest
from ucadi.identity import check_name
from ucadi.scoring.metrics import evaluate as metrics_of

COMMAND = [sys.executable, "-c", "from ucadi.cli import main; main()"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    federation = make_federation(tmp_path_factory.mktemp("federation"))
    federation.encrypt_all()
    return federation


@pytest.fixture(scope="module")
def total(made: Federation) -> Path:
    output = made.folder / "sum.enc"
    signed = {"plan": made.plan, "roster": made.roster}
    aggregate(made.ciphertexts, key=made.key("coordinator"), output=output, **signed)
    return output


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("inspect", "missing", "--json"), 3, "format"),
        (("keygen", "St. Mary's", "--json"), 2, "usage"),
        (("keygen", "--json"), 2, "usage"),
        (("inspect", "--nonsense", "x", "--json"), 2, "usage"),
        (("--json", "trian"), 2, "usage"),
        (("evaluate", "x", "--threshold", "50", "--json"), 2, "usage"),
    ],
)
def test_an_error_for_programs_is_one_object(tmp_path: Path, arguments: tuple[str, ...], code: int, kind: str) -> None:
    result = ucadi(*arguments, cwd=tmp_path)
    told = json.loads(result.stderr)
    assert result.stdout == ""
    assert set(told) == {"kind", "code", "message", "hint"}
    assert (told["kind"], told["code"], result.returncode) == (kind, code, code)


def test_progress_is_no_part_of_what_programs_read(made: Federation, tmp_path: Path) -> None:
    result = ucadi(
        "encrypt", made.update("site-a"), "--plan", made.plan, "--roster", made.roster, "--key", made.key("site-a"),
        "-o", tmp_path / "a.enc", "--json",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["site"] == "site-a"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["roster", "show", "federation.json"], 141)])
def test_a_reader_that_goes_away_is_no_fault(made: Federation, arguments: list[str], code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, cwd=made.folder, timeout=120
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (code, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["roster", "show", "federation.json"]])
def test_a_full_disk_behind_stdout_is_an_error(made: Federation, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=made.folder, timeout=120
        )
    assert result.returncode == 7
    assert result.stderr.startswith("ucadi: error: standard output: not written: No space left on device\n")
    assert "Traceback" not in result.stderr


def test_an_update_belongs_to_one_plan(made: Federation, tmp_path: Path) -> None:
    """Two rounds from one base, as after a void one: what was trained in the first is not for the second."""
    second = tmp_path / "plan2.json"
    made.open_round(2, second)
    update = update_format.read_update(made.update("site-a"))
    fields = {name: getattr(update, name) for name in ("site", "base", "examples", "epochs", "deltas")}
    trained = tmp_path / "a.update"
    update_format.write_update(trained, update_format.Update(**fields, plan=file_digest(made.plan)))
    key = made.key("site-a")
    encrypt(trained, plan=made.plan, roster=made.roster, key=key, output=tmp_path / "first.enc")
    with pytest.raises(MismatchError, match="trained under another plan") as caught:
        encrypt(trained, plan=second, roster=made.roster, key=key, output=tmp_path / "second.enc")
    assert "never encrypt one update for two rounds" in (caught.value.hint or "")
    with pytest.raises(MismatchError, match="encrypted for another round") as caught:
        verify([tmp_path / "first.enc"], plan=second, roster=made.roster)
    assert "encrypt again" not in (caught.value.hint or "")


def test_what_is_mixed_among_uploads_is_named(made: Federation, total: Path, tmp_path: Path) -> None:
    signed = {"plan": made.plan, "roster": made.roster, "key": made.key("coordinator")}
    with pytest.raises(FormatError, match=r"site-b\.update is an update, not an encrypted update"):
        aggregate([*made.ciphertexts, made.update("site-b")], output=tmp_path / "x", **signed)
    with pytest.raises(FormatError, match=r"sum\.enc is an encrypted sum, not an encrypted update"):
        aggregate([*made.ciphertexts, total], output=tmp_path / "x", **signed)
    again = tmp_path / "sum.enc"
    shutil.copy(total, again)
    aggregate([*made.ciphertexts, again], output=again, force=True, **signed)  # as *.enc has it, run again
    assert file_digest(again) == file_digest(total)


def test_a_secret_key_in_place_of_a_card_is_said_to_be_one(made: Federation) -> None:
    with pytest.raises(SignatureError, match=r"site-a\.key is a secret key, not a card") as caught:
        key_format.read_card(made.key("site-a"))
    assert "make a new one" in (caught.value.hint or "")


@pytest.mark.parametrize("change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text])
def test_line_endings_that_a_transfer_changed_are_named(made: Federation, tmp_path: Path, change: object) -> None:
    path = tmp_path / "federation.json"
    path.write_bytes(change(made.roster.read_bytes()))  # type: ignore[operator]
    with pytest.raises(FormatError, match="its line endings were changed, or a byte order mark added"):
        roster_format.read(path)


@pytest.mark.parametrize(("name", "proposal"), [("St Mary's", "st-marys"), ("münchen", "munchen"), ("A_B", "a-b")])
def test_a_name_that_cannot_be_is_answered_with_one_that_can(name: str, proposal: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert (caught.value.hint or "").endswith(f": {proposal}, for example")
    check_name(proposal)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('learning_rate = "0.05"', "learning_rate is the text '0.05'", "no quotes"),
        ("learning_rat = 0.05", "there is no 'learning_rat'", "did you mean learning_rate"),
        ("batch_size = 2.5", "batch_size is 2.5", "whole number"),
        ("balanced = 1", "balanced is 1", "true"),
        ("learning_rate = 0,05", "not TOML", "learning_rate = 0.05"),
    ],
)
def test_a_recipe_is_answered_as_what_a_person_wrote(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        schedules.read_recipe(path)
    assert hint in (caught.value.hint or "")


def test_verify_says_how_far_it_went(made: Federation, total: Path) -> None:
    signed = {"plan": made.plan, "roster": made.roster}
    everything = verify([total, *made.ciphertexts], **signed)
    assert (everything.verdict, everything.exit_code) == ("verified", 0)
    part = verify([total, made.ciphertext("site-a")], **signed)
    assert (part.verdict, part.exit_code) == ("signature-only", 10)
    assert part.verdicts == {"sum.enc": "signature-only", "site-a.enc": "verified"}
    unsigned = verify([made.update("site-a")], **signed)
    assert (unsigned.verdict, unsigned.exit_code) == ("not-recomputed", 10)
    result = ucadi("verify", total, "--plan", made.plan, "--roster", made.roster, "--json")
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (10, "signature-only")


def test_audit_says_how_far_it_went(tmp_path: Path) -> None:
    (tmp_path / "federation").mkdir()
    rounds = Rounds.begin(make_federation(tmp_path / "federation"), tmp_path / "exchange")
    rounds.play(1)
    rounds.play(2)
    sound = audit(rounds.exchange.root)
    assert (sound.verdict, sound.exit_code) == ("verified", 0)
    (whole,) = [verify([rounds.exchange.root]).verdict]
    assert whole == "verified"
    shutil.rmtree(rounds.exchange.root / "rounds/0001/opened")
    (rounds.exchange.uploads(2) / "site-a.enc").unlink()
    less = audit(rounds.exchange.root)
    assert (less.verdict, less.exit_code) == ("signature-only", 10)
    assert [one.base_verdict for one in less.rounds] == ["verified", "signature-only"]
    assert [one.sum_verdict for one in less.rounds] == ["verified", "signature-only"]
    assert verify([rounds.exchange.root]).verdicts == {"1": "verified", "2": "signature-only"}


def test_the_loops_say_when_whom_they_wait_for_and_that_they_are_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = make_hub(tmp_path / "hub", rounds=1)
    log = tmp_path / "coordinator.log"
    hub.site("site-a")
    hub.coordinate(log=log)
    model = hub.play()
    site = hub.site("site-a")
    assert (site.over, site.waiting_for) == (True, None)
    assert "the schedule is over" in str(site)
    latest = hub.work("site-a") / "latest.weights"
    assert site.latest == latest
    assert file_digest(latest) == model
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"event": "upload", "round": 1, "site": "site-a"}.items() <= told[0].items()
    for line in told:
        assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    assert log.stat().st_mode & 0o077 == 0
    capsys.readouterr()


def test_an_event_is_told_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    Events(as_json=False)("waiting", {"for": "uploads", "of": ("site-a", "site-b")})
    when, *rest = capsys.readouterr().err.split()
    assert when.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()) < 60
    assert rest == ["waiting", "for=uploads", "of=site-a,site-b"]


def test_the_table_of_a_short_name_is_straight() -> None:
    report = metrics_of([0, 1, 2, 3], [[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]] * 2, 0.5, "wilson")
    _, _, header, *rows = table({"m": {"d": report, "e": report}})
    assert {row.index("    4 ") for row in rows} == {header.index("cases")}
