"""One federated round on one page: keys, plan, updates, encrypt, add, open, apply. Pure functions, no files.

    python examples/one_round.py

The commands do the same with signed files. A test compares the two, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ucadi.fed.averaging import Aggregate, Sum, apply_mean
from ucadi.fed.fixedpoint import Encoder, Layout, layout_of
from ucadi.fed.update import Arrays, Update
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.lwe import randomness, scheme
from ucadi.lwe.parameters import Packing
from ucadi.lwe.ring import Polynomials


@dataclass(frozen=True)
class Plan:
    """What all sites agree on before they train. In a real round a signed file; its digest is `seed`."""

    base: Arrays
    members: tuple[PublicKeys, ...]
    cap: int  # largest examples x epochs of a site
    seed: bytes  # of the public polynomials: fresh for every round

    @property
    def layout(self) -> Layout:
        return layout_of(self.base, headroom=4)

    @property
    def packing(self) -> Packing:
        return Packing(len(self.members))

    @property
    def bits(self) -> int:
        return self.packing.value_bits

    def context(self, sender: str, receiver: str) -> bytes:
        return b"/".join([self.seed, sender.encode(), receiver.encode()])


@dataclass(frozen=True)
class Upload:
    """All that leaves a site: its encrypted update, and the secret, sealed to each member."""

    site: str
    ciphertext: Polynomials
    seals: Mapping[str, bytes]


def encrypt(update: Update, plan: Plan) -> Upload:
    """At a site: the update in fixed point, hidden by a fresh secret."""
    vector = np.concatenate(list(Encoder(update, plan.layout, cap=plan.cap, bits=plan.bits).pieces()))
    vector[1:] += 1 << (plan.bits - 1)  # no value below zero; the weight stands first and has no sign
    secret = randomness.fresh_seed()
    blocks = scheme.encrypt([vector.astype(np.uint64)], len(vector), plan.packing, plan.seed, secret)
    seals = {member.name: member.seal(secret, plan.context(update.site, member.name)) for member in plan.members}
    return Upload(update.site, np.concatenate(list(blocks)), seals)


def add(uploads: Sequence[Upload]) -> Polynomials:
    """At the coordinator, who has no key to any of them: the encrypted sum."""
    return scheme.add(upload.ciphertext for upload in uploads)


def open_sum(total: Polynomials, uploads: Sequence[Upload], plan: Plan, keys: SecretKeys) -> Sum:
    """At a member: the sum of the secrets opens the sum of the updates. ucadi never opens less than a sum."""
    contexts = {upload.site: plan.context(upload.site, keys.name) for upload in uploads}
    seeds = [keys.open(upload.seals[keys.name], contexts[upload.site]) for upload in uploads]
    secret = sum(randomness.secret_polynomial(seed) for seed in seeds)
    count = 1 + plan.layout.size
    opened = scheme.decrypt(total, count, len(uploads), plan.packing, plan.seed, secret)  # type: ignore[arg-type]
    values = np.concatenate(list(opened)).astype(np.int64)
    values[1:] -= len(uploads) << (plan.bits - 1)
    return values.astype(np.int32)


def apply(total: Sum, plan: Plan) -> Arrays:
    """At every site: the base plus the weighted mean of the updates."""
    following, _ = apply_mean(plan.base, Aggregate("", "", (), total), plan.layout, cap=plan.cap, bits=plan.bits)
    return following


def main() -> None:
    keys = [SecretKeys.generate(f"site-{letter}") for letter in "abc"]
    base = {"weight": np.zeros(5, np.float32)}
    plan = Plan(base, tuple(key.public for key in keys), cap=1000, seed=randomness.fresh_seed())
    steps = [np.full(5, step, np.float32) for step in (0.1, 0.2, 0.6)]
    updates = [Update(key.name, "", 100, 1, {"weight": step}) for key, step in zip(keys, steps, strict=True)]
    uploads = [encrypt(update, plan) for update in updates]
    total = open_sum(add(uploads), uploads, plan, keys[0])
    print(f"{total[0]} examples; the mean of 0.1, 0.2 and 0.6 is {apply(total, plan)['weight'][0]:.4f}")


if __name__ == "__main__":
    main()
