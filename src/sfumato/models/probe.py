# SPDX-License-Identifier: Apache-2.0
"""Run a model once without leaving a trace on it."""

from __future__ import annotations

import torch
from torch import nn


def probe(model: nn.Module, x: object) -> object:
    """Run a model in eval mode without gradients, then put the mode of every submodule back.

    Args:
        model: any module.
        x: its one input, on the device of its weights.

    Returns:
        What the model returns.

    Example:
        >>> model = nn.Dropout(0.5)
        >>> probe(model, torch.ones(2)), model.training
        (tensor([1., 1.]), True)
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(x)
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU where it has none.

    Example:
        >>> device_of(nn.Linear(1, 1))
        device(type='cpu')
    """
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
