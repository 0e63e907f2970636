# SPDX-License-Identifier: Apache-2.0
"""The state of a prior's training in one safetensors file: both networks, their optimizers, and the steps done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sfumato.errors import WeightsError
from sfumato.files import load_into, read_tensors, under, write_tensors

FORMAT = "sfumato-prior-checkpoint-1"

Modules = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]


def save_state(path: Path, modules: Modules, optimizers: Optimizers, *, steps: int, definition: str) -> None:
    """Write the state of a training run; what was there is replaced at once.

    Args:
        path: the file.
        modules: by name.
        optimizers: by name.
        steps: how many are done.
        definition: what defines the run; only a run of the same goes on from it.

    Raises:
        StorageError: it cannot be written; the last one stays.
    """
    tensors = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{place}.{key}": value for key, value in state.items()}
    write_tensors(path, tensors, {"format": FORMAT, "definition": definition, "steps": str(steps)})


def load_state(path: Path, modules: Modules, optimizers: Optimizers, *, definition: str) -> int:
    """Load the state of a training run into its modules and optimizers, and return how many steps are done.

    Raises:
        WeightsError: the file is not a whole checkpoint, or is that of another run.
    """
    tensors, facts = read_tensors(path)
    if facts.get("format") != FORMAT:
        raise WeightsError(
            f"expected the checkpoint of a prior ({FORMAT}), found {path} with format {facts.get('format')!r}; remove it to "
            "start over, or give another path"
        )
    if facts["definition"] != definition:
        raise WeightsError(
            f"{path} is the checkpoint of a prior with other settings, pictures, seed or target; remove it to start over, or "
            "give another path"
        )
    for name, module in modules.items():
        load_into(module, under(tensors, f"{name}."), source=path)
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in under(tensors, f"{name}.").items():
            place, what = key.split(".", 1)
            state.setdefault(int(place), {})[what] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(facts["steps"])
