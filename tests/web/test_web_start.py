"""`ucadi serve` begins only with what is sound: its secrets, address, certificate and folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import small_model

from ucadi.errors import OutputError, SignatureError, UsageError
from ucadi.web.serve import read_token, serve


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


def test_tokens_are_secrets(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o640)
    with pytest.raises(SignatureError, match="others than its owner"):
        read_token(token)
    token.chmod(0o600)
    assert read_token(token) == "0123456789abcdef0123456789abcdef"
    token.write_text("short")
    with pytest.raises(UsageError, match="32 characters"):
        read_token(token)
    with pytest.raises(UsageError, match="no token"):
        read_token(tmp_path / "absent")


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"])
def test_beyond_loopback_a_token_is_needed(model: Path, bind: str) -> None:
    with pytest.raises(UsageError, match="not without a token"):
        serve(model=model, bind=bind)
    with pytest.raises(UsageError, match="not without a token"):
        serve(model=model, bind=bind, proxy_user_header="X-User")


@pytest.mark.parametrize("bind", ["8300", "localhost:8300", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[::1]:-1"])
def test_an_address_is_a_number_and_a_port(model: Path, bind: str) -> None:
    with pytest.raises(UsageError, match="not ADDRESS:PORT"):
        serve(model=model, bind=bind)


def test_a_certificate_and_its_key_are_read_at_once(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for certificate, key in ((broken, None), (None, broken), (broken, broken), (tmp_path / "absent", broken)):
        with pytest.raises(UsageError, match="--tls-certificate"):
            serve(model=model, bind="127.0.0.1:0", tls_certificate=certificate, tls_key=key)


def test_a_folder_with_other_things_is_left_as_it_is(model: Path, tmp_path: Path) -> None:
    """Jobs that the queue does not know are removed: not where somebody else keeps a folder of that name."""
    folder = tmp_path / "project"
    (folder / "jobs" / "thesis").mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(OutputError, match="holds other things"):
        serve(model=model, bind="127.0.0.1:0", work=folder)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == ["jobs", "jobs/thesis"]


def test_a_file_is_no_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for work in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file"):
            serve(model=model, bind="127.0.0.1:0", work=work)
