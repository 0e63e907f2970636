# SPDX-License-Identifier: Apache-2.0
"""ResSFL: a decoder learns to invert the features during training, and the head learns to keep its pictures unlike the real ones.

Source: li2022ressfl, section 4, and its release (`res_normN4C64`, `gan_adv_step1`); xia2025cem, Tables 1 to 3.
Equations: L + weight * max(SSIM(D(z), x) - threshold, 0) -> ResSFL.penalty; D learns max SSIM(D(z), x) -> ResSFL.before_step
Departures: D learns from the features of this very forward pass, head in train mode; the release runs the head again, in eval
mode. The pre-training goes over the pictures in their stored order, without augmentation. The learning rate of D stays where it
starts; the release has a schedule. SSIM mirrors the borders; the release pads them with zeros. As in the release, D sees the
features before any noise and answers the penalty in eval mode with its weights frozen. The transfer of resistance to another task
is a second call of `harden`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.defenses.adversary import Adversarial, DecoderAdversary, InnerAdversary
from sfumato.errors import ConfigError
from sfumato.metrics.image import ssim
from sfumato.types import Epoch, Step


class ResSFL(Adversarial):
    """Train against an image decoder of one's own.

    Args:
        weight: of the penalty on the SSIM of its pictures, averaged over the batch.
        threshold: SSIM at which the penalty begins (the CEM release has 0.6 on FaceScrub and Tiny-ImageNet).
        steps: updates of the decoder for each batch.
        pretrain: epochs that the decoder trains before the model does.
        blocks: residual blocks of the decoder.
        channels: their width.
        learning_rate: of the decoder's Adam.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> ResSFL(weight=0.3, pretrain=5).describe()
        'ResSFL(weight=0.3, threshold=0.5, steps=1, pretrain=5, blocks=4, channels=64, learning_rate=0.001)'
    """

    name = "ressfl"

    def __init__(
        self,
        weight: float = 0.3,
        *,
        threshold: float = 0.5,
        steps: int = 1,
        pretrain: int = 30,
        blocks: int = 4,
        channels: int = 64,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight >= 0 and -1 <= threshold <= 1):
            raise ConfigError(
                f"weight must be >= 0 and threshold in [-1, 1], got {weight} and {threshold}; 0.3 and 0.5 are the release's"
            )
        if steps < 1 or pretrain < 0:
            raise ConfigError(f"steps must be at least 1 and pretrain at least 0, got {steps} and {pretrain}")
        self.weight, self.threshold = weight, threshold
        self.steps, self.pretrain = steps, pretrain
        self.adversary = DecoderAdversary(blocks=blocks, channels=channels, learning_rate=learning_rate)

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The decoder."""
        return {"": self.adversary}

    def begin_epoch(self, epoch: Epoch) -> None:
        """Train the decoder alone before the first epoch."""
        if epoch.number == 0:
            for _ in range(self.pretrain):
                for x, z, _ in epoch.batches():
                    self._learn(z, x)

    def before_step(self, step: Step) -> None:
        """Train the decoder on this batch."""
        for _ in range(self.steps):
            self._learn(step.z.detach(), step.x)

    def penalty(self, step: Step) -> Tensor:  # noqa: D102
        with torch.autocast(step.z.device.type, enabled=False):
            similarity = ssim(self.adversary.frozen(step.z), step.x).mean()
            return self.weight * F.relu(similarity - self.threshold)

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"weight={self.weight}, threshold={self.threshold}, steps={self.steps}, pretrain={self.pretrain}, "
            f"{self.adversary.extra_repr()}"
        )

    def _learn(self, z: Tensor, x: Tensor) -> None:
        """Make one step of the decoder up the SSIM of its pictures."""
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
            self.adversary.meet(z, x)
            self.adversary.learn(-ssim(self.adversary(z), x).mean())
