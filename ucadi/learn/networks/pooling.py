"""Max pooling whose gradient is the same bits again on a GPU too."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNEL, STRIDE, PADDING = 3, 2, 1


class MaxPool(nn.Module):
    """(N, C, D, H, W) to (N, C, D/2, H/2, W/2): the largest of 3 x 3 x 3 voxels, at every second one.

    On a GPU torch adds the gradients of overlapping windows in the order in which its threads happen to come.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return functional.max_pool3d(x, KERNEL, STRIDE, PADDING)
        y: Tensor = OrderedMaxPool.apply(x)  # type: ignore[no-untyped-call]
        return y


class OrderedMaxPool(torch.autograd.Function):
    """The same with gradients that are added in a fixed order.

    Windows two apart along an axis share no voxel: so the windows are eight sets, by whether their index along
    each axis is even, and within a set every voxel is written at most once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, places = functional.max_pool3d(x, KERNEL, STRIDE, PADDING, return_indices=True)
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        total = gradient.new_zeros(*ctx.shape[:2], ctx.shape[2:].numel())  # (N, C, D H W)
        for d, h, w in itertools.product(range(2), repeat=3):
            into, added = (of[:, :, d::2, h::2, w::2].flatten(2) for of in (places, gradient))
            total += torch.zeros_like(total).scatter_(2, into, added)
        return total.view(ctx.shape)
