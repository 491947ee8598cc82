"""A site's private folder: what its loop makes and must not travel, under names that follow from the round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ucadi.formats.output import make_folder, write_file
from ucadi.rounds.round import Round


class Private:
    """Models by their digest; of each round its update, opened sum, predictions and durations by its plan's digest."""

    def __init__(self, root: Path) -> None:
        make_folder(root, mode=0o700)
        self._root: Final = root

    def model(self, digest: str) -> Path:
        """Where the weights of that digest lie, once they are here."""
        return self._root / f"{digest}.weights"

    def of_round(self, this: Round, kind: str) -> Path:
        """Where a file of a round lies, whether it is there or not."""
        return self._root / f"round-{this.plan.round:04}-{this.plan_digest[:16]}.{kind}"

    def newest_update(self, before: int) -> Path | None:
        """The site's own update of the newest round before that number, if there is one."""
        found = sorted(path for path in self._root.glob("round-*.update") if path.name < f"round-{before:04}")
        return found[-1] if found else None

    def seconds(self, this: Round) -> dict[str, float]:
        """How long the parts of a round took, kept from one run of the loop to the next."""
        noted = self.of_round(this, "seconds")
        return json.loads(noted.read_text()) if noted.exists() else {}

    def note_seconds(self, this: Round, **seconds: float) -> None:
        """Adds to these, to the millisecond."""
        noted = self.seconds(this) | {name: round(value, 3) for name, value in seconds.items()}
        write_file(self.of_round(this, "seconds"), json.dumps(noted).encode(), force=True)
