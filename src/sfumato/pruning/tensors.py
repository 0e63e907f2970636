# SPDX-License-Identifier: Apache-2.0
"""The tensors of a head: what each costs a device, and other shapes for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sfumato.modules import probe
from sfumato.pruning.footprint import Footprint
from sfumato.split import Split


def tensor_costs(model: Split, x: Tensor) -> Iterator[tuple[str, Tensor, Footprint]]:
    """Yield the tensors of a head by their names in the model, with what each costs a device.

    Args:
        model: a split model; its modes are left as they are found.
        x: pictures, (N, C, H, W), on its device.
    """
    applied: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        places = (inputs[0] if isinstance(module, nn.ConvTranspose2d) else output)[0]
        channels = places.shape[-1 if isinstance(module, nn.Linear) else 0]
        applied[module] = applied.get(module, 0) + places.numel() // channels  # how often the weight is applied

    layers = [module for module in model.head.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    handles = [module.register_forward_hook(count) for module in layers]
    try:
        probe(model.head, x[:1])
    finally:
        for handle in handles:
            handle.remove()
    for path, module in model.head.named_modules(prefix="head"):
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            macs = applied.get(module, 0) * tensor.numel() if key == "weight" else 0
            yield f"{path}.{key}", tensor, Footprint(tensor.numel() * isinstance(tensor, nn.Parameter), tensor.nbytes, macs)


def as_head(model: Split) -> Split:
    """Return a split model, not copied, all of which is the head: to prune it whole, or to count all of it.

    Example:
        >>> as_head(Split(nn.Flatten(), nn.Linear(4, 2))).head
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    return Split(nn.Sequential(model.head, model.tail), nn.Identity(), at="", name=model.name)


def resize(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the modules of a model the shapes of some weights, in place; their values are not set.

    Args:
        model: of convolutions, linear layers, batch norms and others.
        weights: tensors by their names in the model.
    """
    for name, module in model.named_modules():
        wanted = weights.get(f"{name}.weight")
        if (
            not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d)
            or wanted is None
            or module.weight.shape == wanted.shape
        ):
            continue
        for key in (*module._parameters, *module._buffers):
            old = getattr(module, key)
            if old is not None and (found := weights.get(f"{name}.{key}")) is not None:
                fresh = torch.zeros_like(found, device=old.device)
                setattr(module, key, nn.Parameter(fresh, old.requires_grad) if key in module._parameters else fresh)
        _rename_sizes(module, wanted)


def _rename_sizes(module: nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d, weight: Tensor) -> None:
    """Correct what a module says of its own size."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        module.num_features = len(weight)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    else:
        module.out_channels = len(weight)
        module.groups = len(weight) if module.groups > 1 else 1
        module.in_channels = weight.shape[1] * module.groups
