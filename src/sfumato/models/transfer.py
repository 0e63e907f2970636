# SPDX-License-Identifier: Apache-2.0
"""Take over trained weights into a model for another task: all but the last layer, and never less without being told so.

Source: ho2024tldmi, Section 3, stage 2 (the model starts from the weights of stage 1).
Equations: none.
Departures: the released code loads what fits and leaves the rest as it was drawn, silently; one of its three models is so never
pretrained at all. Here whatever is to be drawn anew is named, the last layer apart, and anything else that is missing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from sfumato.errors import ConfigError, WeightsError, nearest
from sfumato.files import of_model
from sfumato.models.embedding import last_linear

_SHOWN = 8


def transfer(
    model: nn.Module,
    taught: nn.Module | Mapping[str, Tensor],
    *,
    example: Tensor,
    fresh: Sequence[str] = (),
    source: str | Path = "weights",
) -> None:
    """Load trained weights into a model whose last layer names other classes.

    Args:
        model: any module that ends in a linear layer; nothing of it changes where the weights do not fit.
        taught: a model that is the same but for its classes, a target that is made of such, or the state dict of either.
        example: a batch that the model takes, on its device.
        fresh: names of modules that stay as they were drawn, beside the linear layer that gives the logits.
        source: where the weights come from, for the message.

    Raises:
        ConfigError: the model has no module of a name in `fresh`.
        ModelError: the logits come from something else than a linear layer.
        WeightsError: weights are missing, of another shape or of another model; all that is missing is listed.

    Example:
        >>> import torch
        >>> old, new = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, k)) for k in (5, 2))
        >>> transfer(new, old, example=torch.zeros(1, 1, 2, 2))
        >>> bool((new[1].weight == old[1].weight).all()), new[3].weight.shape
        (True, torch.Size([2, 3]))
    """
    names = {module: name for name, module in model.named_modules()}
    drawn = [*fresh, names[last_linear(model, example)]]
    if unknown := [name for name in fresh if name not in names.values()]:
        raise ConfigError(f"fresh: no module '{unknown[0]}' in the model{nearest(unknown[0], names.values())}; name some of it")
    wanted = {name: value for name, value in model.state_dict().items() if not _inside(name, drawn)}
    tensors = of_model(taught.state_dict() if isinstance(taught, nn.Module) else taught)
    given = {name: value for name, value in tensors.items() if not _inside(name, drawn)}
    wrong = {
        "missing": [name for name in wanted if name not in given],
        "not of this model": [name for name in given if name not in wanted],
        "of another shape": [name for name in wanted if name in given and given[name].shape != wanted[name].shape],
    }
    if any(wrong.values()):
        said = "; ".join(f"{len(names)} {kind} ({_listed(names)})" for kind, names in wrong.items() if names)
        raise WeightsError(
            f"{source} must hold all weights of the model but those of its last layer, {drawn[-1]}; found {said}; give the "
            "weights of this model, or name under `fresh` the layers that are to be trained from how they are drawn"
        )
    model.load_state_dict({**model.state_dict(), **given})


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
