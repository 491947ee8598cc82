"""Training learns, follows its schedule, and gives the same bits again, also after an interruption."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ucadi.errors import CapacityError, FormatError, MismatchError, UsageError
from ucadi.hyperparameters import Recipe
from ucadi.learn.inference import predict
from ucadi.learn.loop import Hooks, train
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import build, load_arrays, state_arrays
from ucadi.learn.recipe import drop_rate, learning_rate, steps
from ucadi.learn.state import TrainingState

TINY = Architecture(width=4, slices=8, size=16)
LABELS = [0, 1] * 9 + [2]  # no bacterial case; 19 cases, so that a last batch would hold 3


def toy(epoch: int, index: int) -> NDArray[np.float32]:
    """Noise that changes every epoch, with a bright blob somewhere if the label is 1."""
    rng = np.random.default_rng((epoch, index))
    slab = rng.normal(size=(1, 8, 16, 16))
    if LABELS[index % len(LABELS)] == 1:
        z, y, x = rng.integers(0, (6, 12, 12))
        slab[:, z : z + 3, y : y + 5, x : x + 5] += 3
    return slab.astype(np.float32)


def same(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


# The schedule


def test_schedule_of_the_paper() -> None:
    recipe = Recipe()
    assert learning_rate(recipe, 0) == 0
    assert learning_rate(recipe, 2.5) == pytest.approx(0.005)
    assert learning_rate(recipe, 5) == pytest.approx(0.01)
    assert learning_rate(recipe, 5 + 95 / 3) == pytest.approx(0.0075)  # cos 60° = 1/2
    assert learning_rate(recipe, 52.5) == pytest.approx(0.005)
    assert learning_rate(recipe, 100) == 0
    assert learning_rate(recipe, 101) == 0
    rates = [learning_rate(recipe, e) for e in np.linspace(5, 100, 200)]
    assert all(a > b for a, b in pairwise(rates))


def test_schedule_without_and_with_nothing_but_warm_up() -> None:
    assert learning_rate(Recipe(warmup_epochs=0), 0) == 0.01
    assert learning_rate(Recipe(warmup_epochs=4, total_epochs=4), 3) == pytest.approx(0.0075)
    assert learning_rate(Recipe(warmup_epochs=4, total_epochs=4), 4) == 0
    short = [learning_rate(Recipe(warmup_epochs=warmup, total_epochs=2), 1.5) for warmup in (2, 5)]
    assert short == [0.0075, 0.0075], "a warm-up has no more epochs than there are"


def test_drop_rate_is_a_ramp() -> None:
    assert [drop_rate(Recipe(drop_rate=0.2), e) for e in (0, 50, 100, 120)] == [0, 0.1, 0.2, 0.2]


@pytest.mark.parametrize(("cases", "sizes"), [(1, [1]), (2, [2]), (16, [16]), (17, [9, 8]), (33, [11, 11, 11])])
def test_batches_are_even(cases: int, sizes: list[int]) -> None:
    plan = steps(Recipe(), 3, [0] * cases)
    assert [len(step.cases) for step in plan] == sizes
    assert sorted(np.concatenate([step.cases for step in plan])) == list(range(cases))
    assert all(3 < step.position < 4 for step in plan)
    assert np.mean([step.position for step in plan]) == pytest.approx(3.5)


def test_no_batch_of_one_in_pairs_either() -> None:
    assert [len(step.cases) for step in steps(Recipe(batch_size=2), 0, [0] * 5)] == [3, 2]


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [int(case) for step in steps(Recipe(seed=seed), epoch, [0] * 40) for case in step.cases]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


# Training


def test_learns_a_separable_toy() -> None:
    model = build(TINY, 0)
    recipe = Recipe(learning_rate=0.05, batch_size=8, warmup_epochs=1, total_epochs=12)
    records = train(model, toy, LABELS * 3, recipe, first_epoch=0, epochs=12)
    assert [record.epoch for record in records] == list(range(12))
    assert records[-1].loss < 0.7 * records[0].loss
    unseen = range(1000, 1000 + 2 * len(LABELS))
    truth = [LABELS[i % len(LABELS)] == 1 for i in unseen]
    scores = [p[0, 1] for p in predict(model, (toy(99, i)[None] for i in unseen))]
    assert roc_auc_score(truth, scores) > 0.9


def test_records_say_what_happened() -> None:
    recipe = Recipe(batch_size=8, total_epochs=10)
    (record,) = train(build(TINY, 0), toy, LABELS, recipe, first_epoch=2, epochs=1)
    assert record.epoch == 2
    assert record.learning_rate == pytest.approx(learning_rate(recipe, 2 + 2.5 / 3))
    assert 0 <= record.accuracy <= 1
    assert 0 < record.loss < 5


def test_zero_learning_rate_leaves_the_parameters() -> None:
    model = build(TINY, 0)
    before = state_arrays(model)
    train(model, toy, LABELS, Recipe(learning_rate=0.0), first_epoch=0, epochs=1)
    after = state_arrays(model)
    for name in before:
        assert np.array_equal(before[name], after[name]) is ("running" not in name), name


def test_loss_is_the_weighted_cross_entropy_of_the_epoch() -> None:
    """At rate zero and without dropping, one batch's loss can be computed by hand from its logits."""
    recipe = Recipe(learning_rate=0.0, batch_size=19, drop_rate=0.0)
    (record,) = train(build(TINY, 0), toy, LABELS, recipe, first_epoch=0, epochs=1)
    model = build(TINY, 0).train()
    with torch.no_grad():
        logits = model(torch.from_numpy(np.stack([toy(0, i) for i in range(19)]))).double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    weights = np.array(recipe.loss_weights)[LABELS]
    assert record.loss == pytest.approx(-(weights * log_p[np.arange(19), LABELS]).sum() / weights.sum(), rel=1e-4)
    assert record.accuracy == pytest.approx((logits.argmax(axis=1) == LABELS).mean())


@pytest.mark.parametrize(("precision", "threads"), [("float32", 1), ("float32", 2), ("bfloat16", 1)])
def test_same_bits_again_and_after_an_interruption(precision: str, threads: int) -> None:
    torch.set_num_threads(threads)
    recipe = Recipe(
        batch_size=8, warmup_epochs=1, total_epochs=6, weight_decay=1e-4, proximal=0.1, clip_norm=1.0,
        drop_rate=0.3, precision=precision, seed=5,
    )  # fmt: skip
    whole = build(TINY, 0)
    torch.manual_seed(1)
    records = train(whole, toy, LABELS, recipe, first_epoch=1, epochs=4)

    states: list[TrainingState] = []
    killed = build(TINY, 0)
    torch.manual_seed(2)
    train(killed, toy, LABELS, recipe, first_epoch=1, epochs=2, hooks=Hooks(checkpoint=states.append))
    assert [state.next_epoch for state in states] == [2, 3]
    assert not same(dict(states[0].arrays), dict(states[1].arrays)), "the hook gets copies"

    continued = build(TINY, 123)  # whatever it holds, the state replaces it
    rest = train(continued, toy, LABELS, recipe, first_epoch=1, epochs=4, resume=states[-1])
    assert same(state_arrays(whole), state_arrays(continued))
    assert rest == records


def test_resuming_at_the_end_is_nothing_more_to_do() -> None:
    states: list[TrainingState] = []
    model = build(TINY, 0)
    records = train(model, toy, LABELS, Recipe(), first_epoch=0, epochs=1, hooks=Hooks(checkpoint=states.append))
    again = build(TINY, 9)
    assert train(again, toy, LABELS, Recipe(), first_epoch=0, epochs=1, resume=states[-1]) == records
    assert same(state_arrays(model), state_arrays(again))


def test_seed_matters() -> None:
    results = []
    for seed in (0, 1):
        model = build(TINY, 0)
        train(model, toy, LABELS, Recipe(seed=seed), first_epoch=1, epochs=1)
        results.append(state_arrays(model))
    assert not same(*results)


def test_one_step_against_a_hand_made_one() -> None:
    """Momentum, weight decay, the proximal pull and the clipping, for one step from known gradients."""
    recipe = Recipe(
        learning_rate=0.1, warmup_epochs=0, total_epochs=1,
        weight_decay=0.5, batch_size=32, drop_rate=0.0, clip_norm=0.01,
    )  # fmt: skip
    reference, model = build(TINY, 0).train(), build(TINY, 0)
    order = steps(recipe, 0, LABELS)[0].cases
    x = torch.from_numpy(np.stack([toy(0, int(i)) for i in order]))
    weights = torch.tensor(recipe.loss_weights)
    torch.nn.functional.cross_entropy(reference(x), torch.tensor(LABELS)[order], weights).backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients.values()))
    train(model, toy, LABELS, recipe, first_epoch=0, epochs=1)
    rate = learning_rate(recipe, 0.5)
    after = dict(model.named_parameters())
    for name, p in reference.named_parameters():
        direction = gradients[name] * min(1, 0.01 / norm) + (0.5 * p.detach() if p.ndim > 1 else 0)
        torch.testing.assert_close(after[name].detach(), p.detach() - rate * direction, rtol=1e-3, atol=1e-5)


def test_proximal_pull_keeps_the_weights_near() -> None:
    def moved(proximal: float) -> float:
        model = build(TINY, 0)
        before = state_arrays(model)
        recipe = Recipe(learning_rate=0.05, warmup_epochs=0, total_epochs=3, proximal=proximal)
        train(model, toy, LABELS, recipe, first_epoch=0, epochs=3)
        after = state_arrays(model)
        return math.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before if "running" not in n))

    assert moved(10.0) < 0.7 * moved(0.0)


# Refusals


def test_recipe_goes_through_json() -> None:
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(Recipe())))) == Recipe()


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"batch_size": 1},
        {"total_epochs": 0},
        {"warmup_epochs": -1},
        {"loss_weights": (1.0, 0.0)},
        {"drop_rate": 1.0},
        {"clip_norm": 0.0},
        {"proximal": -1.0},
        {"precision": "int4"},
        {"seed": -1},
    ],
)
def test_impossible_recipes(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        Recipe(**change)  # type: ignore[arg-type]


def one_epoch(
    labels: list[int] = LABELS, recipe: Recipe | None = None, model: Classifier | None = None, **options: object
) -> None:
    train(model or build(TINY, 0), options.get("slab", toy), labels, recipe or Recipe(), first_epoch=0, epochs=1)  # type: ignore[arg-type]


def test_nan_names_the_case() -> None:
    def slab(epoch: int, index: int) -> NDArray[np.float32]:
        return toy(epoch, index) * (np.float32(np.nan) if index == 7 else np.float32(1))

    with pytest.raises(FormatError, match=r"case 7: .*not finite"):
        one_epoch(slab=slab)


def test_wrong_shape_names_the_case() -> None:
    with pytest.raises(MismatchError, match=r"case \d+: the slab is \(1, 8, 16, 15\)"):
        one_epoch(slab=lambda e, i: toy(e, i)[..., :-1])


def test_refusals_before_training() -> None:
    with pytest.raises(FormatError, match="no cases"):
        one_epoch([])
    with pytest.raises(MismatchError, match="case 1: label 4"):
        one_epoch([0, 4])
    with pytest.raises(MismatchError, match="2 loss weights for 4 classes"):
        one_epoch(recipe=Recipe(loss_weights=(1.0, 1.0)))
    with pytest.raises(UsageError, match="schedule of 100"):
        train(build(TINY, 0), toy, LABELS, Recipe(), first_epoch=99, epochs=2)


def test_divergence_is_an_error_with_a_way_out() -> None:
    with pytest.raises(CapacityError, match="diverged") as caught:
        one_epoch(recipe=Recipe(learning_rate=1e30, warmup_epochs=0, batch_size=8))
    assert "learning rate" in (caught.value.hint or "")


def test_states_that_do_not_fit() -> None:
    states: list[TrainingState] = []
    train(build(TINY, 0), toy, LABELS, Recipe(), first_epoch=0, epochs=1, hooks=Hooks(checkpoint=states.append))
    with pytest.raises(MismatchError, match="continues at epoch 1"):
        train(build(TINY, 0), toy, LABELS, Recipe(), first_epoch=4, epochs=1, resume=states[0])
    wider = build(dataclasses.replace(TINY, width=8), 0)
    with pytest.raises(MismatchError, match="weights do not fit"):
        train(wider, toy, LABELS, Recipe(), first_epoch=0, epochs=2, resume=states[0])
    with pytest.raises(MismatchError, match=r"anchor does not fit.*is missing"):
        train(build(TINY, 0), toy, LABELS, Recipe(proximal=1.0), first_epoch=0, epochs=2, resume=states[0])


# Arrays


def test_arrays_there_and_back() -> None:
    model, other = build(TINY, 0), build(TINY, 1)
    train(model, toy, LABELS, Recipe(), first_epoch=1, epochs=1)  # leaves channels last behind
    arrays = state_arrays(model)
    assert list(arrays) == sorted(arrays)
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in arrays.values())
    assert not any("num_batches_tracked" in name for name in arrays)
    load_arrays(other, arrays)
    assert same(arrays, state_arrays(other))
    x = [toy(0, 1)[None]]
    assert np.array_equal(next(predict(model, x)), next(predict(other, x)))


def test_arrays_that_do_not_fit() -> None:
    model = build(TINY, 0)
    before = state_arrays(model)
    arrays = {name: a + 1 for name, a in before.items()}
    arrays["extra"] = arrays.pop("conv.bias")
    arrays["norm.weight"] = np.zeros(3, np.float32)
    with pytest.raises(
        MismatchError, match=r"conv\.bias is missing; extra is unknown; norm\.weight is \(3,\), not \(4,\)"
    ):
        load_arrays(model, arrays)
    assert same(before, state_arrays(model)), "a refusal leaves the network as it was"
