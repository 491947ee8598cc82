"""CouncilGAN (Nizan and Tal 2020): what several generators agree on is what must be kept.

Four generators of each direction learn together, each with its critic. Another critic of each sees an image beside the
one that it is made of, and tells whether this member made it or a colleague; the member must not be told apart. So none
changes what the others would not, and nothing need be made back.

Losses and council are the authors'. The networks are CycleGAN's, with noise as one more channel, in place of
encoders of content and style; and the mean change is kept small in place of a mask that is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ucadi.translation.recipe import KINDS, OTHER
from ucadi.translation.trainer import Images, Made, TranslationTrainer, absolute, noise_for, squared, total


class CouncilGANTrainer(TranslationTrainer):
    """Least-squares adversarial and council losses, and the mean change, each the mean of the members."""

    def make(self, real: Images, rng: np.random.Generator) -> Made:
        source = {kind: real[OTHER[kind]] for kind in KINDS}
        noise = {kind: noise_for(source[kind], rng) for kind in KINDS}
        making, judging, council = self.model.making, self.model.judging, self.model.pair_critics
        images = {
            str(number): {kind: make[kind](source[kind], noise[kind]) for kind in KINDS}  # type: ignore[index]
            for number, make in enumerate(making)
        }
        members = [(images[str(n)], judging[n], council[n]) for n in range(len(making))]
        return Made(
            images,
            adversarial=total(_mean([squared(judge[k](made[k]), 1.0) for made, judge, _ in members]) for k in KINDS),  # type: ignore[index]
            consistency=total(
                _mean([squared(told[k](_beside(source[k], made[k])), 1.0) for made, _, told in members])  # type: ignore[index]
                for k in KINDS
            ),
            identity=total(_mean([absolute(made[k], source[k]) for made, _, _ in members]) for k in KINDS),
        )

    def judge(self, real: Images, made: Made, rng: np.random.Generator) -> Tensor:
        del rng
        seen = [{kind: x.detach() for kind, x in images.items()} for images in made.images.values()]
        losses = {kind: [] for kind in KINDS}  # type: dict[str, list[Tensor]]
        for number, (judge, told) in enumerate(zip(self.model.judging, self.model.pair_critics, strict=True)):
            others = [images for place, images in enumerate(seen) if place != number]
            for kind in KINDS:
                critic, member, source = judge[kind], told[kind], real[OTHER[kind]]  # type: ignore[index]
                alone = squared(critic(real[kind]), 1.0) + squared(critic(seen[number][kind]), 0.0)
                own = squared(member(_beside(source, seen[number][kind])), 0.0)
                theirs = _mean([squared(member(_beside(source, images[kind])), 1.0) for images in others])
                losses[kind].append((alone + self.recipe.consistency * (own + theirs)) / 2)
        return total(_mean(losses[kind]) for kind in KINDS)


def _beside(source: Tensor, made: Tensor) -> Tensor:
    return torch.cat([source, made], dim=1)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
