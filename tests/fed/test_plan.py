"""A round's plan: what it refuses, up to the last number that it admits."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ucadi.errors import UsageError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.plan import Plan
from ucadi.hyperparameters import Recipe

PLAN: dict[str, Any] = {
    "federation": "test",
    "round": 1,
    "base": "0" * 64,
    "roster": "1" * 64,
    "mode": "members",
    "sites": ("a", "b", "c"),
    "quorum": 2,
    "weight_cap": 10,
    "layout": Layout((TensorRange("w", (2,), 0),)),
    "schedule": Recipe(),
}


@pytest.mark.parametrize(
    "fields",
    [
        {"local_epochs": 1, "total_epochs": 1},
        {"local_epochs": 7, "total_epochs": 7},
        {"batch_size": 2},
        {"precision": "bfloat16"},
        {"update_norm": 1e-9},
        {"noise": 1.0, "clip_norm": 1.0, "delta": 0.99},
    ],
)
def test_a_schedule_at_its_limits(fields: dict[str, Any]) -> None:
    made = Recipe(**fields)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"local_epochs": 0}, "^local_epochs is 0", "epochs from 1 to 100000"),
        (
            {"local_epochs": 7, "total_epochs": 6},
            "7 local epochs in a schedule of 6 in total",
            "from 1 to total_epochs",
        ),
        ({"batch_size": 1}, "batch_size is 1", "from 2 to 65536"),
        ({"precision": "float16"}, "'float16'", "float32 or bfloat16"),
        *(
            ({"update_norm": value}, f"update_norm is {value}", "above zero")
            for value in (0.0, -1.0, math.inf, math.nan)
        ),
        *(
            ({"noise": value, "clip_norm": 1.0}, f"noise is {value}", "zero or more")
            for value in (-0.1, math.inf, math.nan)
        ),
        *(({"delta": value}, f"delta is {value}", "between 0 and 1") for value in (0.0, 1.0, math.nan)),
        ({"noise": 0.5}, "clip_norm", "clip_norm = 1.0"),
    ],
)
def test_a_schedule_beyond_them(fields: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Recipe(**fields)
    assert hint in (caught.value.hint or "")


def test_loss_weights_from_json_are_the_same_as_others() -> None:
    assert Recipe(loss_weights=[1.0, 2.0, 3.0, 4.0]) == Recipe(loss_weights=(1.0, 2.0, 3.0, 4.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"quorum": 1}, {"quorum": 3}, {"weight_cap": 1}, {"sites": ("a",), "quorum": 1}])
def test_a_plan_at_its_limits(fields: dict[str, Any]) -> None:
    made = Plan(**{**PLAN, **fields})
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"round": 0}, "round number from 1", ""),
        *(({"sites": sites}, "each once", "") for sites in (("b", "a", "c"), ("a", "a", "c"), ())),
        ({"quorum": 0}, "quorum 0 of 3", "at least 1, at most all"),
        ({"quorum": 4}, "quorum 4 of 3", "at least 1, at most all"),
        ({"weight_cap": 0}, "at least 1", ""),
    ],
)
def test_a_plan_beyond_them(fields: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Plan(**{**PLAN, **fields})
    assert hint in (caught.value.hint or "")


def test_epochs_are_counted_over_all_rounds() -> None:
    made = Plan(**{**PLAN, "round": 4, "schedule": Recipe(local_epochs=3)})
    assert made.first_epoch == 9
