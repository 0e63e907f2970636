# SPDX-License-Identifier: Apache-2.0
"""A toy of pruning: a defense whose `finish` changes shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.types import Epoch


class Narrowing(sf.Defense):
    """Remove half the channels of the first of two convolutions of a head, those with the smallest weights."""

    name = "narrowing"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def begin(self, data: sf.Data) -> None:
        self.seen.append("begin")

    def end_epoch(self, epoch: Epoch) -> None:
        self.seen.append(f"epoch {epoch.number} of {epoch.total}")

    def finish(self, model: sf.Split) -> None:
        assert not model.training
        self.seen.append("finish")
        first = _convolutions(model)[0]
        strength = first.weight.abs().sum((1, 2, 3))
        _keep(model, strength.topk(len(strength) // 2).indices.sort().values)

    def reshape(self, model: sf.Split, weights: Mapping[str, Tensor]) -> None:
        first = _convolutions(model)[0]
        names = {module: name for name, module in model.named_modules()}
        _keep(model, torch.arange(len(weights[f"{names[first]}.weight"]), device=first.weight.device))


def _convolutions(model: sf.Split) -> list[nn.Conv2d]:
    return [module for module in model.head.modules() if isinstance(module, nn.Conv2d)]


def _keep(model: sf.Split, channels: Tensor) -> None:
    first, second = _convolutions(model)
    first.weight, first.bias = nn.Parameter(first.weight[channels]), nn.Parameter(first.bias[channels])
    second.weight = nn.Parameter(second.weight[:, channels])
