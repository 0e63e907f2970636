# SPDX-License-Identifier: Apache-2.0
"""The embedding of a picture: what the last linear layer of a model, the one that gives the logits, is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from sfumato.errors import ModelError
from sfumato.modules import probe


def last_linear(model: nn.Module, x: Tensor) -> nn.Linear:
    """Find the linear layer that gives the logits of a model.

    Args:
        model: any module; it runs once, in eval mode and without gradients.
        x: a batch that it takes, on its device.

    Returns:
        The module itself, one of the model's.

    Raises:
        ModelError: the logits come from something else than a linear layer that is given one vector a picture.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> last_linear(model, torch.zeros(1, 1, 2, 2))
        Linear(in_features=3, out_features=2, bias=True)
    """
    calls: list[tuple[nn.Linear, object]] = []

    def note(layer: nn.Linear, given: tuple[Tensor, ...], answer: object) -> None:
        if given[0].ndim == 2:
            calls.append((layer, answer))

    handles = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        logits = probe(model, x)
    finally:
        for handle in handles:
            handle.remove()
    found = next((layer for layer, answer in reversed(calls) if answer is logits), None)
    if found is None:
        raise ModelError(
            f"an embedding is what the last layer of a model is given, which must be a torch.nn.Linear on (N, E), but the logits "
            f"of {type(model).__name__} come from something else; end the model in nn.Flatten and nn.Linear"
        )
    return found


@contextmanager
def captured(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Keep what a linear layer is given inside a `with` block.

    Args:
        layer: a part of a model that runs inside the block.

    Yields:
        A list that holds what the layer was given last, (N, E), with its gradient; empty until then.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.ReLU(), nn.Linear(1, 1))
        >>> with captured(model[1]) as given:
        ...     logits = model(torch.tensor([[-1.0], [2.0]]))
        >>> given[0].flatten()
        tensor([0., 2.])
    """
    given: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given[:] = arguments[:1]

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield given
    finally:
        handle.remove()
