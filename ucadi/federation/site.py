"""ucadi site run: a site's part in every round, from the plan to the next model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import KeyFile, LogFile, MaxRounding, Part, SplitFile, refuse_unused
from ucadi.errors import ConsentError, MismatchError
from ucadi.events import Events
from ucadi.federation.awaiting import Teller
from ucadi.federation.member import Site
from ucadi.federation.private import Private
from ucadi.federation.station import Options
from ucadi.federation.transport import Poll, RelayAddress, RelayCard, Transport, transport_to
from ucadi.files import make_folder
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format
from ucadi.formats import split as split_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.parts import Feature, require
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.consents import how_to_accept


@dataclass(frozen=True)
class SiteRunResult:
    """Where a site stands: the rounds whose sum it has opened, its newest model, and what it waits for.

    `latest` leads to the newest model under a name that stays. `over`: the round that was to be the last has ended.
    """

    site: str
    rounds: int
    model: Path | None
    latest: Path | None
    metrics: dict[str, float]
    waiting_for: str | None
    over: bool

    def __str__(self) -> str:
        lines = [f"{self.site}: {self.rounds} rounds; " + (f"model {self.model}" if self.model else "no model yet")]
        lines += [f"  {name}: {value:.3f}" for name, value in self.metrics.items()]
        lines += [f"  the same as {self.latest}"] if self.latest else []
        lines += [f"  waiting for {self.waiting_for}"] if self.waiting_for else []
        lines += ["  the schedule is over"] if self.over else []
        return "\n".join(lines)


def site_run(
    exchange: Annotated[Path, typer.Argument(help="One's own exchange directory.")],
    *,
    dataset: Annotated[Path, typer.Option(help="The dataset to train on, from preprocess.")],
    key: KeyFile,
    roster: Annotated[
        Path | None, typer.Option(help="A roster that this site has accepted [default: the newest].")
    ] = None,
    split: SplitFile = None,
    part: Part = None,
    test: Annotated[Path | None, typer.Option(help="A dataset to evaluate each new model on.")] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Private folder for models and updates [default: KEY with .work]."),
    ] = None,
    relay: RelayAddress = None,
    relay_card: RelayCard = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do what can be done now, say what is awaited, and end: for couriers.")
    ] = False,
    until_round: Annotated[
        int | None, typer.Option(help="End after this round [default: at the schedule's end].", min=1, max=9999)
    ] = None,
    clip: Annotated[bool, typer.Option(help="Cut values to their range instead of stopping.")] = False,
    max_rounding: MaxRounding = None,
    publish_model: Annotated[
        bool, typer.Option(help="Put opened sums into the exchange: coordinator and relay can then follow the model.")
    ] = False,
    publish_metrics: Annotated[
        bool, typer.Option(help="Put the evaluation's figures into the exchange, for all to see.")
    ] = False,
    poll: Poll = 1.0,
    log: LogFile = None,
    as_json: bool = False,
) -> SiteRunResult:
    r"""Take part in a federation's rounds: train, encrypt, send, wait, open the sum, apply, evaluate, and again.

    It goes by the rosters that this site has accepted: see roster accept. Files of another federation are refused, and
    under a roster that is not accepted nothing is done. Only what may leave goes into the exchange directory:
    models, updates and opened sums stay in the private folder. Kill and restart it at any time; it resumes.

    Example:
        ucadi site run exchange --dataset site-a.h5 --key site-a.key --once
    """
    require(Feature.NETWORKS, Feature.DATASETS, Feature.STATISTICS)
    keys = key_format.read_key(key)
    agreement = Agreement(key, keys)
    trusted = agreement.trusted() if roster is None else _accepted(agreement, roster, key)
    if keys.public == trusted.coordinator:
        raise MismatchError(f"{key.name} is the coordinator's key", hint="a site runs with its own: NAME.key of keygen")
    if test is None:
        refuse_unused({"--publish-metrics": publish_metrics}, "nothing is evaluated without --test")
    _check_data(dataset, split, part, test)
    private = Private(key.with_suffix(".work") if work is None else work)
    folder, events = Exchange(make_folder(exchange)), Events(as_json=as_json, log=log)
    options = Options(dataset, split, part, test, clip, publish_model, publish_metrics, max_rounding)
    site = Site(folder, trusted, keys, key, agreement, private, options, events)
    with transport_to(relay, relay_card, keys, folder, events) as line:
        _run(site, line, once=once, until_round=until_round, poll=poll)
    return SiteRunResult(
        keys.name,
        site.followed,
        site.newest,
        private.latest if site.newest else None,
        dict(site.metrics),
        None if site.awaited is None else str(site.awaited),
        site.over,
    )


def _accepted(agreement: Agreement, path: Path, key: Path) -> Roster:
    """The roster that was given; ConsentError unless this site has accepted it."""
    roster = roster_format.read(path)
    if not agreement.has_accepted(roster):
        raise ConsentError(
            f"{path}: roster {roster.sequence} of {roster.federation} is not accepted by this site",
            hint=how_to_accept(path, key),
        )
    return roster


def _check_data(dataset: Path, split: Path | None, part: str | None, test: Path | None) -> None:
    """Raises now what would stop the site in the middle of a round: a wrong file, a part that is not for training."""
    from ucadi.formats import dataset as dataset_format

    if part is not None:
        split_format.require_training(part)
    with dataset_format.open(dataset) as whole:
        split_format.select(whole, split, part)
    if test is not None:
        with dataset_format.open(test) as tested:
            split_format.require_scans(tested)


def _run(site: Site, line: Transport, *, once: bool, until_round: int | None, poll: float) -> None:
    tell = Teller(site.tell)
    line.bring()
    while True:
        moved = site.advance()
        if moved:
            line.bring()
        elif site.has_ended(until_round) or once:
            return
        else:
            tell(site.awaited)
            time.sleep(poll)
            line.bring()
