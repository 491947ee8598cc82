"""Counting rounds: histograms of scores added under encryption, against the same counts added in the clear."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import run
from federation import Federation, make_federation
from predictions import predicted

from ucadi.commands.aggregate import aggregate
from ucadi.commands.audit import audit
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.histogram import HistogramResult, histogram
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.round_close import round_close
from ucadi.commands.round_open import round_open
from ucadi.errors import CapacityError, MismatchError, UsageError
from ucadi.formats import histogram as histogram_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.histogram import Histogram
from ucadi.kinds import Kind
from ucadi.rounds.round import Round
from ucadi.scoring import metrics
from ucadi.workflows.training import check_round

MODEL = "5" * 64


@pytest.fixture
def counting(tmp_path: Path) -> Federation:
    """A federation whose plan counts, with each site's predictions and histogram."""
    return counted(make_federation(tmp_path))


def counted(federation: Federation) -> Federation:
    open_counting(federation, output=federation.plan, force=True)
    for number, site in enumerate(federation.sites):
        path = predicted(federation.folder / f"{site}.predictions", 1.0, number, model=MODEL, count=60 + 20 * number)
        histogram([path], output=federation.folder / f"{site}.histogram")
    return federation


def open_counting(federation: Federation, **options: object) -> None:
    key = federation.key("coordinator")
    if "output" in options:
        options["roster"] = federation.roster
    round_open(number=1, count_scores_of=MODEL, key=key, **options)  # type: ignore[arg-type]


def encrypt_histogram(federation: Federation, site: str, output: Path, *, plan: Path | None = None) -> None:
    encrypt(
        federation.folder / f"{site}.histogram",
        plan=plan or federation.plan,
        roster=federation.roster,
        key=federation.key(site),
        output=output,
    )


def read_sum(federation: Federation, opened: Path) -> HistogramResult:
    return histogram(
        [opened], plan=federation.plan, roster=federation.roster, output=federation.folder / "all.histogram"
    )


@pytest.mark.parametrize("threshold", [None, 2])
def test_the_opened_sum_is_the_sum_in_the_clear(tmp_path: Path, threshold: int | None) -> None:
    federation = counted(make_federation(tmp_path, threshold=threshold, minimum_sites=3))
    documents = {"plan": federation.plan, "roster": federation.roster}
    for site in federation.sites:
        encrypt_histogram(federation, site, federation.ciphertext(site))
    total, opened, answers = tmp_path / "sum.enc", tmp_path / "opened.aggregate", []
    aggregate(federation.ciphertexts, key=federation.key("coordinator"), output=total, **documents)
    for site in federation.sites[:threshold] if threshold else ():
        answers.append(tmp_path / f"{site}.answer")
        partial_decrypt(total, key=federation.key(site), output=answers[-1], **documents)
    decrypt(total, key=federation.key("site-b"), output=opened, partial=answers, **documents)
    result = read_sum(federation, opened)

    clear = histogram([federation.folder / f"{site}.histogram" for site in federation.sites], output=tmp_path / "clear")
    assert np.array_equal(
        histogram_format.read(result.histogram).counts, histogram_format.read(tmp_path / "clear").counts
    )
    assert (result.auc, result.sites) == (clear.auc, federation.sites)
    held = [predictions_format.read(federation.folder / f"{site}.predictions") for site in federation.sites]
    truth = np.concatenate([one.labels == 1 for one in held])
    pooled = metrics.auc(truth, np.concatenate([one.mean[:, 1] for one in held]))
    assert result.auc is not None
    assert result.auc.least <= pooled.value <= result.auc.most
    assert result.auc.area.value == pytest.approx(pooled.value, abs=0.005)


def test_a_counting_round_in_an_exchange_directory(tmp_path: Path) -> None:
    """Closed and audited as any round is, missing site and all; the coordinator has the model's digest only."""
    federation = counted(make_federation(tmp_path))
    folder = tmp_path / "exchange"
    folder.mkdir()
    (folder / "federation.json").write_bytes(federation.roster.read_bytes())
    shutil.copytree(federation.folder / "consents", folder / "consents")
    exchange = Exchange(folder)
    open_counting(federation, exchange=folder, quorum=2)
    for site in federation.sites[:2]:
        place = exchange.path(Kind.UPLOAD, 1, site)
        place.parent.mkdir(parents=True, exist_ok=True)
        encrypt_histogram(federation, site, place, plan=exchange.plan(1))
    closed = round_close(folder, number=1, key=federation.key("coordinator"))
    assert (closed.sites, closed.missing) == (federation.sites[:2], federation.sites[2:])
    assert audit(folder).rounds[0].status == "closed"
    opened = tmp_path / "opened.aggregate"
    documents = {"plan": exchange.plan(1), "roster": exchange.roster(1)}
    decrypt(closed.sum, key=federation.key("site-c"), output=opened, **documents)
    result = histogram([opened], output=tmp_path / "two.histogram", **documents)
    assert (result.negatives + result.positives, result.sites) == (60 + 80, federation.sites[:2])


def test_from_the_command_line(counting: Federation) -> None:
    folder = counting.folder
    for site in counting.sites:
        run("encrypt", folder / f"{site}.histogram", "--plan", counting.plan, "--roster", counting.roster, "--key",
            counting.key(site), "-o", counting.ciphertext(site))  # fmt: skip
    documents = ("--plan", counting.plan, "--roster", counting.roster)
    run("aggregate", *counting.ciphertexts, *documents, "--key", counting.key("coordinator"), "-o", folder / "sum.enc")
    run("decrypt", folder / "sum.enc", *documents, "--key", counting.key("site-a"), "-o", folder / "sum.aggregate")
    result = run("histogram", folder / "sum.aggregate", *documents, "-o", folder / "all.histogram")
    assert result["negatives"] + result["positives"] == 60 + 80 + 100
    assert run("inspect", folder / "all.histogram")["facts"]["sites"] == list(counting.sites)


def test_what_does_not_belong_is_refused(counting: Federation, tmp_path: Path) -> None:
    site, other = counting.sites[:2]
    coordinator, roster, plan = counting.key("coordinator"), counting.roster, counting.plan
    with pytest.raises(UsageError, match="no SHA-256"):
        round_open(number=1, count_scores_of="5" * 63, roster=roster, key=coordinator, output=tmp_path / "p")
    with pytest.raises(UsageError, match="begins with a model"):
        round_open(
            number=1, base=counting.base, count_scores_of=MODEL, roster=roster, key=coordinator, output=tmp_path / "p"
        )
    out = tmp_path / "out.enc"
    # an update where counts are added, and counts where updates are
    with pytest.raises(MismatchError, match="base"):
        encrypt(counting.update(site), plan=plan, roster=roster, key=counting.key(site), output=out)
    counting.open_round(1, tmp_path / "training.json")
    with pytest.raises(MismatchError, match="adds updates"):
        encrypt_histogram(counting, site, out, plan=tmp_path / "training.json")
    # of another model
    theirs = histogram_format.read(tmp_path / f"{other}.histogram")
    histogram_format.write(tmp_path / f"{site}.histogram", Histogram("6" * 64, ("a" * 64,), theirs.counts), force=True)
    with pytest.raises(MismatchError, match="base"):
        encrypt_histogram(counting, site, out)
    # more cases of one score than the slots hold, and just as many
    for count, fits in ((2**23 - 1, True), (2**23, False)):
        many = Histogram(MODEL, ("a" * 64,), np.zeros((2, 1024), np.int64))
        many.counts[0, 7] = count
        histogram_format.write(tmp_path / f"{site}.histogram", many, force=True)
        if fits:
            encrypt_histogram(counting, site, out)
        else:
            with pytest.raises(CapacityError, match="one score"):
                encrypt_histogram(counting, site, tmp_path / "second.enc")
    round_ = Round.read(plan, roster)
    with pytest.raises(MismatchError, match="nobody trains"):
        check_round(round_, weights_format.read(counting.base), site, "base.weights")


def test_a_sum_that_cannot_be_one_is_refused(counting: Federation, tmp_path: Path) -> None:
    """Counts below zero, as a site may send that makes its own ciphertext; a sum without its plan; the same twice."""
    round_ = Round.read(counting.plan, counting.roster)
    total = np.zeros(round_.values, np.int32)
    total[:2] = 3, -1
    update_format.write_sum(tmp_path / "bad", total, base=MODEL, plan=round_.plan_digest, sites=counting.sites)
    with pytest.raises(MismatchError, match="a count of -1"):
        read_sum(counting, tmp_path / "bad")
    total[1] = 1
    update_format.write_sum(tmp_path / "good", total, base=MODEL, plan=round_.plan_digest, sites=counting.sites)
    with pytest.raises(UsageError, match="under its round's plan"):
        histogram([tmp_path / "good"], output=tmp_path / "out")
    again = read_sum(counting, tmp_path / "good").histogram
    with pytest.raises(MismatchError, match="site is counted twice"):
        histogram([tmp_path / "good", again], plan=counting.plan, roster=counting.roster, output=tmp_path / "out")
