"""Server optimisers: the published algorithms, the same bits on opened sums as on plain ones, checked by the audit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from commandline import to_set
from exchanges import Rounds
from federation import SHAPES, Federation, forget, make_federation, random_arrays
from hints import raises_with_hint

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.audit import audit
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.round_open import round_open
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.averaging import Aggregate, apply_mean
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.optimisers import Memory, Remembered, ServerOptimiser
from ucadi.formats import plan as plan_format
from ucadi.formats import roster as roster_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.schedules import read_recipe
from ucadi.kinds import Kind

METHODS = ("fedavgm", "fedadam", "fedyogi")


def recipe(folder: Path, method: str) -> Path:
    path = folder / f"{method}.toml"
    path.write_text(f'[server]\nmethod = "{method}"\nlearning_rate = 0.05\nmomentum = 0.8\n')
    return path


# The algorithms. The mean difference of one value is 0.5, then -0.25: sums of one site of weight 1 with cap 1.

LAYOUT = Layout((TensorRange("a", (1,), 0), TensorRange("norm.running_var", (1,), 0)))
BITS = 9  # a quantum is 1/256


def two_rounds(server: ServerOptimiser) -> list[tuple[float, float]]:
    arrays = {"a": np.array([1.0], np.float32), "norm.running_var": np.array([1.0], np.float32)}
    memory, found = Memory(), []
    for mean in (0.5, -0.25):
        total = np.array([1, int(mean * 256), int(mean * 256)], np.int32)
        update = Aggregate("0" * 64, "0" * 64, ("x",), total)
        arrays, memory = apply_mean(arrays, update, LAYOUT, cap=1, bits=BITS, server=server, memory=memory)
        found.append((float(arrays["a"][0]), float(arrays["norm.running_var"][0])))
    return found


@pytest.mark.parametrize(
    ("server", "first", "second"),
    [
        (ServerOptimiser("fedavg"), 1.5, 1.25),
        # v = 0.5, then 0.9 * 0.5 - 0.25 = 0.2
        (ServerOptimiser("fedavgm"), 1.5, 1.7),
        (ServerOptimiser("fedavgm", learning_rate=0.5), 1.25, 1.35),
        # beta_1 = beta_2 = 0.5, tau = 1, so v_0 = 1: m_1 = 0.25, v_1 = 0.5 + 0.125 = 0.625; m_2 = 0.125 - 0.125 = 0
        (ServerOptimiser("fedadam", 1.0, 0.5, 0.5, 1.0), 1 + 0.25 / (0.625**0.5 + 1), 1 + 0.25 / (0.625**0.5 + 1)),
        # tau = 0.5: v_0 = 0.25, and so is the square of 0.5; m_1 = 0.25, v_1 = 0.25 by both; m_2 = 0
        (ServerOptimiser("fedadam", 1.0, 0.5, 0.5, 0.5), 1.25, 1.25),
        (ServerOptimiser("fedyogi", 1.0, 0.5, 0.5, 0.5), 1.25, 1.25),
        # sign(1 - 0.25) = 1: v_1 = 1 - 0.5 * 0.25 = 0.875
        (ServerOptimiser("fedyogi", 1.0, 0.5, 0.5, 1.0), 1 + 0.25 / (0.875**0.5 + 1), 1 + 0.25 / (0.875**0.5 + 1)),
    ],
)
def test_two_rounds_by_hand(server: ServerOptimiser, first: float, second: float) -> None:
    found = two_rounds(server)
    assert [a for a, _ in found] == pytest.approx([first, second], rel=1e-6)
    assert [variance for _, variance in found] == [1.5, 1.25], "statistics are averaged, whatever the method"


def test_without_momentum_fedavgm_is_fedavg() -> None:
    assert two_rounds(ServerOptimiser("fedavgm", momentum=0.0)) == two_rounds(ServerOptimiser("fedavg"))


def test_yogi_lets_a_variance_fall_slower_than_adam() -> None:
    """Where differences become small, Adam forgets large ones geometrically, Yogi by no more than their size."""
    adam, yogi = ServerOptimiser("fedadam"), ServerOptimiser("fedyogi")
    large, small = np.array([1.0]), np.array([0.01])
    before = {"momentum": np.zeros(1), "variance": large}
    assert adam.move(small, before)[1]["variance"] < 0.995 < yogi.move(small, before)[1]["variance"] < 1


def test_the_first_variance_is_the_square_of_the_adaptivity() -> None:
    server = ServerOptimiser("fedadam", adaptivity=0.5)
    assert (server.first("variance"), server.first("momentum")) == (0.25, 0)


def remembered(memory: Memory, *pieces: np.ndarray) -> tuple[list[float], Memory]:
    """What FedYogi makes of a mean that comes in pieces, and what it remembers."""
    work = Remembered(ServerOptimiser("fedyogi"), memory)
    size = sum(map(len, pieces))
    return np.concatenate(list(work.changes("a", (size,), pieces))).tolist(), work.memory


def test_a_tensor_in_pieces_is_the_tensor() -> None:
    mean = np.random.default_rng(0).normal(size=10)
    whole, kept = remembered(Memory(), mean)
    in_pieces, kept_too = remembered(Memory(), mean[:4], mean[4:7], mean[7:])
    assert in_pieces == whole
    assert remembered(kept_too, mean[:2], mean[2:])[0] == remembered(kept, mean)[0] != whole
    assert {name: array.tolist() for name, array in kept_too.arrays.items()} == {
        name: array.tolist() for name, array in kept.arrays.items()
    }


def test_the_memory_of_another_method_is_forgotten() -> None:
    mean = np.ones(3)
    first, kept = remembered(Memory(), mean)
    assert remembered(Memory("fedadam", kept.arrays), mean)[0] == first


@pytest.mark.parametrize("kept", [{}, {"momentum/a": (1,)}, {"momentum/a": (1,), "variance/a": (2,)}])
def test_a_memory_of_another_network_is_refused(kept: dict[str, tuple[int, ...]]) -> None:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in {"momentum/b": (1,), **kept}.items()}
    memory = Memory("fedadam", arrays)
    missing = "variance" if kept else "momentum"
    with raises_with_hint(MismatchError, f"no {missing} of a", "of the same federation"):
        list(Remembered(ServerOptimiser("fedadam"), memory).changes("a", (1,), [np.zeros(1)]))


@pytest.mark.parametrize(
    ("constants", "message", "hint"),
    [
        ({"method": "sgd"}, "method is 'sgd'", "fedavg, fedavgm, fedadam or fedyogi"),
        ({"method": "fedavg", "learning_rate": 0.5}, "fedavg", "fedavgm with a momentum of 0"),
        *(
            ({"method": "fedadam", name: value}, f"{name} is {value}", f"it must be a number {wanted}$")
            for name, values, wanted in (
                ("learning_rate", (0.0, -1.0, math.inf), "above zero"),
                ("momentum", (-0.1, 1.0, 1.5), "from 0 to below 1"),
                ("decay", (-0.1, 1.0, 1.5), "from 0 to below 1"),
                ("adaptivity", (0.0, -1.0, math.inf), "above zero"),
            )
            for value in values
        ),
    ],
)
def test_impossible_constants(constants: dict[str, object], message: str, hint: str) -> None:
    with raises_with_hint(UsageError, message, hint):
        ServerOptimiser(**constants)  # type: ignore[arg-type]


def test_constants_at_their_limits() -> None:
    made = ServerOptimiser("fedadam", learning_rate=1e-9, momentum=0.0, decay=0.0, adaptivity=1e-9)
    assert (made.rate, made.momentum, made.decay, made.adaptivity) == (1e-9, 0, 0, 1e-9)
    assert {method: ServerOptimiser(method).rate for method in METHODS} == {
        "fedavgm": 1,
        "fedadam": 0.01,
        "fedyogi": 0.01,
    }


# In rounds


def play(federation: Federation, folder: Path, number: int, base: Path, method: str) -> tuple[Path, Path]:
    """A round, once encrypted and once in the clear: the weights after it, each way."""
    plan = folder / f"plan-{number}.json"
    round_open(
        number=number, base=base, roster=federation.roster, key=federation.key("coordinator"), output=plan,
        recipe=recipe(folder, method),
    )  # fmt: skip
    rng = np.random.default_rng(number)
    digest = weights_format.read(base).digest
    names = {"plan": plan, "roster": federation.roster}
    updates, uploads = [], []
    for site in federation.sites:
        update = update_format.Update(site, digest, int(rng.integers(1, 500)), 1, random_arrays(rng, SHAPES, 0.01))
        updates.append(folder / f"{site}-{number}.update")
        update_format.write_update(updates[-1], update)
        uploads.append(folder / f"{site}-{number}.enc")
        encrypt(updates[-1], **names, key=federation.key(site), output=uploads[-1])
    total, opened, plain = (folder / f"{name}-{number}" for name in ("sum.enc", "opened", "plain"))
    aggregate(uploads[::-1], **names, key=federation.key("coordinator"), output=total)
    decrypt(total, **names, key=federation.key("site-b"), output=opened)
    aggregate(updates, **names, output=plain)
    after = folder / f"after-{number}.weights", folder / f"after-{number}-plain.weights"
    for change, output in zip((opened, plain), after, strict=True):
        apply(base, change, **names, output=output)
    return after


@pytest.mark.parametrize("method", METHODS)
def test_opened_sums_and_plain_ones_give_the_same_bytes(tmp_path: Path, method: str) -> None:
    federation = make_federation(tmp_path)
    first, first_plain = play(federation, tmp_path, 1, federation.base, method)
    assert first.read_bytes() == first_plain.read_bytes()
    second, second_plain = play(federation, tmp_path, 2, first, method)
    assert second.read_bytes() == second_plain.read_bytes()
    roster = roster_format.read(federation.roster)
    plan, _ = plan_format.read(tmp_path / "plan-2.json", roster)
    assert plan.server.method == method
    held = weights_format.read(second)
    assert held.arrays.keys() == SHAPES.keys()
    assert held.memory is not None
    assert held.memory.method == method
    assert {name.partition("/")[2] for name in held.memory.arrays} == SHAPES.keys() - {"norm.running_var"}

    # the second round goes on from what the first remembered
    forgetful = weights_format.Weights(weights_format.read(first).arrays, {"name": "test"}, {"seed": 0})
    weights_format.write(tmp_path / "forgetful.weights", forgetful)
    (tmp_path / "again").mkdir()
    for name in ("coordinator", *federation.sites):
        forget(federation.key(name))
    third, _ = play(federation, tmp_path / "again", 2, tmp_path / "forgetful.weights", method)
    assert not np.array_equal(weights_format.read(third).arrays["conv.weight"], held.arrays["conv.weight"])


def test_the_audit_computes_the_optimiser_too(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    rounds = Rounds.begin(federation, tmp_path / "exchange")
    rounds.play(1, recipe=recipe(tmp_path, "fedadam"))
    rounds.play(2, recipe=recipe(tmp_path, "fedadam"))
    rounds.open(3)
    assert [one.base for one in audit(rounds.exchange.root).rounds] == ["the first", "recomputed", "recomputed"]
    model = rounds.exchange.model(3)
    held = weights_format.read(model)
    assert held.memory is not None
    name = "variance/conv.weight"
    tampered = Memory("fedadam", {**held.memory.arrays, name: held.memory.arrays[name] * np.float32(2)})
    rounds.exchange.plan(3).unlink()
    other = weights_format.Weights(dict(held.arrays), held.architecture, held.origin, memory=tampered)
    weights_format.write(tmp_path / "other.weights", other)
    model.unlink()
    (tmp_path / "other.weights").rename(model)
    with pytest.raises(MismatchError, match=r"^round 3: its base is not the model"):
        audit(rounds.exchange.root)
    assert rounds.exchange.places(Kind.MODEL, 3)


# Recipe files


def test_recipe_files_that_are_wrong(tmp_path: Path) -> None:
    for text, message in (
        ("learning_rte = 0.1", "no 'learning_rte'"),
        ("learning_rate = '0.1'", "learning_rate is the text '0.1'"),
        ("balanced = 1", "balanced is 1"),
        ("local_norms = 'yes'", "local_norms is the text 'yes'"),
        ("[server]\nmethod = 'sgd'", "method is 'sgd'"),
        ("[server]\nbeta = 0.9", "no 'server.beta'"),
        ("seed = ", "not TOML"),
    ):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            read_recipe(path)
    with pytest.raises(FormatError, match="No such file"):
        read_recipe(tmp_path / "absent.toml")


def test_a_recipe_is_what_the_plan_says(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text("proximal = 0.1\nbalanced = true\nseed = 3\nloss_weights = [1, 1, 2, 1]\nupdate_norm = 2\n")
    federation.open_round(1, tmp_path / "plan-r.json", recipe=path, settings=to_set(seed=5))
    plan, _ = plan_format.read(tmp_path / "plan-r.json", roster_format.read(federation.roster))
    schedule = plan.schedule
    assert (schedule.proximal, schedule.balanced, schedule.update_norm) == (0.1, True, 2)
    assert schedule.loss_weights == (1, 1, 2, 1)
    assert schedule.seed == 5, "what is set comes first"
    path.write_text("proximal = -1")
    with pytest.raises(FormatError, match=r"recipe\.toml: proximal is -1"):
        federation.open_round(1, tmp_path / "plan-x.json", recipe=path)
