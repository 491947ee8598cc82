"""Differentially private training: each case's gradient is bounded, the noise is there, and its cost is right."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from torch.nn import functional

from ucadi.commands.init import init
from ucadi.commands.inspect import inspect_file
from ucadi.commands.train import train as train_command
from ucadi.errors import UsageError
from ucadi.formats import checkpoint as checkpoint_format
from ucadi.formats import update as update_format
from ucadi.hyperparameters import Recipe
from ucadi.learn.loop import Hooks, train
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build, state_arrays
from ucadi.learn.privacy import epsilon, private_gradient
from ucadi.learn.recipe import steps
from ucadi.learn.state import TrainingState

TINY = Architecture(width=4, slices=8, size=16, norm="group")
RECIPE = Recipe(noise=1.0, clip_norm=0.5, batch_size=4, drop_rate=0.0, learning_rate=0.05, warmup_epochs=0)


def slab(epoch: int, index: int) -> np.ndarray:
    return np.random.default_rng((epoch, index)).normal(size=(1, 8, 16, 16)).astype(np.float32)


def batch(cases: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = [slab(0, index) * 5 for index in range(cases)]
    return torch.from_numpy(np.array(x, np.float32).reshape(-1, 1, 8, 16, 16)), torch.arange(cases) % 4


def test_no_case_counts_more_than_the_bound() -> None:
    model, (x, y) = build(TINY, 0).train(), batch(6)
    weights = torch.tensor([0.2, 0.2, 0.4, 0.2])
    recipe = dataclasses.replace(RECIPE, noise=1e-9)
    step = steps(recipe, 0, [0] * 6)[0]
    found, logits = private_gradient(model, x, y, weights, recipe, step, expected=4.0)
    assert logits.shape == (6, 4)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    norms = []
    for case in range(6):
        loss = functional.cross_entropy(model(x[case : case + 1]), y[case : case + 1]) * weights[y[case]] / 0.25
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient * min(1, 0.5 / norms[-1]) / 4
    assert max(norms) > 0.5, "else nothing was bounded"
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_the_noise_is_as_large_as_it_says_and_new_in_every_step() -> None:
    model, (x, y) = build(TINY, 0).train(), batch(0)
    weights = torch.ones(4)
    drawn = []
    for number in range(2):
        step = dataclasses.replace(steps(RECIPE, 0, [0] * 12)[0], number=number)
        gradient, _ = private_gradient(model, x, y, weights, RECIPE, step, expected=4.0)
        drawn.append(torch.cat([g.flatten() for g in gradient.values()]))
    for noise in drawn:
        assert noise.std().item() == pytest.approx(0.5 / 4, rel=0.02)
        assert abs(noise.mean().item()) < 0.005
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.05


def test_every_case_is_taken_with_the_same_probability() -> None:
    sizes, taken = [], np.zeros(40)
    for epoch in range(200):
        for step in steps(RECIPE, epoch, [0] * 40):
            sizes.append(len(step.cases))
            taken[step.cases] += 1
    assert len(set(sizes)) > 5
    assert np.mean(sizes) == pytest.approx(4, rel=0.05)
    assert taken.min() > 0.7 * 200
    assert taken.max() < 1.3 * 200


@pytest.mark.parametrize(("noise", "count"), [(2.0, 1), (4.0, 10), (20.0, 300)])
def test_epsilon_against_the_formula_for_gaussian_noise(noise: float, count: int) -> None:
    """Where each step takes every case, Balle and Wang (2018, theorem 8) give the delta of an epsilon."""
    recipe = Recipe(noise=noise, clip_norm=1.0, batch_size=16)
    found = epsilon(recipe, cases=10, epochs=count, delta=1e-5)
    sigma, normal = noise / math.sqrt(count), NormalDist()
    a, b = 1 / (2 * sigma), found * sigma
    assert normal.cdf(a - b) - math.exp(found) * normal.cdf(-a - b) == pytest.approx(1e-5, rel=0.02)


def test_taking_few_of_many_cases_costs_less() -> None:
    of_many = epsilon(RECIPE, cases=400, epochs=1, delta=1e-5)
    of_few = epsilon(RECIPE, cases=8, epochs=50, delta=1e-5)  # as many steps
    assert 0 < of_many < of_few / 3


def test_an_interruption_changes_nothing() -> None:
    labels = [0, 1, 2, 3] * 4
    states: list[TrainingState] = []
    whole, continued = build(TINY, 0), build(TINY, 1)
    hooks = Hooks(checkpoint=states.append, checkpoint_seconds=0)
    records = train(whole, slab, labels, RECIPE, first_epoch=0, epochs=2, hooks=hooks)
    assert states[2].secret_seed == states[0].secret_seed
    assert train(continued, slab, labels, RECIPE, first_epoch=0, epochs=2, resume=states[2]) == records
    after, again = state_arrays(whole), state_arrays(continued)
    assert all(after[name].tobytes() == again[name].tobytes() for name in after)
    other = build(TINY, 0)
    train(other, slab, labels, RECIPE, first_epoch=0, epochs=2)
    assert not np.array_equal(state_arrays(other)["conv.weight"], after["conv.weight"]), "the seed is nobody's to know"


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ({"norm": "batch"}, {}, "a batch norm mixes"),
        ({}, {"clip_norm": None}, "multiples of clip_norm"),
        ({}, {"balanced": True}, "balanced"),
    ],
)
def test_what_cannot_be_private(model: dict[str, str], change: dict[str, object], message: str) -> None:
    network = build(dataclasses.replace(TINY, **model), 0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        train(network, slab, [0, 1, 2, 3], dataclasses.replace(RECIPE, **change), first_epoch=0, epochs=1)  # type: ignore[arg-type]


def test_what_is_spent_is_printed_and_recorded(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", LABELS * 3)
    init(output=tmp_path / "base.weights", width=2, size=16, norm="group")
    (tmp_path / "private.toml").write_text("noise = 1.5\nclip_norm = 1\nbatch_size = 4\ndelta = 1e-4\n")
    results = []
    for local_epochs, first_epoch in ((2, 0), (1, 1)):
        output = tmp_path / f"{local_epochs}.update"
        result = train_command(
            tmp_path / "a.h5", base=tmp_path / "base.weights", site="a", output=output,
            recipe=tmp_path / "private.toml", settings=to_set(local_epochs=local_epochs), first_epoch=first_epoch,
        )  # fmt: skip
        recorded = update_format.read_update(output).privacy
        assert recorded is not None
        assert recorded == result.privacy
        assert f"epsilon {recorded.epsilon:.3g} at delta 0.0001" in str(result)
        results.append(recorded)
    assert results[0] == results[1], "the second of two rounds has spent what both have"
    assert inspect_file(output).facts["privacy"]["epsilon"] == results[0].epsilon


def test_the_secret_seed_is_the_owner_s(tmp_path: Path) -> None:
    state = TrainingState(1, {}, secret_seed=(1 << 127) + 5)
    path = tmp_path / "a.checkpoint"
    checkpoint_format.write(path, {}, state)
    assert path.stat().st_mode & 0o077 == 0
    read = checkpoint_format.read(path, {})
    assert read is not None
    assert read.secret_seed == state.secret_seed
    assert json.dumps(inspect_file(path).facts)
    assert f"{state.secret_seed:x}" not in str(inspect_file(path))
