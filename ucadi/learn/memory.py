"""Training in little memory (Chen et al. 2016), and running out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ucadi.errors import CapacityError


def recomputed(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """One block after another; what is within a block is computed again in the backward pass instead of kept.

    The result is the same to the last bit.
    """
    for block in blocks:

        def contexts(block: nn.Module = block) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(block)

        x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return x


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms do not count the batch a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum


@contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turns torch's and numpy's ways of saying that memory ran out into a CapacityError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # on a CPU torch says so in words only
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise CapacityError(
                "there is not memory enough for a step of training",
                hint="--save-memory, a smaller batch_size, or fewer processes at a time",
            ) from error
        raise
