# SPDX-License-Identifier: Apache-2.0
"""PATROL: prune the head so that more of the net fits on the device, and so that its features tell little of the picture.

Source: ding2024patrol, section III and Algorithm 1.
Equations: Eq. 1 -> `masks`; Eq. 4 and 5 -> `lipschitz`; Eq. 6 and 7 and Eq. 8 to 10 -> PATROL.penalty
Departures: as in `masks`, `lipschitz` and `surrogate`. Algorithm 1 makes three updates for each batch, each of them with the
task loss; the third moves theta and m, as its line 24 has it (Eq. 1 moves m alone). Fused, masks get no gradient of the Lipschitz
loss either: it would close what the task needs. The surrogate trains before the first epoch too: the paper's is random until the
tenth. Its learning rate is not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from sfumato.analysis.lipschitz import Supremum, chain, local_constants
from sfumato.arguments import require_choice
from sfumato.data.base import Data
from sfumato.defenses.adversary import Adversarial, InnerAdversary
from sfumato.defenses.masks import Kind, SoftMasks, Sparsity
from sfumato.defenses.surrogate import Inversion, Surrogate, distance
from sfumato.errors import ConfigError
from sfumato.modules import device_of, eval_mode
from sfumato.pruning.footprint import Footprint, Keep
from sfumato.split import Split
from sfumato.types import Epoch, Step


class PATROL(Adversarial):
    """Prune the head by soft masks, against an inversion network, with small local Lipschitz constants.

    Args:
        keep: what may stay of the head as `prepare` finds it; None leaves it to the masks, of which those at or below the
            threshold go.
        unit: remove channels, or residual branches as a whole.
        prune: off, nothing is masked and nothing removed.
        adversarial: off, there is no adversarial reconstruction.
        lipschitz: off, there is no Lipschitz loss.
        fused: make one update with all terms for each batch; else three, one after another, as Algorithm 1.
        beta: weight of the adversarial loss.
        alpha: weight of the Lipschitz constant of each block of the head; the last is that of all blocks that follow.
        supremum: over the pictures of a batch: the largest, or their mean.
        sparsity: how masks are drawn to zero.
        inversion: how the surrogate is trained.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> PATROL(keep=Keep(memory="4.8MB")).keep.memory
        '4.8MB'
    """

    name = "patrol"

    def __init__(
        self,
        keep: Keep | None = Keep(parameters=1 / 3),  # noqa: B008 -- frozen
        *,
        unit: Kind = "channel",
        prune: bool = True,
        adversarial: bool = True,
        lipschitz: bool = True,
        fused: bool = False,
        beta: float = 4e-4,
        alpha: tuple[float, ...] = (5.0, 0.2, 0.01, 0.005),
        supremum: Supremum = "max",
        sparsity: Sparsity = Sparsity(),  # noqa: B008 -- frozen
        inversion: Inversion = Inversion(),  # noqa: B008 -- frozen
    ) -> None:
        super().__init__()
        require_choice("unit", unit, ("channel", "block"))
        require_choice("supremum", supremum, ("max", "mean"))
        if not 0 <= beta < math.inf:
            raise ConfigError(f"beta must be >= 0 and finite, got {beta}; 0.0004 is the paper's")
        if keep is not None and not isinstance(keep, Keep):
            raise ConfigError(f'keep must be a Keep, such as Keep(memory="4.8MB"), or None, got {keep!r}')
        if not isinstance(alpha, tuple | list) or not alpha or not all(0 <= value < math.inf for value in alpha):
            raise ConfigError(f"alpha must be one or more numbers >= 0, got {alpha}; [5, 0.2, 0.01, 0.005] is the paper's")
        self.keep, self.unit, self.prune, self.fused = keep, unit, prune, fused
        self.adversarial, self.lipschitz = adversarial, lipschitz
        self.beta, self.alpha, self.supremum = beta, tuple(alpha), supremum
        self.sparsity, self.inversion = sparsity, inversion
        self.masks: SoftMasks | None = None
        self.surrogate = Surrogate(inversion)
        self._blocks: tuple[nn.Module, ...] = ()

    @property
    def phases(self) -> tuple[str, ...]:
        """The updates of Algorithm 1 that are switched on; none where they are fused."""
        on = {"adversarial": self.adversarial, "lipschitz": self.lipschitz, "mask": self.masks is not None}
        return () if self.fused else tuple(name for name, used in on.items() if used)

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:  # noqa: D102
        return {"surrogate.": self.surrogate}

    @property
    def saving(self) -> Footprint:  # noqa: D102
        return Footprint() if self.masks is None else self.masks.saving

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield nothing: FISTA moves the masks."""
        return iter(())

    def prepare(self, model: Split, data: Data) -> None:
        """Put masks on the head."""
        if self.prune:
            x = torch.rand(2, *data.shape).to(device_of(model))
            self.masks = SoftMasks(model, x, kind=self.unit, sparsity=self.sparsity, keep=self.keep)

    def begin_epoch(self, epoch: Epoch) -> None:
        """Train the surrogate every `period` epochs."""
        assert isinstance(epoch.model, Split)  # noqa: S101 -- the loop trains no other
        if self.masks is not None:
            self.masks.begin_epoch()
        if self.lipschitz and not self._blocks:
            self._blocks = chain(epoch.model.head)
        if self.adversarial:
            self.surrogate.face(epoch.model)
            if epoch.number % self.inversion.period == 0 or not self.surrogate.memory():  # none: fine-tuning starts anew
                for _ in range(self.inversion.epochs):
                    self.surrogate.learn_epoch(epoch)

    def before_step(self, step: Step) -> None:
        """Build the surrogate of a run that goes on, and forget the masks' gradient of another update."""
        if self.adversarial:
            self.surrogate.meet(self.surrogate.last_map(step.z), step.x)
        if self.masks is not None:
            self.masks.clear()

    def penalty(self, step: Step) -> Tensor | None:
        """Return the terms of this update: -beta L_adv, Eq. 9; L_lip, Eq. 7; both in one where the updates are fused."""
        terms = []
        with torch.autocast(step.z.device.type, enabled=False):
            if self.adversarial and step.phase in ("main", "adversarial"):
                terms.append(-self.beta * distance(self.surrogate.frozen(self.surrogate.last_map(step.z)), step.x))  # Eq. (9)
            if self.lipschitz and step.phase in ("main", "lipschitz"):
                terms.append(self._lipschitz_loss(step))
        return torch.stack(terms).sum() if terms else None

    def after_step(self, step: Step) -> None:
        """Move the masks."""
        if self.masks is not None and step.phase in ("main", "mask"):
            self.masks.step()

    def end_epoch(self, epoch: Epoch) -> None:
        """Close the smallest masks."""
        if self.masks is not None:
            self.masks.narrow((epoch.number + 1) / epoch.total)

    def finish(self, model: Split) -> None:
        """Remove what the masks close."""
        if self.masks is not None:
            self.masks.remove(model)
        self.masks, self._blocks = None, ()

    def reshape(self, model: Split, weights: Mapping[str, Tensor]) -> None:  # noqa: D102
        if self.masks is not None:
            self.masks.reshape(model, weights)
        self.masks = None

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"keep={self.keep}, unit={self.unit!r}, prune={self.prune}, adversarial={self.adversarial}, "
            f"lipschitz={self.lipschitz}, fused={self.fused}, beta={self.beta}, alpha={self.alpha}, "
            f"supremum={self.supremum!r}, sparsity={self.sparsity}, inversion={self.inversion}"
        )

    def _lipschitz_loss(self, step: Step) -> Tensor:
        with eval_mode(nn.ModuleList(self._blocks)), nullcontext() if self.masks is None else self.masks.still():
            constants = local_constants(self._blocks, step.x, generator=step.generator, supremum=self.supremum)
        weights = [*self.alpha, *[self.alpha[-1]] * len(constants)][: len(constants)]
        return (constants * constants.new_tensor(weights)).sum()  # Eq. (6)


def literal(
    *,
    adversarial: bool = True,
    lipschitz: bool = True,
    unit: Kind = "channel",
    inversion: Inversion = Inversion(),  # noqa: B008
) -> PATROL:
    """Return PATROL with every number of the paper meant literally: half of the masks are 0 from the start and hardly one moves.

    Args:
        adversarial: off, there is no adversarial reconstruction.
        lipschitz: off, there is no Lipschitz loss.
        unit: remove channels, or residual branches as a whole.
        inversion: how the surrogate is trained.
    """
    masks = Sparsity(average=False, rate=1e-6, start="normal", least=0.0)
    return PATROL(None, adversarial=adversarial, lipschitz=lipschitz, unit=unit, sparsity=masks, inversion=inversion)
