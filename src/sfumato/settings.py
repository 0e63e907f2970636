# SPDX-License-Identifier: Apache-2.0
"""How a target is trained: the `[train]` table of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from sfumato.arguments import require_choice
from sfumato.data.augment import Augment
from sfumato.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Which optimizer, with the CEM paper's values as defaults.

    Args:
        name: "sgd" (with Nesterov off), "adam" or "adamw".
        learning_rate: at the end of the warm-up.
        momentum: of "sgd"; the others ignore it.
        weight_decay: added to the gradient; decoupled for "adamw".

    Raises:
        ConfigError: a value is negative, or the learning rate is not positive.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        require_choice("name", self.name, ("sgd", "adam", "adamw"))
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be > 0 and finite, got {self.learning_rate}; 0.05 is the default")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise ConfigError(f"momentum must be in [0, 1) and weight_decay >= 0, got {self.momentum} and {self.weight_decay}")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer for some parameters."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=self.momentum, weight_decay=decay)
        if self.name == "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate moves over a run.

    Args:
        name: "constant", "step" or "cosine".
        warmup: epochs of linear rise at the start; at most a quarter of a run is spent on it.
        milestones: fractions of the run at which "step" multiplies the rate by gamma. The defaults are the CEM release's epochs
            60, 120, 180 and 210 of 240.
        gamma: factor of "step".
        final: rate at the end of "cosine", as a fraction of the first.

    Raises:
        ConfigError: warmup is negative, or a milestone or final is outside [0, 1].
    """

    name: Literal["constant", "step", "cosine"] = "cosine"
    warmup: float = 1.0
    milestones: tuple[float, ...] = (0.25, 0.5, 0.75, 0.875)
    gamma: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        require_choice("name", self.name, ("constant", "step", "cosine"))
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must be in [0, 1], got {self.gamma}; 0.2 is the default")
        if not 0 <= self.warmup < math.inf:
            raise ConfigError(f"warmup must be >= 0 epochs, got {self.warmup}; 0 disables it")
        outside = [value for value in (*self.milestones, self.final) if not 0 <= value <= 1]
        if outside:
            raise ConfigError(f"milestones and final are fractions in [0, 1], got {outside}; epoch 60 of 240 is 0.25")

    def factor(self, epoch: float, epochs: int) -> float:
        """Return what the learning rate is multiplied by.

        Args:
            epoch: epochs done, with fraction.
            epochs: epochs of the whole run.

        Example:
            >>> Schedule(warmup=0.0).factor(5, 10)
            0.5
        """
        warmup = min(self.warmup, epochs / 4)
        if epoch < warmup:
            return epoch / warmup
        if self.name == "constant":
            return 1.0
        if self.name == "step":
            return self.gamma ** sum(epoch / epochs >= milestone for milestone in self.milestones)
        share = (epoch - warmup) / (epochs - warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class Train:
    """A training run.

    Args:
        epochs: passes over the private pictures.
        batch_size: pictures a step.
        optimizer: which optimizer.
        schedule: how its rate moves.
        augment: what is done to the pictures; nothing by default, `Augment()` is the CEM paper's.
        precision: "float32", or "bfloat16" for mixed precision.
        channels_last: train in the memory layout that convolutions like, on CUDA as on the CPU.
        finetune: further epochs after the defenses finished the model, with a fresh optimizer and the schedule from its start.
        stop: end after so many of the epochs, the schedule being that of all: a checkpoint along the training, with the weights
            of its last epoch, even where a defense would have kept those of another. 0 does all.

    Raises:
        ConfigError: epochs or batch_size is not positive, finetune is negative, or stop is no epoch of the run or comes before
            epochs of fine-tuning.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augment: Augment = field(default_factory=lambda: Augment(crop=0, flip=False, rotation=0.0))
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    finetune: int = 0
    stop: int = 0

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, ("float32", "bfloat16"))
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if self.finetune < 0:
            raise ConfigError(f"finetune must be at least 0 epochs, got {self.finetune}; 0 does none")
        if not 0 <= self.stop <= self.epochs or (self.stop and self.finetune):
            raise ConfigError(
                f"stop must be one of the {self.epochs} epochs, without fine-tuning after it, got {self.stop} and finetune = "
                f"{self.finetune}; 0 does them all"
            )

    @property
    def total(self) -> int:
        """How many epochs are run, those of the fine-tuning included."""
        return self.stop or self.epochs + self.finetune

    def learning_rate(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs, with fraction."""
        done, epochs = (epoch, self.epochs) if epoch <= self.epochs else (epoch - self.epochs, self.finetune)
        return self.optimizer.learning_rate * self.schedule.factor(done, epochs)
