"""What encryption protects is its owner's alone: permissions of files, secrets that others can read, passphrases."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import invoke, ucadi
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from federation import Federation, make_federation
from looping import make_hub
from slots import make_world

from ucadi import passphrases
from ucadi.commands.decrypt import decrypt
from ucadi.commands.keygen import keygen
from ucadi.commands.passphrase import passphrase
from ucadi.errors import FormatError, OutputError, SignatureError, UcadiError, UsageError
from ucadi.files import write_file
from ucadi.filetypes import describe
from ucadi.formats import keys as key_format
from ucadi.formats import salt
from ucadi.formats.container import canonical_json
from ucadi.formats.signed import read_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Access, Format, Kind
from ucadi.pacs.address import read_credentials
from ucadi.web.serve import read_token

WORDS = "correct horse battery staple"


# --- permissions --------------------------------------------------------------------------------------------


def test_every_file_that_encryption_protects_is_its_owners_alone(tmp_path: Path) -> None:
    """A file of every format, made by the commands in a world where everything may be read by all."""
    before = os.umask(0)
    try:
        make_world(tmp_path)
        site_run_in(tmp_path / "rounds")
    finally:
        os.umask(before)
    words = {one.words: one for one in Format}
    exchanges = [path.parent for path in tmp_path.rglob("exchange/federation.json")]
    seen = set()
    for path in tmp_path.rglob("*"):
        if not path.is_file() or path.is_symlink() or (one := words.get(describe(path))) is None:
            continue
        seen.add(one)
        is_public = one.access is Access.PUBLIC or any(path.is_relative_to(folder) for folder in exchanges)
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        copied = path.stat().st_nlink > 1 or path.parent.name == "files"  # by the test itself, as it came
        at_home = any(folder.suffix == ".work" for folder in path.parents)  # where all of it is private
        assert bool(others) == (is_public and not at_home) or copied, (path, oct(path.stat().st_mode))
    assert {one for one in Format if one.access is Access.PRIVATE} - seen <= {
        Format.TRANSLATION_CHECKPOINT,
        Format.CHECKPOINT,
    }, "removed at the end of a training: tests/formats/test_checkpoint.py looks at them"
    work = next((tmp_path / "rounds").rglob("*.work"))
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert [path for path in work.iterdir() if not path.is_symlink() and path.stat().st_mode & 0o077] == []


def site_run_in(folder: Path) -> None:
    hub = make_hub(folder / "hub", rounds=1)
    for site in hub.sites:
        hub.site(site, publish_model=True)
    hub.coordinate()
    for site in hub.sites:
        hub.site(site, publish_model=True)


def test_what_is_signed_or_travels_is_public_and_the_rest_is_not() -> None:
    for one in Format:
        assert (one.access is Access.PUBLIC) == (one.signed or one is Format.COURIER), one
    assert {kind.format for kind in Kind if kind.format.access is Access.PRIVATE} == {Format.WEIGHTS, Format.AGGREGATE}


# --- secrets that others can read, or that are none ---------------------------------------------------------

READERS: dict[str, Callable[[Path], object]] = {
    "key": key_format.read_key,
    "salt": salt.read_or_make,
    "token": read_token,
    "credentials": read_credentials,
    "passphrase": lambda path: passphrases.ask_new(Path("new.key"), path),
}


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, Path]:
    """A sound secret of each kind."""
    keygen("site-a", output=tmp_path)
    texts = {"salt": "x" * 32, "token": "0123456789abcdef" * 2, "credentials": "user:word", "passphrase": WORDS}
    for name, text in texts.items():
        write_file(tmp_path / name, text.encode(), mode=0o600)
    return {name: tmp_path / name for name in texts} | {"key": tmp_path / "site-a.key"}


@pytest.mark.parametrize("name", READERS)
def test_a_secret_that_others_can_read_is_refused(secrets: dict[str, Path], name: str) -> None:
    READERS[name](secrets[name])
    for mode in (0o640, 0o604, 0o620, 0o601):
        secrets[name].chmod(mode)
        with pytest.raises(SignatureError, match="others than its owner") as caught:
            READERS[name](secrets[name])
        assert caught.value.hint == f"chmod 600 {secrets[name]}"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling"])
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UcadiError, match=kind):
        READERS[name](path)


@pytest.mark.parametrize("option", ["--tls-key", "--tls-certificate"])
def test_a_pipe_for_a_certificate(tmp_path: Path, option: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pem").touch()
    other = {"--tls-key": "--tls-certificate", "--tls-certificate": "--tls-key"}[option]
    given = [option, tmp_path / "pipe", other, tmp_path / "pem"]
    result = ucadi("serve", "--model", tmp_path / "m", "--bind", "127.0.0.1:0", *given)
    assert result.returncode in (2, 3), result.stderr


# --- passphrases --------------------------------------------------------------------------------------------


def secret(folder: Path, text: str, name: str = "passphrase") -> Path:
    write_file(folder / name, text.encode(), force=True, mode=0o600)
    return folder / name


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A key with a passphrase."""
    keygen("site-a", output=tmp_path, passphrase_file=secret(tmp_path, WORDS + "\n"))
    return tmp_path / "site-a.key"


def test_a_key_opens_with_its_passphrase_alone(locked: Path, tmp_path: Path) -> None:
    with passphrases.read_from(secret(tmp_path, "another one, and wrong")), pytest.raises(SignatureError) as caught:
        key_format.read_key(locked)
    assert caught.value.message == f"{locked}: the passphrase does not open it"
    with passphrases.read_from(secret(tmp_path, WORDS)):
        keys = key_format.read_key(locked)
    assert key_format.read_card(tmp_path / "site-a.card").keys == keys.public
    held = locked.read_bytes()
    for part in (keys.signing, keys.sealing, keys.transport):
        assert part.hex().encode() not in held
        assert part not in held
    assert stat.S_IMODE(locked.stat().st_mode) == 0o600


def test_the_page_of_formats_is_enough_to_open_it(locked: Path, tmp_path: Path) -> None:
    document = read_document(locked)
    assert {name: value for name, value in document["scrypt"].items() if name != "salt"} == {
        "n": 131072,
        "r": 8,
        "p": 1,
    }
    salted = bytes.fromhex(document["scrypt"]["salt"])
    key = hashlib.scrypt(WORDS.encode(), salt=salted, n=131072, r=8, p=1, maxmem=1 << 28, dklen=32)
    bound = b"ucadi/key/v1\n" + canonical_json({k: v for k, v in document.items() if k != "encrypted"}).encode()
    opened = AESGCM(key).decrypt(bytes(12), bytes.fromhex(document["encrypted"]), bound)
    with passphrases.read_from(secret(tmp_path, WORDS)):
        keys = key_format.read_key(locked)
    assert opened == keys.signing + keys.sealing + keys.transport


def test_a_process_asks_once(locked: Path, tmp_path: Path) -> None:
    with passphrases.read_from(secret(tmp_path, WORDS)):
        first = key_format.read_key(locked)
        (tmp_path / "passphrase").unlink()
        assert key_format.read_key(locked) == first


def test_a_whole_round_with_passphrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = make_federation(tmp_path)
    for name in ("coordinator", *federation.sites):
        passphrase(key=federation.key(name), new_passphrase_file=secret(tmp_path, WORDS))
        assert "encrypted" in read_document(federation.key(name))
    monkeypatch.setenv(passphrases.VARIABLE, str(secret(tmp_path, WORDS)))
    federation.encrypt_all()
    total = tmp_path / "sum.enc"
    signed = ["--plan", federation.plan, "--roster", federation.roster]
    added = ucadi("aggregate", *federation.ciphertexts, *signed, "--key", federation.key("coordinator"), "-o", total)
    assert added.returncode == 0, added.stderr
    opening = {"plan": federation.plan, "roster": federation.roster, "key": federation.key("site-a")}
    assert decrypt(total, output=tmp_path / "opened", **opening).sites == federation.sites


def test_without_terminal_or_file_it_says_what_to_set(locked: Path, federation: Federation, tmp_path: Path) -> None:
    line = ["roster", "create", *(federation.folder / f"{site}.card" for site in federation.sites[1:])]
    line += [
        "--federation",
        "x",
        "--minimum-sites",
        "2",
        "--mode",
        "members",
        "--key",
        locked,
        "-o",
        tmp_path / "roster.json",
    ]
    result = ucadi(*line, stdin=subprocess.DEVNULL)
    assert result.returncode == UsageError.exit_code
    assert "no terminal to ask on" in result.stderr
    assert passphrases.VARIABLE in result.stderr
    assert "--passphrase-file" in result.stderr
    assert not (tmp_path / "roster.json").exists()
    assert ucadi(*line, "--passphrase-file", secret(tmp_path, WORDS), stdin=subprocess.DEVNULL).returncode == 0


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("federation"))


def at_a_terminal(answers: list[str], *arguments: str | Path) -> tuple[int, str]:
    """Runs a command on a terminal, with an answer to each question; its exit code and what the screen shows."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.pop(passphrases.VARIABLE, None)
        command = [sys.executable, "-c", "from ucadi.cli import main; main()", *map(str, arguments)]
        os.execv(sys.executable, command)
    shown, asked = b"", 0
    try:
        while select.select([terminal], [], [], 30)[0]:
            shown += os.read(terminal, 4096)
            if answers and shown[asked:].endswith(b": "):
                os.write(terminal, answers.pop(0).encode() + b"\n")
                asked = len(shown)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)  # whoever still waits for an answer gets none
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_a_terminal_is_asked_twice_for_a_new_one_and_shows_none(tmp_path: Path) -> None:
    code, shown = at_a_terminal([WORDS, WORDS], "keygen", "site-a", "-o", tmp_path, "--passphrase")
    assert code == 0, shown
    assert "New passphrase" in shown
    assert "The same again" in shown
    assert WORDS not in shown
    code, shown = at_a_terminal([WORDS, "x" * 12, "x" * 12], "passphrase", "--key", tmp_path / "site-a.key")
    assert code == 0, shown
    with passphrases.read_from(secret(tmp_path, "x" * 12)):
        assert (
            key_format.read_key(tmp_path / "site-a.key").public == key_format.read_card(tmp_path / "site-a.card").keys
        )
    code, shown = at_a_terminal(["y" * 12], "passphrase", "--key", tmp_path / "site-a.key", "--remove")
    assert (code, "does not open" in shown) == (SignatureError.exit_code, True), shown


@pytest.mark.parametrize(("answers", "error"), [(["x" * 12, "y" * 12], "differ"), (["short"], "5 characters")])
def test_two_answers_that_differ_and_a_short_one_make_no_key(tmp_path: Path, answers: list[str], error: str) -> None:
    code, shown = at_a_terminal(answers, "keygen", "site-a", "-o", tmp_path, "--passphrase")
    assert (code, error in shown) == (UsageError.exit_code, True), shown
    assert not list(tmp_path.iterdir())


def test_a_passphrase_is_taken_off_and_put_on_again(locked: Path, tmp_path: Path) -> None:
    words = secret(tmp_path, WORDS)
    with passphrases.read_from(words):
        passphrase(key=locked, remove=True)
    keys = key_format.read_key(locked)
    with passphrases.read_from(words), pytest.raises(UsageError, match="has no passphrase"):
        key_format.read_key(locked)
    new = secret(tmp_path, "another good one", "new")
    passphrase(key=locked, new_passphrase_file=new)
    with passphrases.read_from(new):
        assert key_format.read_key(locked) == keys


def test_the_same_characters_typed_otherwise_are_the_same_passphrase(tmp_path: Path) -> None:
    keygen("site-a", output=tmp_path, passphrase_file=secret(tmp_path, "mäßig überraschend"))
    with passphrases.read_from(secret(tmp_path, "ma\u0308ßig u\u0308berraschend")):
        key_format.read_key(tmp_path / "site-a.key")


@pytest.mark.parametrize(
    ("part", "value"),
    [("n", 1 << 30), ("n", 1 << 14), ("n", 100_000), ("r", 1024), ("p", 1 << 20), ("salt", ""), ("salt", "00" * 4096)],
)
def test_a_hostile_key_file_takes_no_memory_and_no_time(locked: Path, tmp_path: Path, part: str, value: object) -> None:
    document = read_document(locked)
    document["scrypt"] = document["scrypt"] | {part: value}
    write_file(locked, canonical_json(document).encode() + b"\n", force=True, mode=0o600)
    began = time.monotonic()
    with passphrases.read_from(secret(tmp_path, WORDS)), pytest.raises(FormatError, match="scrypt"):
        key_format.read_key(locked)
    assert time.monotonic() - began < 0.2


def test_a_key_file_whose_name_or_parameters_were_changed_does_not_open(locked: Path, tmp_path: Path) -> None:
    document = read_document(locked)
    for changed in (document | {"name": "site-b"}, document | {"scrypt": document["scrypt"] | {"n": 1 << 18}}):
        write_file(locked, canonical_json(changed).encode() + b"\n", force=True, mode=0o600)
        with passphrases.read_from(secret(tmp_path, WORDS)), pytest.raises(SignatureError, match="does not open"):
            key_format.read_key(locked)
    write_file(locked, canonical_json(document | {"note": 1}).encode() + b"\n", force=True, mode=0o600)
    with pytest.raises(FormatError, match="not as keygen writes it"):
        key_format.read_key(locked)


def test_a_key_is_replaced_by_itself_only(tmp_path: Path) -> None:
    keys = SecretKeys.generate("site-a")
    key_format.write_key(tmp_path / "site-a.key", keys)
    with pytest.raises(OutputError, match="exists already"):
        key_format.write_key(tmp_path / "site-a.key", SecretKeys.generate("site-a"))
    assert key_format.read_key(tmp_path / "site-a.key") == keys


def test_a_passphrase_is_never_an_argument(tmp_path: Path) -> None:
    """It would stand in the history of the shell, and in the list of processes."""
    result = invoke("keygen", "site-a", "-o", tmp_path, "--passphrase", WORDS)
    assert result.exit_code != 0
    assert not list(tmp_path.iterdir())
