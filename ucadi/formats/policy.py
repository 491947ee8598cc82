"""A site's policy: what it takes part in, whatever the coordinator signs. A file beside its key that people edit."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ucadi.errors import FormatError, UsageError
from ucadi.files import read_text, write_file
from ucadi.formats.roster import Roster
from ucadi.lwe.parameters import MAX_SUMMANDS
from ucadi.settings import as_toml, check_fields, setting, settings_of

SUFFIX = ".policy.toml"


@dataclass(frozen=True)
class SitePolicy:
    """What a site takes part in."""

    minimum_sites: int = setting(3, "Fewest sites whose updates may be added into a sum.", least=2, most=MAX_SUMMANDS)
    members_mode: bool = setting(False, "Whether any one member may open a sum.")
    least_threshold: int = setting(
        2, "Fewest members who together open a sum, in threshold mode.", least=1, most=MAX_SUMMANDS
    )
    lot: bool = setting(False, "Whether a round may ask only some members, if they are drawn by lot.")
    largest_weight_cap: int = setting(1 << 20, "Largest weight cap of a round.", least=1, most=1 << 31)
    largest_epochs: int = setting(100, "Most local epochs in a round.", least=1, most=100_000)
    least_noise: float = setting(
        0.0, "Least noise multiplier of differential privacy in training; 0 asks for none.", least=0.0, most=1e6
    )
    counting: bool = setting(True, "Whether scores of one's own cases may be counted, once for each model.")
    wait_for_tags: float | None = setting(
        None,
        "Longest wait for all sites' tags, after which a sum is opened unchecked.",
        unit="hours",
        least=0,
        unset="for ever",
        example=72.0,
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def waits_for_tags(self, seconds: float) -> bool:
        """Whether tags that are missing so long after the receipt are still waited for."""
        return self.wait_for_tags is None or seconds < 3600 * self.wait_for_tags


def beside(key: Path) -> Path:
    """Where the policy of a key lies."""
    return key.resolve().with_suffix(SUFFIX)


def default_for(roster: Roster) -> SitePolicy:
    """What a site that accepts this roster agrees to: its mode and threshold, and sums of more than half of it."""
    members = len(roster.members)
    return SitePolicy(
        minimum_sites=min(members, max(3, members // 2 + 1)),
        members_mode=roster.policy.mode == "members",
        least_threshold=roster.policy.threshold,
    )


def write(path: Path, policy: SitePolicy, *, force: bool = False) -> None:
    """Writes a policy with a line of explanation for each of its settings."""
    values = {name: getattr(policy, name) for name in settings_of(SitePolicy)}
    settings = {
        name: one if values[name] is None else replace(one, default=values[name], unset="", example=None)
        for name, one in settings_of(SitePolicy).items()
    }
    head = "# What this site takes part in, whatever the coordinator signs. Edit it; ucadi reads it each time.\n\n"
    write_file(path, (head + as_toml(settings) + "\n").encode(), force=force)


def read(path: Path) -> SitePolicy:
    """Reads a policy; FormatError that names the setting for one that it may not have."""
    text = read_text(path, "a site's policy (TOML)", most=1 << 20)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise FormatError(
            f"{path.name}: not TOML: {error}", hint="mend it by hand; a line that begins with # is no setting"
        ) from None
    unknown = sorted(set(values) - {one.name for one in fields(SitePolicy)})
    if unknown:
        known = ", ".join(settings_of(SitePolicy))
        raise FormatError(f"{path.name}: no setting {unknown[0]!r}", hint=f"settings: {known}")
    try:
        return SitePolicy(**values)
    except UsageError as error:
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint) from None
