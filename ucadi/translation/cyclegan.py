"""CycleGAN (Zhu et al. 2017): what is made can be made back."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ucadi.translation.recipe import KINDS, OTHER
from ucadi.translation.trainer import Images, Made, TranslationTrainer, absolute, squared, total


class CycleGANTrainer(TranslationTrainer):
    """Least-squares adversarial, cycle and identity losses; critics see images of a pool."""

    def make(self, real: Images, rng: np.random.Generator) -> Made:
        del rng
        make, critics = self.model.generators, self.model.critics
        images = {kind: make[kind](real[OTHER[kind]]) for kind in KINDS}
        return Made(
            {"made": images},
            adversarial=total(squared(critics[kind](images[kind]), 1.0) for kind in KINDS),
            consistency=total(absolute(make[kind](images[OTHER[kind]]), real[kind]) for kind in KINDS),
            identity=total(absolute(make[kind](real[kind]), real[kind]) for kind in KINDS),
        )

    def judge(self, real: Images, made: Made, rng: np.random.Generator) -> Tensor:
        critics = self.model.critics
        shown = {kind: self.pools[kind].exchange(made.images["made"][kind].detach(), rng) for kind in KINDS}
        return total(
            (squared(critics[kind](real[kind]), 1.0) + squared(critics[kind](shown[kind]), 0.0)) / 2 for kind in KINDS
        )
