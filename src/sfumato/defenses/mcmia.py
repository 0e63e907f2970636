# SPDX-License-Identifier: Apache-2.0
"""MCMIA pruning: most weights of a classifier are zero, so that it has less room to remember who it was trained on.

Source: wang2021mcmia, section IV and Table V; zhang2018admm, section 3; ye2019progressive (`stages`).
Equations: penalty rho/2 sum ||W - Z + U||_F^2 and Eq. 17 and 19 -> `pruning.admm`
Departures: Eq. 12 and 13 put the gain of an attack in the place of the quadratic penalty, lambda G(W - Z), where it is void;
the projection of Eq. 19 solves the ordinary problem only, so the ordinary augmented Lagrangian is meant. The gain of Eq. 10 is a
defense of its own and composes with this one. Neither rho, nor the numbers of epochs, nor the ratio of each layer is in the
paper: rho grows as in released code, and `pruning.weights` divides one ratio over the layers. Training under the mask is not in
Algorithm 1 but in its source; the mask is applied again after each step, since the momentum would revive weights. Zeros of
single weights save storage, not time; `structured` removes channels and saves both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.modules import device_of
from sfumato.pruning import channels
from sfumato.pruning.admm import Admm, Residual, closed, hold, open_rows, prune
from sfumato.pruning.tensors import as_head, resize
from sfumato.pruning.weights import Group, Place, coupled, divide, each, narrow, single
from sfumato.split import Split
from sfumato.types import Epoch, Step

_UPDATES = 10  # of released code; more would take rho to where the steps of an optimizer overshoot


class MCMIA(Defense):
    """Prune the weights of head and tail by ADMM: train, draw most weights to zero, set these to zero, train what is left.

    Args:
        ratio: weights before over weights after, at least 1, as Table V of the paper has it: one for all layers together; or one
            for each, in their order, head first; or a table from patterns for their names, such as "c1*", where a layer that no
            pattern fits stays whole. With `structured`, the ratio of a layer is that of its channels.
        structured: remove whole channels, and rows of linear layers, at the end. It needs the package torch-pruning.
        pretrain: share of the epochs before ADMM begins, [0, 1).
        admm: share of the epochs in which weights are drawn to zero, (0, 1 - pretrain]; the rest trains what is left.
        stages: how often ADMM and training of the rest are repeated, with a ratio that grows: for high ratios, in long runs at a
            constant learning rate. A rate that falls leaves the last stage too small steps.
        every: epochs from one update of Z and U to the next; None makes at most ten updates in a stage, however long it is.
        rho: weight of the penalty at first.
        growth: what rho is multiplied by at each update, at least 1.

    Attributes:
        residuals: of each update of a run that this process trained.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> MCMIA(15.78).ratio, MCMIA((1.25, 5, 20, 16.7, 4)).ratio
        (15.78, (1.25, 5, 20, 16.7, 4))
    """

    name = "mcmia"
    surface = "predictions"
    compresses = True

    def __init__(
        self,
        ratio: float | tuple[float, ...] | dict[str, float] = 10.0,
        *,
        structured: bool = False,
        pretrain: float = 0.3,
        admm: float = 0.3,
        stages: int = 1,
        every: int | None = None,
        rho: float = 0.01,
        growth: float = 1.3,
    ) -> None:
        super().__init__()
        self.ratio = tuple(ratio) if isinstance(ratio, list) else ratio
        _check_ratio(self.ratio)
        if not (0 <= pretrain < 1 and admm > 0 and pretrain + admm <= 1 + 1e-9):
            raise ConfigError(
                f"pretrain must be in [0, 1) and admm above 0, shares of the epochs, at most 1 together, "
                f"got {pretrain} and {admm}"
            )
        if not (0 < rho < math.inf and 1 <= growth < math.inf):
            raise ConfigError(f"rho must be > 0 and growth at least 1, got {rho} and {growth}; 0.01 and 1.3 are the defaults")
        if stages < 1 or (every is not None and every < 1):
            raise ConfigError(f"stages and every must be at least 1, got {stages} and {every}; every=None makes ten updates")
        self.structured, self.pretrain, self.admm, self.stages = structured, pretrain, admm, stages
        self.every, self.rho, self.growth = every, rho, growth
        self.residuals: tuple[Residual, ...] = ()
        self._groups: tuple[Group, ...] = ()
        self._counts: tuple[int, ...] = ()
        self._x = torch.empty(0)
        self._admm: Admm | None = None
        self._held: list[tuple[Place, Tensor]] = []
        self._finished = False

    def prepare(self, model: Split, data: Data) -> None:
        """Find what can be pruned, and how much of each layer stays.

        Raises:
            ConfigError: the ratio fits no layer, empties one, or cannot be reached.
            ModelError: there is nothing to prune.
        """
        if self.structured:
            self._x = torch.rand(2, *data.shape).to(device_of(model))
            self._groups, plan = coupled(model, self._x)
        else:
            self._groups = single(model)
        if not isinstance(self.ratio, float | int):
            self._counts = each(self._groups, self.ratio)
        else:
            self._counts = narrow(plan, self.ratio) if self.structured else divide(self._groups, self.ratio)

    def begin(self, data: Data) -> None:
        """Forget an earlier run."""
        self._admm, self._held = None, []
        self.residuals = self.residuals if self._finished else ()

    def begin_epoch(self, epoch: Epoch) -> None:
        """Start ADMM where its time comes, and hold at zero what is zero once something was pruned."""
        if self._finished:
            self._held = self._zeros()
            return
        stage, first, last = self._stage(epoch)
        self._held = self._zeros() if stage > 0 or epoch.number >= last else []
        if first <= epoch.number < last and self._admm is None:
            self._admm = Admm(self._groups, self._aim(stage), rho=self.rho)

    def penalty(self, step: Step) -> Tensor | None:
        """Return what draws the weights to their projection, or None outside of ADMM's epochs."""
        if self._admm is None:
            return None
        with torch.autocast(step.z.device.type, enabled=False):
            return self._admm.penalty()

    def after_step(self, step: Step) -> None:
        """Set what is pruned to zero again."""
        hold(self._held)

    def end_epoch(self, epoch: Epoch) -> None:
        """Update Z and U, or set what they leave out to zero at the end of ADMM's epochs."""
        if self._admm is None:
            return
        stage, first, last = self._stage(epoch)
        done = epoch.number + 1
        every = self.every or math.ceil((last - first) / _UPDATES)
        if done == last or (done - first) % every == 0:
            self.residuals += (self._admm.update(self._aim(stage), growth=self.growth),)
        if done == last:
            self._prune(stage)
            self._admm = None

    def finish(self, model: Split) -> None:
        """Prune where no epoch did, and remove the channels that are zero."""
        if self._finished:
            return
        self._prune(self.stages - 1)
        if self.structured:
            stays = [open_rows(group).cpu() for group in self._groups]
            channels.remove(as_head(model), [group.root for group in self._groups], stays, self._x)
            self._groups = ()
        self._finished = True

    def reshape(self, model: Split, weights: Mapping[str, Tensor]) -> None:  # noqa: D102
        if self.structured:
            resize(model, weights)
            self._groups = ()
        self._finished = True

    def memory(self) -> dict[str, Tensor]:
        """Return Z, U, rho and the residuals."""
        if self._finished:
            return {}
        trace = [[found.primal, found.dual, found.rho] for found in self.residuals]
        kept = {"residuals": torch.tensor(trace, dtype=torch.float64)} if trace else {}
        return {**kept, **({} if self._admm is None else self._admm.memory())}

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        self.residuals = tuple(Residual(*row) for row in memory.get("residuals", torch.empty(0, 3)).tolist())
        if "rho" in memory:
            self._admm = Admm(self._groups, self._counts, rho=self.rho)
            self._admm.recall(memory)

    def forget(self) -> None:  # noqa: D102
        self._admm, self._held = None, []

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"ratio={self.ratio}, structured={self.structured}, pretrain={self.pretrain}, admm={self.admm}, "
            f"stages={self.stages}, every={self.every}, rho={self.rho}, growth={self.growth}"
        )

    def _stage(self, epoch: Epoch) -> tuple[int, int, int]:
        """Return the stage of an epoch, the first one of its ADMM, and the one after the last."""
        start = min(round(self.pretrain * epoch.total), epoch.total - 1)
        length = (epoch.total - start) / self.stages
        starts = [start + round(stage * length) for stage in range(self.stages)]
        stage = sum(epoch.number >= begun for begun in starts[1:])
        drawn = round(length * self.admm / (1 - self.pretrain))
        return stage, starts[stage], starts[stage] + max(1, drawn)

    def _aim(self, stage: int) -> list[int]:
        """Return how many of each group stay after a stage: the same share of what is left goes in each."""
        share = (stage + 1) / self.stages
        return [
            max(count, round(group.size * (count / group.size) ** share))
            for group, count in zip(self._groups, self._counts, strict=True)
        ]

    def _prune(self, stage: int) -> None:
        for group, count in zip(self._groups, self._aim(stage), strict=True):
            prune(group, count)

    def _zeros(self) -> list[tuple[Place, Tensor]]:
        return [held for group in self._groups for held in closed(group)]


def _check_ratio(ratio: object) -> None:
    """Raise unless a ratio is a number, some numbers or a table of numbers, all of them at least 1."""
    values = list(ratio.values()) if isinstance(ratio, dict) else list(ratio) if isinstance(ratio, tuple) else [ratio]
    if not values or not all(isinstance(value, float | int) and 1 <= value < math.inf for value in values):
        raise ConfigError(
            f"ratio must be a number of at least 1, weights before over weights after, or one for each layer, got {ratio}; "
            "15.78 is the paper's for LeNet-5"
        )
