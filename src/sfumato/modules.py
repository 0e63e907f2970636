# SPDX-License-Identifier: Apache-2.0
"""Modules that are used without leaving a trace on them: their mode, their device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a model in a mode inside a `with` block, and each of its modules back afterwards.

    Args:
        model: any module.
        training: the mode.

    Yields:
        Nothing.
    """
    before = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, was in before.items():
            module.training = was


def eval_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Put a model in evaluation mode inside a `with` block, and each of its modules back afterwards.

    Example:
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    return mode(model, training=False)


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
    with eval_mode(model), torch.no_grad():
        return model(x)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU where it has none.

    Example:
        >>> device_of(nn.Linear(1, 1))
        device(type='cpu')
    """
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
