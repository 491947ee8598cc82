"""Images that were made before, for critics to see again (Shrivastava et al. 2017)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucadi.errors import MismatchError


class ImagePool:
    """Made images that the critics are shown again, so that they do not forget (Shrivastava et al. 2017)."""

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        self.size, self.shape = size, shape
        self.images: list[Tensor] = []

    def exchange(self, made: Tensor, rng: np.random.Generator) -> Tensor:
        """Images (N, depth, H, W) to show: once the pool is full, half are older ones whose place the new take."""
        shown = []
        for image in made:
            if len(self.images) < self.size:
                self.images.append(image)
                shown.append(image)
            elif self.size and rng.random() < 0.5:
                place = int(rng.integers(self.size))
                shown.append(self.images[place])
                self.images[place] = image
            else:
                shown.append(image)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def array(self) -> NDArray[np.float32]:
        """The images as one array, float32 (n, depth, H, W)."""
        return np.array([image.cpu().numpy() for image in self.images], np.float32).reshape(-1, *self.shape)

    def restore(self, images: NDArray[np.float32]) -> None:
        """Sets what `array` gave. MismatchError for images of another shape, or too many."""
        if len(images) > self.size or images.shape[1:] != self.shape:
            raise MismatchError(f"the training state's pool is {images.shape}, not up to {self.size} of {self.shape}")
        self.images = [torch.from_numpy(np.array(image)) for image in images]
