"""Cascading randomisation (Adebayo et al., NeurIPS 2018): weights are lost from the last layer to the first.

An explanation that stays the same did not depend on what was learned.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import nn

from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import build


def cascade(model: Classifier, seed: int) -> Iterator[tuple[str, Classifier]]:
    """The network with ever more of its layers as new, from the classifier to the first convolution.

    Yields the name of the layer that was lost last with the network then; every network is a copy of its own.
    """
    fresh = build(model.architecture, seed).state_dict()
    lost = copy.deepcopy(model)
    for name in reversed([name for name, module in model.named_modules() if _has_weights(module)]):
        state = lost.state_dict()
        state.update({key: value.clone() for key, value in fresh.items() if key.startswith(f"{name}.")})
        lost.load_state_dict(state)
        yield name, copy.deepcopy(lost).eval()


def _has_weights(module: nn.Module) -> bool:
    """Whether a module has learned numbers of its own, and not only modules with them."""
    return any(True for _ in module.parameters(recurse=False))
