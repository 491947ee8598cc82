"""ucadi keygen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi import passphrases
from ucadi.errors import MismatchError
from ucadi.files import refuse_existing
from ucadi.formats import keys as key_format
from ucadi.identity import SecretKeys
from ucadi.rounds.consenting import Agreement


@dataclass(frozen=True)
class KeygenResult:
    """The files made, and the fingerprint to compare by telephone."""

    key: Path
    card: Path
    ledger: Path
    fingerprint: str

    def __str__(self) -> str:
        return (
            f"{self.key}: secret, stays here\n{self.ledger}: stays beside it, as long as the key is used\n"
            f"{self.card}: public, for the coordinator\nfingerprint  {self.fingerprint}"
        )


def keygen(
    name: Annotated[str, typer.Argument(help="Name of the site or coordinator: a-z, 0-9 and '-'.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path(),
    replaces: Annotated[
        Path | None, typer.Option(help="One's old key file, which then vouches for the new card.")
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Encrypt the key by a passphrase, which is asked for twice.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase, of mode 0600, in place of asking.")
    ] = None,
) -> KeygenResult:
    """Make the keys of a site or a coordinator: NAME.key (secret), NAME.card (public) and NAME.ledger.

    The card goes to whoever makes the roster; the fingerprint is compared by telephone. The ledger remembers what was
    done with the key; a key works only beside it. Existing files are never replaced. With a passphrase, a stolen key
    file alone is of no use; for services and pipelines, UCADI_PASSPHRASE_FILE or --passphrase-file names a file that
    holds it.

    Example:
        ucadi keygen st-marys
    """
    key_path, card_path = output / f"{name}.key", output / f"{name}.card"
    for path in (key_path, card_path):
        key_format.check_new(path)
    old = None if replaces is None else key_format.read_key(replaces)
    if old is not None and old.name != name:
        raise MismatchError(
            f"{replaces} is the key of {old.name}, not of {name}", hint="a key replaces one of its own name"
        )
    keys = SecretKeys.generate(name)
    agreement = Agreement(key_path, keys)
    for path in (key_path, agreement.ledger.path):
        refuse_existing(path)
    source = passphrase_file or (passphrases.of_environment() if passphrase else None)
    secret = passphrases.ask_new(key_path, source) if passphrase or source else None
    key_format.write_key(key_path, keys, secret)
    made = [key_path]
    try:
        key_format.write_card(card_path, keys, old=old)
        made.append(card_path)
        if replaces is not None and old is not None:
            Agreement(replaces, old).hand_on(agreement)
        else:
            agreement.ledger.begin()
    except BaseException:  # nobody has this key's card yet, so nobody will ever want the key
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return KeygenResult(key_path, card_path, agreement.ledger.path, keys.public.fingerprint)
