# SPDX-License-Identifier: Apache-2.0
"""Group normalization in the place of batch normalization, for training in which no picture may change what another becomes.

Source: wu2018group; the number of groups as yousefpour2021opacus chooses it, the greatest common divisor of 32 and the channels.
Departures: a group has at least four channels, where there are as many. With the source's rule 32 channels are 32 groups of one:
where a feature map has a single place, such a group is one number, whose deviation from its own mean is 0 whatever the picture.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_LEAST = 4


def groups(channels: int) -> int:
    """Return into how many groups to divide channels.

    Example:
        >>> [groups(channels) for channels in (512, 64, 32, 24, 6, 1)]
        [32, 16, 8, 4, 1, 1]
    """
    found = math.gcd(32, channels)
    while found > 1 and channels // found < _LEAST:
        found //= 2  # a power of two: it still divides the channels
    return found


def batch_norms(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's batch normalizations.

    Example:
        >>> batch_norms(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)))
        ('1',)
    """
    return tuple(name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, _BatchNorm))


def replace_batch_norms(model: nn.Module) -> None:
    """Put group normalization in the place of each batch normalization of a model, with its scale and shift.

    Args:
        model: any module, changed in place; none itself.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        >>> replace_batch_norms(model)
        >>> model[1].num_groups
        2
    """
    made: dict[nn.Module, nn.GroupNorm] = {}
    for name in batch_norms(model):
        norm = model.get_submodule(name)
        assert isinstance(norm, _BatchNorm)  # noqa: S101 -- as listed
        model.set_submodule(name, made.setdefault(norm, _group_norm(norm)))


@torch.no_grad()
def _group_norm(norm: _BatchNorm) -> nn.GroupNorm:
    made = nn.GroupNorm(groups(norm.num_features), norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        made.to(norm.weight)
        made.weight.copy_(norm.weight)
        made.bias.copy_(norm.bias)
    return made.train(norm.training)
