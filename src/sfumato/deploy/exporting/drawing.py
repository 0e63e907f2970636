# SPDX-License-Identifier: Apache-2.0
"""The functions of PyTorch that draw, each as an equation in standard numbers that come from elsewhere.

Source: the documentation of PyTorch, for what each draws.
Equations: mean + std n; low + (high - low) u; e / rate; u < p; median + sigma tan(pi (u - 1/2)) -> the function of each name,
    with n ~ N(0, 1), u uniform in [0, 1), e exponential of mean 1
Departures: none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sfumato.deploy.manifest import Distribution

_Take = Callable[[Distribution, Sequence[int]], Tensor]
"""Returns numbers of a distribution, of a shape, float32."""


def _size(size: Sequence[Any]) -> tuple[int, ...]:
    """Return the size that a factory was given, as one sequence or as several numbers."""
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], Sequence) else tuple(size)


def _factory(distribution: Distribution) -> Callable[..., Tensor]:
    def make(take: _Take, *places: Any, size: Sequence[int] = (), dtype: torch.dtype | None = None, **_: object) -> Tensor:
        return take(distribution, _size(places) or tuple(size)).to(dtype or torch.get_default_dtype())

    return make


def _like(distribution: Distribution) -> Callable[..., Tensor]:
    def make(take: _Take, input: Tensor, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:  # noqa: A002
        return take(distribution, input.shape).to(dtype or input.dtype)

    return make


def _normal_(take: _Take, self: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return self.copy_(take("normal", self.shape) * std + mean)


def _uniform_(take: _Take, self: Tensor, low: float = 0.0, to: float = 1.0) -> Tensor:
    return self.copy_(take("uniform", self.shape) * (to - low) + low)


def _exponential_(take: _Take, self: Tensor, lambd: float = 1.0) -> Tensor:
    return self.copy_(take("exponential", self.shape) / lambd)


def _log_normal_(take: _Take, self: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    return self.copy_((take("normal", self.shape) * std + mean).exp())


def _cauchy_(take: _Take, self: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    return self.copy_(((take("uniform", self.shape) - 0.5) * math.pi).tan() * sigma + median)


def _bernoulli_(take: _Take, self: Tensor, p: float | Tensor = 0.5) -> Tensor:
    return self.copy_(take("uniform", self.shape) < p)


def _bernoulli(take: _Take, input: Tensor, p: float | None = None) -> Tensor:  # noqa: A002
    return (take("uniform", input.shape) < (input if p is None else p)).to(input.dtype)


def _normal(take: _Take, mean: Tensor | float, std: Tensor | float = 1.0, size: Sequence[int] = (), **_: object) -> Tensor:
    shapes = [value.shape for value in (mean, std) if isinstance(value, Tensor)]
    return take("normal", torch.broadcast_shapes(*shapes) if shapes else tuple(size)) * std + mean


def _dropout(take: _Take, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    if not training or p == 0:
        return input
    kept = (take("uniform", input.shape) >= p) / ((1 - p) or 1)  # where all is dropped there is nothing to scale
    return input.mul_(kept) if inplace else input * kept


def _empty_like(take: _Take, input: Tensor, **given: Any) -> Tensor:  # noqa: A002
    """Return zeros in place of what is to be filled: ExecuTorch lacks the operation that leaves memory as it is."""
    return torch.zeros_like(input, **given)


def _length(take: _Take, self: Tensor) -> int:
    """Return the batch of a tensor without a promise that it is always so large, which tracing would take `len` for.

    It mostly becomes the shape of a draw, which is given. What else it becomes shows where batches of other sizes are compared.
    """
    size: Any = self.shape[0]
    return size if isinstance(size, int) else int(size.node.hint)


FUNCTIONS: Mapping[Callable[..., Any], Callable[..., object]] = {
    torch.Tensor.__len__: _length,
    torch.empty_like: _empty_like,
    torch.randn: _factory("normal"),
    torch.rand: _factory("uniform"),
    torch.randn_like: _like("normal"),
    torch.rand_like: _like("uniform"),
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    torch.Tensor.bernoulli: _bernoulli,
    torch.Tensor.normal_: _normal_,
    torch.Tensor.uniform_: _uniform_,
    torch.Tensor.exponential_: _exponential_,
    torch.Tensor.log_normal_: _log_normal_,
    torch.Tensor.cauchy_: _cauchy_,
    torch.Tensor.bernoulli_: _bernoulli_,
    torch.nn.functional.dropout: _dropout,
}
"""What answers in place of each function: called with a place to take numbers from, and with its arguments but the generator."""
