"""A site's private folder: what its loop makes and must not travel, under names that follow from the round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ucadi.errors import OutputError
from ucadi.files import make_folder, write_file
from ucadi.kinds import PRIVATE_MODE
from ucadi.rounds.round import Round


class Private:
    """Models and their predictions by digest; a round's update, opened sum, voiding and durations by its plan's."""

    def __init__(self, root: Path) -> None:
        make_folder(root, mode=0o700)
        self._root: Final = root

    def model(self, digest: str) -> Path:
        """Where the weights of that digest lie, once they are here."""
        return self._root / f"{digest}.weights"

    def predictions(self, digest: str) -> Path:
        """Where the predictions of the model of that digest on the site's test set lie, once they are made."""
        return self._root / f"{digest}.predictions"

    @property
    def evidence(self) -> Path:
        """Where proofs of two histories are kept."""
        return self._root / "evidence"

    @property
    def latest(self) -> Path:
        """The name under which the newest model is always found."""
        return self._root / "latest.weights"

    def point_latest(self, model: Path) -> None:
        """Makes `latest` lead to this model; whoever looks meanwhile finds the one before or this one."""
        if self.latest.is_symlink() and self.latest.readlink() == Path(model.name):
            return
        part = self._root / f".{self.latest.name}.part"
        try:
            part.unlink(missing_ok=True)
            part.symlink_to(model.name)
            part.replace(self.latest)
        except OSError as error:
            raise OutputError.of(self.latest, error) from None

    def of_round(self, round_: Round, kind: str) -> Path:
        """Where a file of a round lies, whether it is there or not."""
        return self._root / f"round-{round_.plan.round:04}-{round_.plan_digest[:16]}.{kind}"

    def round_key(self, number: int) -> Path | None:
        """The secret sealing key for round `number`, made when the last closed round before it was opened here."""
        found = sorted(path for path in self._root.glob("round-*.sealing") if path.name < f"round-{number:04}")
        return found[-1] if found else None

    def forget_round_keys(self, number: int) -> None:
        """Deletes the secret sealing keys for rounds up to `number`: what was sealed to them opens no more."""
        for path in self._root.glob("round-*.sealing"):
            if path.name < f"round-{number:04}":
                path.unlink(missing_ok=True)

    def newest_update(self, before: int) -> Path | None:
        """The site's own update of the newest round before that number, if there is one."""
        found = sorted(path for path in self._root.glob("round-*.update") if path.name < f"round-{before:04}")
        return found[-1] if found else None

    def seconds(self, round_: Round) -> dict[str, float]:
        """How long the parts of a round took, kept from one run of the loop to the next."""
        noted = self.of_round(round_, "seconds")
        return json.loads(noted.read_text()) if noted.exists() else {}

    def note_seconds(self, round_: Round, **seconds: float) -> None:
        """Adds to these, to the millisecond."""
        noted = self.seconds(round_) | {name: round(value, 3) for name, value in seconds.items()}
        write_file(self.of_round(round_, "seconds"), json.dumps(noted).encode(), force=True, mode=PRIVATE_MODE)
