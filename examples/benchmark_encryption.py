"""What encrypted rounds cost: ucadi's commands on files, TenSEAL's CKKS and Flower's SecAgg+, one thread each.

Seconds are those of the processor. For ucadi they hold everything that a command does: reading, checking
signatures and digests, computing, writing. A row's encryption is the mean over its sites.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ucadi.commands.aggregate import aggregate
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.init import init
from ucadi.commands.keygen import keygen
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.roster import roster_create
from ucadi.commands.roster_accept import roster_accept
from ucadi.commands.round_close import round_close
from ucadi.commands.round_open import round_open
from ucadi.commands.tag import tag
from ucadi.commands.verify import verify
from ucadi.fed.fixedpoint import decode
from ucadi.fed.update import Update
from ucadi.files import file_digest, make_folder
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.weights import Weights
from ucadi.kinds import Kind
from ucadi.lwe import scheme
from ucadi.rounds.round import Round

T = TypeVar("T")
Arrays = dict[str, np.ndarray]

EXAMPLES = 100
"""Examples of site 0; of site i, 100 + i."""


@dataclass
class Row:
    """One line of the table: seconds of each step, bytes that a site sends, and the largest error of the mean."""

    system: str
    values: int
    sites: int
    encrypt: float
    add: float
    decrypt: float
    bytes: int
    error: float
    answer: float | None = None
    tag: float | None = None
    check: float | None = None

    def __str__(self) -> str:
        answer, tag, check = ("" if s is None else f"{s:.3f}" for s in (self.answer, self.tag, self.check))
        expansion = self.bytes / (4 * self.values)
        return (
            f"{self.system:<18}{self.values / 1e6:>8.2f}{self.sites:>6}{self.encrypt:>9.3f}{self.add:>9.4f}{tag:>8}"
            f"{check:>8}{answer:>8}{self.decrypt:>9.3f}{self.bytes / 1e6:>9.2f}{expansion:>8.3f}{self.error:>10.1e}"
        )


TITLES = (
    f"{'':<18}{'million':>8}{'':>6}{'encrypt':>9}{'add':>9}{'tag':>8}{'check':>8}{'answer':>8}{'decrypt':>9}{'sent':>9}{'x':>8}"
    f"{'error':>10}"
)
UNITS = (
    f"{'system':<18}{'values':>8}{'sites':>6}{'s':>9}{'s':>9}{'s':>8}{'s':>8}{'s':>8}{'s':>9}{'MB':>9}{'float32':>8}"
    f"{'of mean':>10}"
)
HEADER = f"{TITLES}\n{UNITS}"


class Clock:
    """Processor seconds of the calls that went through it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def time(self, call: Callable[[], T]) -> T:
        start = time.process_time()
        result = call()
        self.seconds.append(time.process_time() - start)
        return result

    @property
    def mean(self) -> float:
        return float(np.mean(self.seconds))

    @property
    def best(self) -> float:
        return min(self.seconds)


def changes(arrays: Arrays, site: int) -> Arrays:
    """What training might have changed. Sites beyond the second repeat the first two: drawing takes longest."""
    rng = np.random.default_rng(site % 2)
    return {name: 0.01 * rng.standard_normal(array.shape, np.float32) for name, array in sorted(arrays.items())}


def network(folder: Path) -> Arrays:
    """The paper's network."""
    init(output=folder / "network.weights")
    return dict(weights_format.read(folder / "network.weights").arrays)


def large(values: int) -> Arrays:
    """A model of ten equal tensors."""
    return {f"layer{i}": np.full(values // 10, 0.1, np.float32) for i in range(10)}


def weighted_mean(arrays: Arrays, sites: int) -> Iterator[tuple[str, np.ndarray]]:
    """The mean that a round should give, in float64, tensor by tensor."""
    weights = [sum(EXAMPLES + i for i in range(parity, sites, 2)) for parity in (0, 1)]
    both = [changes(arrays, parity) for parity in (0, 1)]
    for name in sorted(arrays):
        pair = [both[parity][name].astype(np.float64) for parity in (0, 1)]
        yield name, np.average(pair, axis=0, weights=weights)


def ucadi(arrays: Arrays, sites: int, *, threshold: int | None = None) -> Row:
    """A round on files, in one of both key modes."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        names = [f"site-{i:03}" for i in range(sites)]
        for party in ("coordinator", *names):
            keygen(party, output=folder)
        exchange, coordinator = Exchange(make_folder(folder / "exchange")), folder / "coordinator.key"
        roster = exchange.path(Kind.ROSTER, 0)
        cards = [folder / f"{site}.card" for site in names]
        mode = "members" if threshold is None else "threshold"
        roster_create(cards, federation="benchmark", key=coordinator, output=roster, mode=mode, threshold=threshold)
        for site in names:
            roster_accept(roster, key=folder / f"{site}.key", yes=file_digest(roster))
        base = folder / "base.weights"
        weights_format.write(base, Weights(arrays, {}, {}))
        cap = EXAMPLES + sites
        round_open(number=1, base=base, key=coordinator, exchange=exchange.root, weight_cap=cap)
        digest = weights_format.read(base).digest
        common = {"plan": exchange.plan(1), "roster": roster}

        encrypting, adding, tagging, checking, answering, decrypting = (Clock() for _ in range(6))
        for i, site in enumerate(names):
            update, key, output = folder / "update", folder / f"{site}.key", exchange.make_place(Kind.UPLOAD, 1, site)
            update_format.write_update(update, Update(site, digest, EXAMPLES + i, 1, changes(arrays, i)), force=True)
            encrypting.time(lambda u=update, k=key, o=output: encrypt(u, **common, key=k, output=o))  # type: ignore[misc]
        uploads = [exchange.path(Kind.UPLOAD, 1, site) for site in names]
        total, opened = exchange.sum(1), folder / "opened"
        adding.time(lambda: aggregate(uploads, **common, key=coordinator, output=total))
        round_close(exchange.root, number=1, key=coordinator)
        receipt, tags = exchange.receipt(1), exchange.make_place(Kind.TAG, 1, names[0]).parent
        for site, upload in zip(names, uploads, strict=True):
            key, output = folder / f"{site}.key", exchange.path(Kind.TAG, 1, site)
            tagging.time(lambda u=upload, k=key, o=output: tag(u, **common, receipt=receipt, key=k, output=o))  # type: ignore[misc]
        checking.time(lambda: verify([total], **common, receipt=receipt, tag=[tags]))
        answers = []
        for site in names[: threshold or 0]:
            key, output = folder / f"{site}.key", folder / f"{site}.partial"
            answering.time(lambda k=key, o=output: partial_decrypt(total, **common, key=k, output=o))  # type: ignore[misc]
            answers.append(output)
        decrypting.time(
            lambda: decrypt(total, **common, key=folder / f"{names[0]}.key", output=opened, partial=answers)
        )
        return Row(
            f"ucadi {'members' if threshold is None else f'{threshold} members'}",
            sum(array.size for array in arrays.values()),
            sites,
            encrypting.mean,
            adding.mean / sites,
            decrypting.mean,
            uploads[0].stat().st_size + (tags / f"{names[0]}.json").stat().st_size,
            ucadi_error(arrays, opened, Round.read(exchange.plan(1), roster)),
            answering.mean if answers else None,
            tagging.mean,
            checking.mean,
        )


def ucadi_error(arrays: Arrays, opened: Path, round_: Round) -> float:
    aggregate = update_format.read_aggregate(opened)
    start, largest = 1, 0.0
    for tensor, (_, mean) in zip(
        round_.plan.layout.tensors, weighted_mean(arrays, len(round_.plan.sites)), strict=True
    ):
        total = aggregate.total[start : start + tensor.size]
        found = decode(total, tensor, weight=aggregate.weight, cap=round_.plan.weight_cap, bits=round_.bits)
        largest = max(largest, float(np.abs(found - mean.reshape(-1)).max()))
        start += tensor.size
    return largest


def in_memory(arrays: Arrays) -> float:
    """Seconds to add one ciphertext of a model to another, both in memory."""
    values = sum(array.size for array in arrays.values())
    part = np.ones((scheme.polynomials(values), scheme.DEGREE), np.uint64)
    total, clock = part.copy(), Clock()
    for _ in range(20):
        clock.time(lambda: np.add(total, part, out=total))
    return clock.best


def tenseal(arrays: Arrays, sites: int = 3) -> Row:
    """CKKS with the parameters that NVIDIA FLARE sets."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1)
    context.global_scale = 2**40
    weights = np.arange(EXAMPLES, EXAMPLES + sites)
    encrypting, adding, decrypting = Clock(), Clock(), Clock()

    def encrypted(site: int) -> list[bytes]:
        vector = flat(changes(arrays, site)) * (weights[site] / weights.sum())
        return [ts.ckks_vector(context, vector[i : i + 4096]).serialize() for i in range(0, len(vector), 4096)]

    uploads = [encrypting.time(lambda site=site: encrypted(site)) for site in range(sites)]  # type: ignore[misc]

    def added() -> list[Any]:
        total = [ts.ckks_vector_from(context, part) for part in uploads[0]]
        for upload in uploads[1:]:
            total = [a + ts.ckks_vector_from(context, b) for a, b in zip(total, upload, strict=True)]
        return total

    total = adding.time(added)
    opened = decrypting.time(lambda: np.concatenate([part.decrypt() for part in total]))
    mean = np.concatenate([tensor.reshape(-1) for _, tensor in weighted_mean(arrays, sites)])
    return Row(
        "TenSEAL CKKS",
        len(mean),
        sites,
        encrypting.mean,
        adding.mean / sites,
        decrypting.mean,
        sum(map(len, uploads[0])),
        float(np.abs(opened - mean).max()),
    )


def flower(arrays: Arrays, sites: int = 3) -> Row:
    """SecAgg+ as Flower's client and server compute it, without its messages, with its defaults."""
    from flwr.common import ndarray_to_bytes
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    clip, target, modulus, max_weight = 8.0, 1 << 22, 1 << 32, 1000.0
    own = [os.urandom(32) for _ in range(sites)]
    between = {frozenset((i, j)): os.urandom(32) for i in range(sites) for j in range(i)}
    encrypting, adding, decrypting = Clock(), Clock(), Clock()

    def masked(site: int) -> list[bytes]:
        ratio = round((EXAMPLES + site) / max_weight * target)
        weighted = arithmetic.parameters_multiply(list(changed[site % 2].values()), ratio / target)
        quantized = arithmetic.factor_combine(ratio, quantize(weighted, clip, target))
        shapes = [array.shape for array in quantized]
        quantized = arithmetic.parameters_addition(quantized, pseudo_rand_gen(own[site], modulus, shapes))
        for other in range(sites):
            if other != site:
                mask = pseudo_rand_gen(between[frozenset((site, other))], modulus, shapes)
                change = arithmetic.parameters_addition if site > other else arithmetic.parameters_subtraction
                quantized = change(quantized, mask)
        return [ndarray_to_bytes(array) for array in arithmetic.parameters_mod(quantized, modulus)]

    changed = [changes(arrays, parity) for parity in (0, 1)]
    uploads = [encrypting.time(lambda site=site: masked(site)) for site in range(sites)]  # type: ignore[misc]
    vectors = [[bytes_to_array(data) for data in upload] for upload in uploads]

    def added() -> list[np.ndarray]:
        total = vectors[0]
        for vector in vectors[1:]:
            total = arithmetic.parameters_addition(total, vector)
        return total

    def unmasked() -> list[np.ndarray]:
        result = total
        for seed in own:
            mask = pseudo_rand_gen(seed, modulus, [array.shape for array in result])
            result = arithmetic.parameters_subtraction(result, mask)
        ratio, result = arithmetic.factor_extract(arithmetic.parameters_mod(result, modulus))
        result = dequantize(result, clip, target)
        return [(array - (sites - 1) * clip) * (target / ratio) for array in result]

    total = adding.time(added)
    opened = decrypting.time(unmasked)
    error = max(
        float(np.abs(found - mean).max()) for found, (_, mean) in zip(opened, weighted_mean(arrays, sites), strict=True)
    )
    size = sum(map(len, uploads[0]))
    values = sum(array.size for array in arrays.values())
    return Row("Flower SecAgg+", values, sites, encrypting.mean, adding.mean / sites, decrypting.mean, size, error)


def bytes_to_array(data: bytes) -> np.ndarray:
    from flwr.common import bytes_to_ndarray

    return bytes_to_ndarray(data)


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for _, array in sorted(arrays.items())])


def machine() -> str:
    """The processor, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "cryptography", "tenseal", "flwr")]
    processor = models[0] if models else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, one used; Python {platform.python_version()}, {', '.join(versions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the paper's network only")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        paper = network(Path(name))
        paper = {key: array.copy() for key, array in paper.items()}
    ucadi(paper, 3)  # what is done once a process is not counted
    print(machine())
    print(f"adding a ciphertext of the paper's network in memory: {1000 * in_memory(paper):.2f} ms\n")
    print(HEADER)
    for sites in (3, 10, 100):
        print(ucadi(paper, sites), flush=True)
    for sites, threshold in ((3, 2), (10, 6), (100, 51)):
        print(ucadi(paper, sites, threshold=threshold), flush=True)
    print(tenseal(paper), flush=True)
    print(flower(paper), flush=True)
    if not quick:
        for values, sites in ((10**7, 3), (10**7, 10), (10**7, 100), (10**8, 3)):
            print(ucadi(large(values), sites), flush=True)
        print(ucadi(large(10**7), 3, threshold=2), flush=True)
        print(ucadi(large(10**8), 3, threshold=2), flush=True)


if __name__ == "__main__":
    main()
