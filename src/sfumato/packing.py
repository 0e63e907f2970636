# SPDX-License-Identifier: Apache-2.0
"""Tensors with many exact zeros, written without them: the other values, and one bit for each element that says where they go.

PyTorch's own sparse tensors need 8 bytes or more for each place; a bit for each element is less wherever more than one in 64 is
not zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

FACT = "sfumato-sparse"
"""The fact that names the tensors written so, with their shapes as JSON."""

_PLACES = "#places"
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ENTRY = 128  # bytes that one more tensor takes in the header of a file, and its shape among the facts


def pack(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Write the tensors that get smaller by it without their zeros.

    Args:
        tensors: by name, on the CPU, of any dtype that safetensors knows. -0.0 counts as a value: all bits come back.

    Returns:
        The tensors to write, and the facts that `unpack` needs. A packed tensor keeps its name and is (values,); beside it lies
        a tensor of bytes, eight places each.

    Example:
        >>> packed, facts = pack({"w": torch.eye(100), "b": torch.rand(3)})
        >>> {name: tuple(value.shape) for name, value in packed.items()}, facts
        ({'w': (100,), 'w#places': (1250,), 'b': (3,)}, {'sfumato-sparse': '{"w": [100, 100]}'})
    """
    packed: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        packed[name] = tensor
        if name + _PLACES not in tensors:
            flat = _integers(tensor)
            count = int(flat.count_nonzero())
            if count * tensor.element_size() + math.ceil(flat.numel() / 8) + _ENTRY < tensor.nbytes:
                used = flat != 0
                packed[name] = tensor.flatten()[used]
                packed[name + _PLACES] = torch.from_numpy(np.packbits(used.numpy()))
                shapes[name] = list(tensor.shape)
    return packed, {FACT: json.dumps(shapes)} if shapes else {}


def unpack(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `pack` was given, and the facts that are not its own.

    Args:
        tensors: as they were read.
        facts: as they were read.

    Raises:
        ValueError: the facts do not fit the tensors.

    Example:
        >>> unpack(*pack({"w": torch.eye(100)}))[0]["w"].equal(torch.eye(100))
        True
    """
    dense, others = dict(tensors), dict(facts)
    shapes = json.loads(others.pop(FACT, "{}"))
    if not isinstance(shapes, dict):
        raise ValueError(f"the fact {FACT!r} is no table of shapes")
    for name, shape in shapes.items():
        dense[name] = _filled(name, shape, dense.get(name), dense.pop(name + _PLACES, None))
    return dense, others


def _filled(name: str, shape: object, values: Tensor | None, places: Tensor | None) -> Tensor:
    """Return one tensor with its zeros. Every size is compared before memory is asked for."""
    if (
        values is None
        or places is None
        or not isinstance(shape, list)
        or not all(type(size) is int and size > 0 for size in shape)
    ):
        raise ValueError(f"the values, the places or the shape of {name!r} are missing")
    numel = math.prod(shape)
    if places.dtype != torch.uint8 or places.shape != (math.ceil(numel / 8),):
        raise ValueError(f"the places of {name!r} are not those of {numel} elements")
    used = torch.from_numpy(np.unpackbits(places.numpy(), count=numel).astype(bool))
    if values.shape != (int(used.sum()),):
        raise ValueError(f"{name!r} has {tuple(values.shape)} values for {int(used.sum())} places")
    flat = torch.zeros(numel, dtype=_INTEGERS[values.element_size()])
    flat[used] = _integers(values)
    return flat.view(values.dtype).view(shape)


def _integers(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor as integers, (n,): an integer is 0 where all of its bits are."""
    return tensor.flatten().view(_INTEGERS[tensor.element_size()])
