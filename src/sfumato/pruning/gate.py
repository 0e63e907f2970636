# SPDX-License-Identifier: Apache-2.0
"""Soft masks: gates that multiply what a module gives out, channel by channel, until they are folded into its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Gated = nn.Conv2d | nn.BatchNorm2d
"""Modules that a gate can be folded into."""


class Gate:
    """A forward hook that multiplies the output of a module, (N, C, H, W), by a mask.

    A hook and not a wrapper: names and graphs stay as they are, and a deep copy of module and mask copies both.

    Args:
        mask: (C,), or (1,) for all channels alike.
    """

    def __init__(self, mask: nn.Parameter) -> None:
        self.mask = mask

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """Return the masked output."""
        return output * self.mask.view(-1, 1, 1)


def attach(module: nn.Module, mask: nn.Parameter) -> None:
    """Multiply what a module gives out by a mask from now on."""
    module.register_forward_hook(Gate(mask))


def detach(module: nn.Module) -> None:
    """Take the gates off a module and all that is in it."""
    for inner in module.modules():
        for key, hook in list(inner._forward_hooks.items()):
            if isinstance(hook, Gate):
                del inner._forward_hooks[key]


@torch.no_grad()
def fold(module: nn.Module) -> None:
    """Take the gates off a module and all that is in it, and scale its weights so that it computes the same without them."""
    for inner in module.modules():
        for hook in list(inner._forward_hooks.values()):
            if isinstance(hook, Gate):
                scale(inner, hook.mask)
    detach(module)


@torch.no_grad()
def scale(module: nn.Module, mask: Tensor) -> None:
    """Multiply the weights of a module so that what it gives out is multiplied by a mask.

    Args:
        module: that a gate can be on.
        mask: (C,), or (1,) for all channels alike.
    """
    assert isinstance(module, Gated)  # noqa: S101 -- nothing else is gated
    module.weight.mul_(mask.view((-1, 1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)))
    if module.bias is not None:
        module.bias.mul_(mask)
