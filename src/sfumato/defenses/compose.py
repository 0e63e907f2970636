# SPDX-License-Identifier: Apache-2.0
"""Several defenses as one: what changes a tensor folds from left to right, penalties add, conflicts raise at construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError, ConflictError
from sfumato.files import under
from sfumato.pruning.footprint import Footprint
from sfumato.split import Split
from sfumato.types import Certificate, Epoch, Plan, Step


class Compose(Defense):
    """A defense made of defenses; empty, it is no defense.

    Nested compositions are flattened, so composing is associative. Parts are keyed by their names, so that a checkpoint does not
    depend on their order.

    Args:
        parts: the defenses, in the order in which they see the features.

    Raises:
        ConflictError: two parts have the same name, two replace the task loss, or two replace the gradient.
        ConfigError: a part is no defense.

    Example:
        >>> from sfumato.defenses.noise import Noise
        >>> Compose(Compose(), Noise(sigma=0.1))
        Compose(Noise(sigma=0.1, distribution='gaussian'))
    """

    name = "compose"

    def __init__(self, *parts: Defense) -> None:
        super().__init__()
        flat = list(_flatten(parts))
        _refuse_conflicts(flat)
        self.parts = nn.ModuleDict({part.name: part for part in flat})

    def __iter__(self) -> Iterator[Defense]:
        return (part for part in self.parts.values() if isinstance(part, Defense))

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def stochastic(self) -> bool:
        """Whether any part's `protect` draws random numbers."""
        return any(part.stochastic for part in self)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of all parts together: they draw independently."""
        return math.hypot(*(part.noise_std for part in self))

    @property
    def gaussian(self) -> bool:
        """Whether no part does anything to z but add isotropic Gaussian noise."""
        return all(part.gaussian for part in self)

    @property
    def owns_criterion(self) -> bool:
        """Whether a part replaces the task loss."""
        return any(part.owns_criterion for part in self)

    @property
    def owns_gradient(self) -> bool:
        """Whether a part draws the batches and replaces their gradient."""
        return any(part.owns_gradient for part in self)

    @property
    def builds(self) -> bool:
        """Whether any part puts layers into the model."""
        return any(part.builds for part in self)

    @property
    def separable(self) -> bool:
        """Whether training with every part sees each picture for itself."""
        return all(part.separable for part in self)

    @property
    def least_batch(self) -> int:
        """How many pictures a batch must have for every part."""
        return max((part.least_batch for part in self), default=1)

    @property
    def updates(self) -> tuple[str, ...]:
        """The updates made for each batch: every part's phases, each once, or one named "main"."""
        return tuple(dict.fromkeys(phase for part in self for phase in part.phases)) or ("main",)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """What the parts promise, each by itself."""
        return tuple(certificate for part in self for certificate in part.certificates)

    @property
    def saving(self) -> Footprint:
        """What the parts take off the head together, at least."""
        return sum((part.saving for part in self), Footprint())

    def learned(self) -> Iterator[nn.Parameter]:  # noqa: D102
        for part in self:
            yield from part.learned()

    def join(self, whole: Defense) -> None:  # noqa: D102
        for part in self:
            part.join(whole)

    def prepare(self, model: Split, data: Data) -> None:  # noqa: D102
        for part in self:
            part.prepare(model, data)

    def optimize(self, optimizer: torch.optim.Optimizer, model: Split, plan: Plan) -> torch.optim.Optimizer:  # noqa: D102
        owner = next(part for part in self if part.owns_gradient)
        return owner.optimize(optimizer, model, plan)

    def sample(self, plan: Plan, generator: torch.Generator) -> tuple[Tensor, ...]:  # noqa: D102
        owner = next(part for part in self if part.owns_gradient)
        return owner.sample(plan, generator)

    def begin(self, data: Data) -> None:  # noqa: D102
        for part in self:
            part.begin(data)

    def begin_epoch(self, epoch: Epoch) -> None:  # noqa: D102
        for part in self:
            part.begin_epoch(epoch)

    def end_epoch(self, epoch: Epoch) -> None:  # noqa: D102
        for part in self:
            part.end_epoch(epoch)

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        return reduce(lambda value, part: part.perturb(value, generator), self, x)

    def before_step(self, step: Step) -> None:  # noqa: D102
        for part in self._taking_part(step):
            part.before_step(step)

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: D102
        return reduce(lambda value, part: part.protect(value, generator), self, z)

    def criterion(self, step: Step) -> Tensor:  # noqa: D102
        owner = next(part for part in self if part.owns_criterion)
        return owner.criterion(step)

    def penalty(self, step: Step) -> Tensor | None:  # noqa: D102
        terms = [term for part in self._taking_part(step) if (term := part.penalty(step)) is not None]
        return reduce(torch.add, terms) if terms else None

    def after_step(self, step: Step) -> None:  # noqa: D102
        for part in self._taking_part(step):
            part.after_step(step)

    def finish(self, model: Split) -> None:  # noqa: D102
        for part in self:
            part.finish(model)

    def reshape(self, model: Split, weights: Mapping[str, Tensor]) -> None:  # noqa: D102
        for part in self:
            part.reshape(model, weights)

    def release(self, logits: Tensor) -> Tensor:  # noqa: D102
        return reduce(lambda value, part: part.release(value), self, logits)

    def memory(self) -> dict[str, Tensor]:  # noqa: D102
        return {f"{part.name}.{name}": value for part in self for name, value in part.memory().items()}

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        for part in self:
            part.recall(under(memory, f"{part.name}."))

    def forget(self) -> None:  # noqa: D102
        for part in self:
            part.forget()

    def extra_repr(self) -> str:  # noqa: D102
        return ", ".join(part.describe() for part in self)

    def _taking_part(self, step: Step) -> list[Defense]:
        return [part for part in self if not part.phases or step.phase in part.phases]


def _flatten(parts: Iterable[Defense]) -> Iterator[Defense]:
    for part in parts:
        if isinstance(part, Compose):
            yield from part
        elif isinstance(part, Defense):
            yield part
        else:
            raise ConfigError(f"a defense is an object such as Noise(sigma=0.1), got {part!r}; make one")


def _refuse_conflicts(parts: list[Defense]) -> None:
    named: dict[str, Defense] = {}
    for part in parts:
        if part.name in named:
            raise ConflictError(
                f"two defenses named '{part.name}': {named[part.name].describe()} and {part.describe()}; keep one"
            )
        named[part.name] = part
    owned = {
        "the task loss": [part.describe() for part in parts if part.owns_criterion],
        "the gradient": [part.describe() for part in parts if part.owns_gradient],
    }
    for what, owners in owned.items():
        if len(owners) > 1:
            raise ConflictError(f"at most one defense may replace {what}, found {' and '.join(owners)}; keep one")
