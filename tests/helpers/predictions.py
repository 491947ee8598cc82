"""Predictions of models that see more or less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ucadi.formats import predictions as predictions_format
from ucadi.formats.predictions import Predictions


def predicted(path: Path, strength: float, seed: int, *, model: str, count: int = 60, **changes: Any) -> Path:
    """Predictions of `count` CTs, two of each patient, which the seed names; the last ones unlike in strength."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(np.arange(count // 2) % 4), 2).astype(np.int32)
    noise = np.random.default_rng([seed, int(10 * strength)]).normal(size=(count, 5, 4))
    powers = np.exp(noise + strength * np.eye(4)[labels][:, None])
    parts: dict[str, Any] = {
        "model": model,
        "dataset": f"{seed:064x}",
        "cases": tuple(f"{seed:08x}{i:08x}" for i in range(count)),
        "patients": tuple(f"{seed:08x}{i // 2:08x}" for i in range(count)),
        "labels": labels,
        "probabilities": (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions_format.write(path, Predictions(**{**parts, **changes}))
    return path
