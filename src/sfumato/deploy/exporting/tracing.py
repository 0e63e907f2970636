# SPDX-License-Identifier: Apache-2.0
"""Find out what a module draws, and run it with random numbers that are given to it.

Whatever `protect` draws in PyTorch becomes an input of the exported head, so that a device fills it with numbers that nobody else
can predict. A mode of PyTorch stands between the module and the functions that draw: once it notes which distributions and shapes
are asked for, afterwards it answers with given numbers, turned into what was asked: N(0, 1) becomes N(mean, std^2). What draws in
another way is refused, since it would be frozen into the graph.

Source: none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sfumato.deploy.exporting.drawing import FUNCTIONS
from sfumato.deploy.manifest import Distribution, Draw
from sfumato.errors import ExportError

_BATCHES = (2, 3)  # two sizes tell the dimension of the batch from the others
_DRAWN: Mapping[Distribution, Callable[[Tensor], Tensor]] = {
    "normal": lambda empty: empty.normal_(),
    "uniform": lambda empty: empty.uniform_(),
    "exponential": lambda empty: empty.exponential_(),
}
_HOW = "draw with torch functions such as torch.randn_like(z) or Tensor.normal_"


class Numbers(ABC):
    """Where a module that draws gets its numbers from."""

    @abstractmethod
    def take(self, distribution: Distribution, shape: Sequence[int]) -> Tensor:
        """Return numbers of a distribution, of this shape, float32."""


class Recorded(Numbers):
    """Draws from PyTorch's ambient stream, and keeps what was drawn.

    Attributes:
        kinds: the distribution and the shape of each draw, in their order.
        values: the numbers, likewise.
    """

    def __init__(self) -> None:
        self.kinds: list[tuple[Distribution, tuple[int, ...]]] = []
        self.values: list[Tensor] = []

    def take(self, distribution: Distribution, shape: Sequence[int]) -> Tensor:  # noqa: D102
        self.kinds.append((distribution, tuple(shape)))
        self.values.append(_DRAWN[distribution](torch.empty(tuple(shape))))
        return self.values[-1]


class Given(Numbers):
    """Hands out given numbers in their order.

    Args:
        values: each (N, ...), float32.
    """

    def __init__(self, values: Iterable[Tensor]) -> None:
        self._left = list(values)

    def take(self, distribution: Distribution, shape: Sequence[int]) -> Tensor:  # noqa: D102
        if not self._left:
            raise ExportError(
                f"a draw of shape {tuple(shape)} was asked for when none was left: it draws another number each time"
            )
        value = self._left.pop(0)
        if tuple(value.shape[1:]) != tuple(shape)[1:]:
            raise ExportError(
                f"expected a draw of shape {tuple(value.shape)}, found {tuple(shape)}: it draws other shapes each time"
            )
        return value


class DrawnFrom(TorchFunctionMode):
    """Inside this mode, functions of PyTorch that draw take their numbers from a place of ours.

    Args:
        numbers: the place.

    Example:
        >>> with DrawnFrom(Given([torch.tensor([[1.0, -1.0]])])):
        ...     torch.empty(1, 2).normal_(10.0, 2.0)
        tensor([[12.,  8.]])
    """

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self._numbers = numbers

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        given = dict(kwargs or {})
        made = FUNCTIONS.get(func)
        if made is None:
            return func(*args, **given)
        if given.get("out") is not None:
            raise ExportError(f"expected {func.__name__} to return what it draws, found that it writes to out=; leave that away")
        given.pop("generator", None)
        return made(self._numbers.take, *args, **given)


class _NothingDrawn(TorchDispatchMode):
    """Refuses every operation of PyTorch that draws and that `DrawnFrom` did not stand before."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        # attention counts as random for its dropout, which is off in eval mode
        if torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in str(func):
            raise ExportError(f"random numbers of {func} cannot be made an input of an exported model; {_HOW}")
        return func(*args, **(kwargs or {}))


def record(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Recorded]:
    """Run something and keep what it draws.

    Args:
        call: from pictures to features, without gradient.
        x: (N, C, H, W).

    Returns:
        What it returned, and what it drew; the draws of `call` itself are as random as ever.

    Raises:
        ExportError: it draws with an operation that no input can stand for.
    """
    numbers = Recorded()
    with torch.no_grad(), _NothingDrawn(), DrawnFrom(_Seen(numbers)):  # type: ignore[no-untyped-call]
        out = call(x)
    return out, numbers


class _Seen(Numbers):
    """Lets a recorder draw where drawing is refused."""

    def __init__(self, numbers: Recorded) -> None:
        self._numbers = numbers

    def take(self, distribution: Distribution, shape: Sequence[int]) -> Tensor:
        with torch.utils._python_dispatch._disable_current_modes():
            return self._numbers.take(distribution, shape)


def find_draws(call: Callable[[Tensor], Tensor], shape: Sequence[int]) -> tuple[Draw, ...]:
    """Find out what something draws for each picture.

    Args:
        call: from pictures, (N, C, H, W) in [0, 1], to features; run without gradient.
        shape: (C, H, W).

    Returns:
        Its draws, in their order, named "draw_0" and so on.

    Raises:
        ExportError: it draws in a way that no input of an exported model can stand for: with other operations or other libraries,
            for a whole batch at once, or another number of times each time.

    Example:
        >>> find_draws(lambda x: x + torch.rand_like(x), (1, 4, 4))
        (Draw(name='draw_0', distribution='uniform', shape=(1, 4, 4)),)
    """
    found = []
    for size in _BATCHES:
        x = torch.rand(size, *shape)
        out, numbers = record(call, x)
        found.append([(kind, drawn[:1] == (size,), drawn[1:]) for kind, drawn in numbers.kinds])
        with torch.no_grad(), DrawnFrom(Given(numbers.values)):
            again = call(x)
        if not torch.equal(out, again):
            raise ExportError(
                "expected the same features from the same picture and the same random numbers of PyTorch, found others: the "
                f"defense draws numbers that PyTorch does not, which no device could make; {_HOW}"
            )
    if found[0] != found[1] or not all(of_batch for _, of_batch, _ in found[0]):
        drawn = [kind for kind, _, _ in found[0]], [list(shape) for *_, shape in found[0]]
        raise ExportError(
            f"expected draws with a first dimension of one row for each picture, the same in every batch, found {drawn[0]} of "
            f"shapes {drawn[1]} that are not; draw for each picture: torch.randn_like(z)"
        )
    return tuple(Draw(f"draw_{place}", kind, shape) for place, (kind, _, shape) in enumerate(found[0]))


def require_no_draws(call: Callable[[Tensor], Tensor], x: Tensor, *, who: str, advice: str) -> None:
    """Refuse something that draws.

    Args:
        call: what runs without gradient.
        x: what it is given.
        who: it is, for the message.
        advice: what to do.

    Raises:
        ExportError: it draws.
    """
    if record(call, x)[1].kinds:
        raise ExportError(f"expected {who} to draw no random numbers, found that it does; {advice}")
