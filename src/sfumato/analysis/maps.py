# SPDX-License-Identifier: Apache-2.0
"""The maps that a network makes of a picture, by which two pictures are compared as LPIPS compares them.

Source: zhang2018lpips, section 3 (maps before each pooling, their channels normalized at each place).
Equations: none.
Departures: LPIPS knows the layers of its three networks; here they are found in any: the last module of each spatial size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import ModelError
from sfumato.models.layers import modules_in_order
from sfumato.modules import probe
from sfumato.types import Images

Network = Callable[[Images], Tensor]
"""From pictures, (N, C, H, W), to their logits, (N, K)."""


def unit_maps(network: Network, modules: Sequence[nn.Module], x: Images) -> list[Tensor]:
    """Return what modules of a network give for pictures, with gradient.

    Args:
        network: runs the modules.
        modules: those of which the maps are wanted.
        x: (N, C, H, W).

    Returns:
        Of each module (N, c, h, w), the channels of each place divided by their norm; 0 where all of them are 0.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten())
        >>> unit_maps(model, [model[0]], torch.ones(1, 1, 3, 3))[0].norm(dim=1).unique().round()
        tensor([1.], grad_fn=<RoundBackward0>)
    """
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, answer: Tensor) -> None:
        found[module] = F.normalize(answer, dim=1, eps=1e-10)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(keep).remove)
        network(x)
    return [found[module] for module in modules]


def last_of_each_size(model: nn.Module, example: Images) -> list[nn.Module]:
    """Return the module that gives the last map of each spatial size that a convolution gives, the largest maps first.

    Args:
        model: any module; it runs in eval mode and without gradients.
        example: a batch that it takes, on its device.

    Raises:
        ModelError: no layer gives a map.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 2), nn.Flatten())
        >>> last_of_each_size(model, torch.zeros(1, 1, 6, 6))
        [ReLU(), Conv2d(2, 2, kernel_size=(2, 2), stride=(1, 1))]
    """
    layers = modules_in_order(model, example)
    weighs, sizes, last = {layer.module for layer in layers if layer.weighs}, set(), {}

    def note(module: nn.Module, _: object, answer: object) -> None:
        if isinstance(answer, Tensor) and answer.ndim == 4:
            last[answer.shape[2:]] = module
            if module in weighs:
                sizes.add(answer.shape[2:])

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.module.register_forward_hook(note).remove)
        probe(model, example)
    if not sizes:
        raise ModelError(
            f"a perceptual distance compares maps, and no layer of {type(model).__name__} gives one of (N, C, H, W); take 'l2'"
        )
    return [last[size] for size in sorted(sizes, key=lambda size: -size.numel())]
