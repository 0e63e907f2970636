# SPDX-License-Identifier: Apache-2.0
"""What layers of a model give while it trains: hooks that are there from the beginning of an epoch to its end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Watched:
    """Keep what some modules give, or are given, in the first training pass after `clear`.

    A training pass is one with gradients while the model is in training mode. The first after a step is the loop's: other
    defenses run the model after it. What is copied while an epoch runs watches nothing. What the next module changes in place, as
    some activations do, is kept as it was changed.

    Args:
        model: whose mode says whether it trains.
        places: by any name, a part of the model, and whether what it is given is kept, else what it gives.

    Attributes:
        kept: what was seen, by name.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), nn.Linear(1, 1))
        >>> watched = Watched(model, {"relu": (model[0], False)})
        >>> logits = model(torch.tensor([[-1.0], [2.0]]))
        >>> watched.kept["relu"].flatten(), watched.remove()
        (tensor([0., 2.]), None)
    """

    def __init__(self, model: nn.Module, places: Mapping[str, tuple[nn.Module, bool]]) -> None:
        self.kept: dict[str, Tensor] = {}
        self._handles = [
            part.register_forward_hook(_Keep(self.kept, model, name, given=given)) for name, (part, given) in places.items()
        ]

    def clear(self) -> None:
        """Forget what was seen."""
        self.kept.clear()

    def remove(self) -> None:
        """Take the hooks off, and forget what was seen."""
        for handle in self._handles:
            handle.remove()
        self.clear()

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """Copy nothing: the hooks of a copied model are none of this."""


class _Keep:
    """The hook."""

    def __init__(self, kept: dict[str, Tensor], model: nn.Module, name: str, *, given: bool) -> None:
        self.kept, self.model, self.name, self.given = kept, model, name, given

    def __call__(self, part: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if self.model.training and torch.is_grad_enabled():
            self.kept.setdefault(self.name, given[0] if self.given else output)

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        return _ignore


def _ignore(*_: object) -> None:
    """Do nothing, in the place of a hook in a copied model."""
