# SPDX-License-Identifier: Apache-2.0
"""DP-SGD: each picture's gradient is clipped and the sum is noised, so that no picture changes the model by much.

Source: abadi2016dpsgd, Algorithm 1; yousefpour2021opacus (the software); wang2021mcmia, Section V-A (epsilon 6.28).
Equations: as `per_example`; epsilon as `accountant`.
Departures: none. Each step draws each picture with one probability, as the paper and its accountant have it: the epsilon of code
that goes through shuffled pictures is another. An epoch has as many steps as it would have otherwise, each of N / steps pictures
on average.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.accountant import Guarantee, needed, require_opacus, spent
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.defenses.needs import require_classes
from sfumato.defenses.per_example import PerExample, private_optimizer, require_separate
from sfumato.errors import ConfigError, ConflictError, ModelError
from sfumato.models.group_norm import batch_norms, replace_batch_norms
from sfumato.split import Split
from sfumato.types import Certificate, Plan

_EPSILON = 6.28
_DIGITS = 1000


class DPSGD(Defense):
    """Clip the gradient of each picture and add noise to their sum.

    The guarantee is on the weights of this run, all checkpoints included. It does not hold where the run starts from weights that
    were trained on the same pictures, nor for someone who knows the run's seed, and so the noise: keep the seed to yourself. The
    noise is Gaussian but for the rounding of floating-point numbers, which nothing is done about.

    Args:
        clip: longest gradient of a picture.
        epsilon: how much the whole run may spend, its fine-tuning included; 6.28, as wang2021mcmia has it, where None and no
            `noise_multiplier` is given.
        delta: of the guarantee; it must be under one in as many as there are pictures.
        noise_multiplier: standard deviation of the noise in units of `clip`, in place of an epsilon.
        replace_batchnorm: put group normalization in the place of batch normalization, with which there is no guarantee.

    Raises:
        ConfigError: a value is out of its range, or both epsilon and noise_multiplier are given. When it is prepared: the extra
            is not installed, or the data is not for classification. When a run begins: delta is too large for so many pictures,
            epsilon is too small to be shown, there are several processes, or another run went before.
        ConflictError: another part of the composition looks at pictures outside their own gradients.
        ModelError: when it is prepared, the model has batch normalization or mixes the pictures of a batch in another way.

    Example:
        >>> DPSGD(epsilon=2.0)
        DPSGD(clip=1.0, epsilon=2.0, delta=1e-05)
    """

    name = "dpsgd"
    surface = "predictions"

    def __init__(
        self,
        clip: float = 1.0,
        *,
        epsilon: float | None = None,
        delta: float = 1e-5,
        noise_multiplier: float | None = None,
        replace_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        if epsilon is not None and noise_multiplier is not None:
            raise ConfigError(f"give epsilon or noise_multiplier, not both, got {epsilon} and {noise_multiplier}")
        epsilon = _EPSILON if epsilon is None and noise_multiplier is None else epsilon
        for name, value in {"clip": clip, "epsilon": epsilon, "noise_multiplier": noise_multiplier}.items():
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be > 0 and finite, got {value}; to train without noise leave the defense out")
        if not 0 < delta < 1:
            raise ConfigError(f"delta must be in (0, 1), got {delta}; 1e-5 is the default")
        self.clip, self.epsilon, self.delta = clip, epsilon, delta
        self.noise_multiplier, self.replace_batchnorm = noise_multiplier, replace_batchnorm
        self.sigma: Tensor
        self.rate: Tensor
        self.steps: Tensor
        self.register_buffer("sigma", torch.zeros(()))
        self.register_buffer("rate", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._watched: PerExample | None = None

    @property
    def guarantee(self) -> Guarantee | None:
        """What is promised of the weights as they are; None before the first step."""
        sigma, rate, steps = self.sigma.item(), self.rate.item(), int(self.steps)
        if not steps:
            return None
        return Guarantee(spent(sigma, rate, steps, self.delta), self.delta, sigma, rate, steps)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The guarantee, for reports; nothing before the first step."""
        reached = self.guarantee
        if reached is None:
            return ()
        epsilon, delta = _rounded_up(reached.epsilon), reached.delta
        statement = (
            f"Differential privacy: whatever came of this training is at most e^{epsilon:g} times as likely with any one picture "
            f"among those trained on as without it, but for a probability of {delta:g}."
        )
        assumptions = (
            "Nobody else knows the seed of the run, and with it the noise.",
            "The weights that the run started from were not trained on these pictures, nor were its settings chosen by them.",
            "Noise in floating point is as good as noise.",
        )
        steps = {"noise_multiplier": reached.noise_multiplier, "sampling_rate": reached.rate, "steps": float(reached.steps)}
        return (Certificate("privacy", statement, None, {"epsilon": epsilon, "delta": delta, **steps}, assumptions),)

    @property
    def builds(self) -> bool:
        """Whether `prepare` puts layers into the model: it may, in the place of batch normalization."""
        return self.replace_batchnorm

    def join(self, whole: Defense) -> None:
        """Refuse a defense that looks at pictures outside their own gradients."""
        for part in whole if isinstance(whole, Compose) else ():
            if part is not self and not part.separable:
                raise ConflictError(
                    f"{self.describe()} bounds what a picture adds by its own gradient, and {part.describe()} looks at pictures "
                    "otherwise, so that nothing would be guaranteed; keep one of the two"
                )

    def prepare(self, model: Split, data: Data) -> None:
        """Replace batch normalization where that is wanted; refuse a model whose pictures have no gradients of their own."""
        require_opacus()
        require_classes(data, self.name)  # the loss of another task compares pictures
        if (found := batch_norms(model)) and not self.replace_batchnorm:
            raise ModelError(
                f"{model.name} has {len(found)} batch normalizations ({found[0]} is one), which mix the pictures of a batch, so "
                "that differential privacy promises nothing; set replace_batchnorm = true under dpsgd, which puts group "
                "normalization in their place, or take a model without, such as lenet5"
            )
        replace_batch_norms(model)
        require_separate(model, data.shape)

    def optimize(self, optimizer: torch.optim.Optimizer, model: Split, plan: Plan) -> torch.optim.Optimizer:
        """Find the noise that the budget needs, and put it between the gradients and the optimizer."""
        self._require_possible(optimizer, model, plan)
        rate = torch.tensor(1 / plan.steps)
        steps = plan.steps * plan.epochs
        sigma = torch.tensor(self.noise_multiplier or needed(self.epsilon or _EPSILON, 1 / plan.steps, steps, self.delta))
        if int(self.steps) and (sigma, rate) != (self.sigma.cpu(), self.rate.cpu()):
            raise ConfigError(
                f"{self.describe()} has a run of {int(self.steps)} steps behind it, and this one has another noise or another "
                "rate, so that one epsilon does not say what both spend; train the model anew"
            )
        self.sigma.copy_(sigma)
        self.rate.copy_(rate)
        self._watched = PerExample(model)
        expected = plan.pictures / plan.steps
        return private_optimizer(optimizer, clip=self.clip, noise_multiplier=sigma.item(), expected=expected, steps=self.steps)

    def sample(self, plan: Plan, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw each picture for each step with the same probability."""
        luck = (torch.rand(plan.pictures, generator=generator, dtype=torch.float64) for _ in range(plan.steps))
        return tuple((drawn < 1 / plan.steps).nonzero()[:, 0] for drawn in luck)

    def forget(self) -> None:
        """Take the hooks off the model."""
        if self._watched is not None:
            self._watched.remove()
        self._watched = None

    def extra_repr(self) -> str:
        """Return the arguments; after a run, what it has spent and the noise."""
        told = {"clip": self.clip, "epsilon": self.epsilon, "noise_multiplier": self.noise_multiplier, "delta": self.delta}
        if (reached := self.guarantee) is not None:
            told |= {"epsilon": _rounded_up(reached.epsilon), "noise_multiplier": float(f"{reached.noise_multiplier:.4g}")}
        shown = [f"{name}={value}" for name, value in told.items() if value is not None]
        return ", ".join([*shown, "replace_batchnorm=True"] if self.replace_batchnorm else shown)

    def _require_possible(self, optimizer: torch.optim.Optimizer, model: Split, plan: Plan) -> None:
        """Raise where no guarantee can be given for a run."""
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            raise ConfigError("dpsgd trains in one process, and there are several; start one")
        if self.delta * plan.pictures >= 1:
            raise ConfigError(
                f"delta must be under 1 / {plan.pictures}, one in as many as there are pictures, got {self.delta}; with more a "
                "model may give one of them away as it is"
            )
        known = set(model.parameters())
        if any(parameter not in known for group in optimizer.param_groups for parameter in group["params"]):
            raise ConfigError("dpsgd clips the gradients of the model's own weights, and another defense has some; leave it out")


def _rounded_up(epsilon: float) -> float:
    return math.ceil(epsilon * _DIGITS) / _DIGITS if epsilon < math.inf else epsilon
