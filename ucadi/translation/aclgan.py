"""ACL-GAN (Zhao et al. 2020): what is made back need not be the same image, but one that could have been.

Generators take noise. An image made back from its translation, and one made of it directly, each beside the
original: a critic of pairs must not tell which is which (adversarial consistency). So a translation may lose
what cannot be had back, such as where contrast medium was.

Losses and weights are the authors', in both directions at once. The networks are CycleGAN's, with noise as one more
channel, in place of the authors' encoders of content and style; zero noise stands for an image's own style in the
identity loss; and what is to change is not bounded by a mask, as generators add a change to their input anyway.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ucadi.translation.recipe import KINDS, OTHER
from ucadi.translation.trainer import Images, Made, TranslationTrainer, absolute, noise_for, squared, total

MADE, BACK, AGAIN = "made", "back", "again"
"""An image of this kind made of one of the other; made back from its own translation; and made of itself."""


class ACLGANTrainer(TranslationTrainer):
    """Least-squares adversarial, adversarial-consistency and identity losses."""

    def make(self, real: Images, rng: np.random.Generator) -> Made:
        make, critics, noise = self.model.generators, self.model.critics, partial(noise_for, rng=rng)
        made = {k: make[k](real[OTHER[k]], noise(real[OTHER[k]])) for k in KINDS}
        back = {k: make[k](made[OTHER[k]], noise(real[k])) for k in KINDS}
        again = {k: make[k](real[k], noise(real[k])) for k in KINDS}
        images = {MADE: made, BACK: back, AGAIN: again}
        fooled = {name: {k: squared(critics[k](x[k]), 1.0) for k in KINDS} for name, x in images.items()}
        return Made(
            images,
            adversarial=total(fooled[MADE][k] + (fooled[BACK][k] + fooled[AGAIN][k]) / 2 for k in KINDS),
            consistency=total(self._pairs(real[k], back[k], again[k], k, told=False) for k in KINDS),
            identity=total(absolute(make[k](real[k]), real[k]) for k in KINDS),
        )

    def judge(self, real: Images, made: Made, rng: np.random.Generator) -> Tensor:
        del rng
        critics = self.model.critics
        seen = {name: {k: x.detach() for k, x in images.items()} for name, images in made.images.items()}
        told = {name: {k: squared(critics[k](x[k]), 0.0) for k in KINDS} for name, x in seen.items()}
        right = {k: squared(critics[k](real[k]), 1.0) for k in KINDS}
        single = total(2 * right[k] + told[MADE][k] + (told[BACK][k] + told[AGAIN][k]) / 2 for k in KINDS)
        pairs = total(self._pairs(real[k], seen[BACK][k], seen[AGAIN][k], k, told=True) for k in KINDS)
        return single + self.recipe.consistency * pairs

    def _pairs(self, real: Tensor, back: Tensor, again: Tensor, kind: str, *, told: bool) -> Tensor:
        """Of an image beside what was made back and what was made again: whether these are told apart, or mistaken."""
        critic = self.model.pair_critics[0][kind]  # type: ignore[index]
        loss: Tensor = squared(critic(torch.cat([real, back], dim=1)), float(told))
        return loss + squared(critic(torch.cat([real, again], dim=1)), float(not told))
