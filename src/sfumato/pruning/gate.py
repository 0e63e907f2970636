# SPDX-License-Identifier: Apache-2.0
"""Soft masks: gates that multiply what a module gives out, channel by channel, until they are folded into its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Gated = nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d
"""Modules that a gate can be folded into."""


class Gate:
    """A hook that multiplies what a module gives out, (N, C, H, W) or (N, C), by a mask.

    It multiplies the weights that the module computes with, which costs less than its outputs would: for one call they hide the
    parameters, which stay what they are. A hook and not a wrapper: names and graphs stay too, and a deep copy of module and mask
    copies both.

    Args:
        mask: (C,), or (1,) for all channels alike.
    """

    def __init__(self, mask: nn.Parameter) -> None:
        self.mask = mask

    def __call__(self, module: nn.Module, inputs: object) -> None:
        """Hide the parameters behind masked ones."""
        vars(module).update(_masked(module, self.mask))


def attach(module: nn.Module, mask: nn.Parameter) -> None:
    """Multiply what a module gives out by a mask from now on."""
    module.register_forward_pre_hook(Gate(mask))
    module.register_forward_hook(_show, always_call=True)


def detach(module: nn.Module) -> None:
    """Take the gates off a module and all that is in it."""
    for inner in module.modules():
        for hooks in (inner._forward_pre_hooks, inner._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, Gate) or hook is _show:
                    del hooks[key]
                    inner._forward_hooks_always_called.pop(key, None)


@torch.no_grad()
def fold(module: nn.Module) -> None:
    """Take the gates off a module and all that is in it, and scale its weights so that it computes the same without them."""
    for inner in module.modules():
        for hook in list(inner._forward_pre_hooks.values()):
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
    for name, value in _masked(module, mask).items():
        module.get_parameter(name).copy_(value)


def _masked(module: nn.Module, mask: Tensor) -> dict[str, Tensor]:
    """Return the parameters with which a module gives out the masked."""
    assert isinstance(module, Gated)  # noqa: S101 -- nothing else is gated
    weight = module.weight * mask.view(-1, *[1] * (module.weight.dim() - 1))
    return {"weight": weight} if module.bias is None else {"weight": weight, "bias": module.bias * mask}


def _show(module: nn.Module, inputs: object, output: object) -> None:
    """Let the parameters be seen again."""
    for name in ("weight", "bias"):
        vars(module).pop(name, None)
