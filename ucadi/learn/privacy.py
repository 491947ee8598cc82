"""Differentially private SGD (Abadi et al., CCS 2016): bounded gradients of single cases, noise, and what it costs.

Neighbouring datasets differ in one case, that is one scan. An update then tells little of any one scan even to who
opens it alone. Order and noise come from a seed that nobody else knows; they are pseudorandom floating-point numbers,
which is how such training is commonly done, and not a proof against who can measure their last bits.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ucadi.errors import UsageError
from ucadi.hyperparameters import Recipe
from ucadi.learn.recipe import Step, steps_an_epoch


def check_private(norm: str, recipe: Recipe) -> None:
    """Raises UsageError for what cannot be private: a batch norm, a balanced draw."""
    if norm != "group":
        raise UsageError(
            "a batch norm mixes the cases of a batch, so that no gradient is that of one case",
            hint="begin with weights of ucadi init --norm group",
        )
    if recipe.balanced:
        raise UsageError("a balanced draw tells more of rare cases", hint="leave out balanced, or the noise")


def private_gradient(
    model: nn.Module, x: Tensor, y: Tensor, class_weights: Tensor, recipe: Recipe, step: Step, expected: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The noisy mean gradient of a batch by parameter, and the logits (N, 4).

    Each case's gradient is scaled to a norm of at most `clip_norm`; noise of `noise` times as much is added to
    the sum, and all divided by `expected`, the mean size of a batch, whatever the size of this one. A
    case's loss is the cross-entropy times its class weight over the mean of the classes'.
    """
    assert recipe.clip_norm is not None
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    scale = class_weights / class_weights.mean()
    logits = []
    for i in range(len(y)):
        output = model(x[i : i + 1]).float()  # (1, 4)
        loss = functional.cross_entropy(output, y[i : i + 1]) * scale[y[i]]
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        factor = min(1.0, recipe.clip_norm / max(norm, 1e-12))
        for name, gradient in zip(parameters, gradients, strict=True):
            total[name] += gradient * factor
        logits.append(output.detach())
    rng = np.random.default_rng((step.seed, step.epoch, 2, step.number))
    for name in total:
        noise = rng.normal(0.0, recipe.noise * recipe.clip_norm, total[name].shape).astype(np.float32)
        total[name] = (total[name] + torch.from_numpy(noise).to(total[name].device)) / expected
    return total, torch.cat(logits) if logits else torch.zeros(0, len(class_weights))


def epsilon(recipe: Recipe, cases: int, epochs: int, delta: float) -> float:
    """The epsilon, for `delta`, that `epochs` epochs on that many cases spend, by privacy loss distributions.

    Every step takes each case with the same probability, independently (Poisson sampling).
    """
    import dp_accounting
    from dp_accounting.pld import pld_privacy_accountant

    logging.getLogger("absl").setLevel(logging.ERROR)  # it tells of orders that it leaves out, which is harmless
    count = steps_an_epoch(recipe, cases)
    accountant = pld_privacy_accountant.PLDAccountant()
    sampled = dp_accounting.PoissonSampledDpEvent(1 / count, dp_accounting.GaussianDpEvent(recipe.noise))
    accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, count * epochs))
    return float(accountant.get_epsilon(delta))
