# SPDX-License-Identifier: Apache-2.0
"""The state of a training run in one safetensors file: weights, optimizer, memory and history, written whole after each epoch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sfumato.errors import WeightsError
from sfumato.files import load_into, read_tensors, under, write_tensors

FORMAT = "sfumato-checkpoint-2"


@dataclass(frozen=True)
class EpochFacts:
    """What one epoch of training came to.

    Attributes:
        number: from 0.
        loss: mean over the steps, penalties included.
        accuracy: on the training pictures as the steps saw them, [0, 1].
        learning_rate: of the last step.
        seconds: wall time.
    """

    number: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


def save(
    path: Path,
    target: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[EpochFacts],
    *,
    memory: Mapping[str, torch.Tensor],
    definition: str,
) -> None:
    """Write a checkpoint.

    Args:
        path: the file; the one that was there is replaced at once.
        target: whose weights.
        optimizer: whose state.
        history: the epochs done.
        memory: what the defenses must remember beside their weights.
        definition: what defines the run; a checkpoint continues only a run of the same definition.

    Raises:
        StorageError: it cannot be written; the last one stays.
    """
    tensors = {f"target.{name}": value for name, value in target.state_dict().items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": value for name, value in state.items() if isinstance(value, torch.Tensor)}
    tensors |= {f"memory.{name}": value for name, value in memory.items()}
    facts = {
        "format": FORMAT,
        "definition": definition,
        "history": json.dumps([dataclasses.asdict(epoch) for epoch in history]),
    }
    write_tensors(path, tensors, facts)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run as it was written.

    Attributes:
        path: where.
        weights: of the target.
        optimizer: its state, as "PLACE.NAME".
        memory: what the defenses must remember.
        history: the epochs done.
    """

    path: Path
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    memory: Mapping[str, torch.Tensor]
    history: list[EpochFacts]

    def restore(self, target: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load weights and state into a target of the same shapes and its optimizer.

        Raises:
            WeightsError: the weights are those of another model.
        """
        load_into(target, self.weights, source=self.path)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in self.optimizer.items():
            place, key = name.split(".", 1)
            state.setdefault(int(place), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load(path: Path, *, definition: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        definition: what defines the run that shall go on.

    Raises:
        WeightsError: the file is not a whole checkpoint, or is that of another run.
    """
    tensors, facts = read_tensors(path)
    if facts.get("format") != FORMAT:
        raise WeightsError(
            f"expected a checkpoint ({FORMAT}), found {path} with format {facts.get('format')!r}; start without --resume"
        )
    if facts["definition"] != definition:
        raise WeightsError(f"{path} is the checkpoint of another recipe; start without --resume, or use another folder")
    weights, optimizer, memory = (under(tensors, f"{kind}.") for kind in ("target", "optimizer", "memory"))
    return Checkpoint(path, weights, optimizer, memory, [EpochFacts(**epoch) for epoch in json.loads(facts["history"])])
