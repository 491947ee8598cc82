"""Training in several processes, on several GPUs or machines, as if it were one (torchrun, DistributedDataParallel).

Each process takes its share of every batch. Norms, loss and DropBlock's draw are those of the whole batch, so the
result is that of one process, but for the order in which numbers are added.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from ucadi.errors import UsageError


@dataclass(frozen=True)
class Group:
    """The processes that train together; one is what there is without torchrun."""

    rank: int = 0
    size: int = 1

    def share(self, cases: NDArray[np.intp]) -> range:
        """Which places of a batch are this process's. UsageError where one would have none."""
        if self.size == 1:
            return range(len(cases))
        if len(cases) < self.size:
            raise UsageError(
                f"a batch of {len(cases)} cases for {self.size} processes", hint="a larger batch_size, or fewer"
            )
        ends = np.cumsum([len(part) for part in np.array_split(cases, self.size)])
        return range(0 if self.rank == 0 else int(ends[self.rank - 1]), int(ends[self.rank]))

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def gathered(self, rows: Tensor, share: range, total: int) -> Tensor:
        """The rows of a whole batch, of which each process has its share."""
        whole = rows.new_zeros((total, *rows.shape[1:]))
        whole[share.start : share.stop] = rows
        return self.summed(whole)


ALONE = Group()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group that torchrun's environment describes, as long as the context lasts; else this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def own_device(wanted: str) -> torch.device:
    """`auto` is a GPU where there is one, with torchrun that of this process."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("torch finds no GPU here", hint="--device cpu, or install torch's build for this GPU")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if wanted != "cpu":
        raise UsageError(f"no device {wanted!r}", hint="auto, cpu or cuda")
    return torch.device("cpu")


def synchronise_norms(model: nn.Module) -> None:
    """From now on the model's batch norms are over all processes. Their tensors and names stay."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.__class__ = SynchronisedBatchNorm3d


class SynchronisedBatchNorm3d(nn.BatchNorm3d):
    """A batch norm over the batches of all processes. torch's own works on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        shape = (1, -1, 1, 1, 1)
        values = x.float()  # as batch norm does under autocast
        count = _sum_of_all(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _sum_of_all(values.sum((0, 2, 3, 4))) / count
        centred = values - mean.reshape(shape)
        variance = _sum_of_all(centred.square().sum((0, 2, 3, 4))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(x.dtype)


class _SumOfAll(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _sum_of_all(tensor: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(tensor)  # type: ignore[no-untyped-call]
    return total
