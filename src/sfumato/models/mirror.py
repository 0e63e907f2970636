# SPDX-License-Identifier: Apache-2.0
"""The layers of a head, in the order in which a picture goes through them, as `MirrorDecoder` undoes them.

Source: ding2024patrol, "Inversion Model and Surrogate Inversion Model"; he2019inversion, Section 5 (the inverse network).
Equations: none; the main path -> longest_chain.
Departures: the papers have plain stacks of convolutions. Here the main path of any head is found by shapes: it is the longest
chain of layers in which each takes the shape that the one before gives, or that a pooling or a flattening makes of it. So the two
convolutions of a residual block are in it and the one of its shortcut is not, nor is a squeeze-and-excitation branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sfumato.errors import ModelError
from sfumato.models.reshape import between
from sfumato.modules import probe

Pair = tuple[int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerShape:
    """One layer of a head.

    Attributes:
        kind: "conv", "transposed" (convolution) and "linear" are learned layers; "reshape" is whatever keeps the count of
            elements and "resample" whatever changes it without a learned layer, such as a pooling.
        in_shape: of one picture's features before the layer.
        out_shape: of one picture's features after it.
        kernel: height and width, of convolutions only, as all that follow.
        stride: down and across.
        padding: down and across.
        dilation: down and across.
        groups: of channels.
    """

    kind: Literal["conv", "transposed", "linear", "reshape", "resample"]
    in_shape: Shape
    out_shape: Shape
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def learned(self) -> bool:
        """Whether the layer has weights."""
        return self.kind in ("conv", "transposed", "linear")

    def inverse(self) -> nn.Module:
        """Make a layer from `out_shape` to `in_shape`.

        Example:
            >>> LayerShape("linear", (64,), (10,)).inverse()
            Linear(in_features=10, out_features=64, bias=True)
        """
        if self.kind == "linear":
            return nn.Linear(self.out_shape[-1], self.in_shape[-1])
        if self.kind == "conv":
            return self._transposed()
        if self.kind == "transposed":
            return self._conv()
        return between(self.out_shape, self.in_shape)

    def _transposed(self) -> nn.Module:
        """Make the transposed convolution that undoes a convolution."""
        sides = zip(self.in_shape[1:], self.out_shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        missing = [a - ((b - 1) * s - 2 * p + d * (k - 1) + 1) for a, b, k, s, p, d in sides]
        # a size that output padding cannot make (of "same" padding with an even kernel) is corrected by `between`
        extra = [min(max(0, m), max(s, d) - 1) for m, s, d in zip(missing, self.stride, self.dilation, strict=True)]
        layer = nn.ConvTranspose2d(
            self.out_shape[0],
            self.in_shape[0],
            self.kernel,
            self.stride,
            self.padding,
            (extra[0], extra[1]),
            self.groups,
            dilation=self.dilation,
        )
        made = (self.in_shape[0], *(a - m + e for a, m, e in zip(self.in_shape[1:], missing, extra, strict=True)))
        return layer if made == self.in_shape else nn.Sequential(layer, between(made, self.in_shape))

    def _conv(self) -> nn.Module:
        """Make the convolution that undoes a transposed convolution."""
        layer = nn.Conv2d(self.out_shape[0], self.in_shape[0], self.kernel, self.stride, self.padding, self.dilation, self.groups)
        sides = zip(self.out_shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        made = (self.in_shape[0], *((b + 2 * p - d * (k - 1) - 1) // s + 1 for b, k, s, p, d in sides))
        return layer if made == self.in_shape else nn.Sequential(layer, between(made, self.in_shape))


def mirror_layers(head: nn.Module, x: Tensor) -> tuple[LayerShape, ...]:
    """Record the layers of a head that its inversion network undoes.

    Convolutions, transposed convolutions and linear layers are seen by forward hooks; poolings, flattenings and the like by the
    change of shape between them, so that functional forms count too.

    Args:
        head: any module from x to z, one tensor each; it runs once, in eval mode and without gradients.
        x: pictures, (N, C, H, W), float, [0, 1], on the device of the head; the first is enough.

    Returns:
        A chain from the shape of x to that of z: each layer takes the shape that the one before gives. Where the head has no
        convolution and no linear layer it has at most one, not learned.

    Raises:
        ModelError: the head does not return one tensor with the batch first.

    Example:
        >>> import torch
        >>> head = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> [layer.kind for layer in mirror_layers(head, torch.zeros(1, 1, 8, 8))]
        ['conv', 'resample']
    """
    seen: list[LayerShape] = []
    hooks = [
        module.register_forward_hook(_recorder(seen))
        for module in head.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    try:
        z = probe(head, x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(z, Tensor) or z.dim() < 2:
        found = f"a tensor of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ModelError(f"the head must return one tensor, (N, ...), got {found}; cut where a single tensor crosses")
    return _closed(longest_chain(seen, tuple(x.shape[1:]), tuple(z.shape[1:])), tuple(x.shape[1:]), tuple(z.shape[1:]))


def longest_chain(layers: Sequence[LayerShape], start: Shape, end: Shape) -> list[LayerShape]:
    """Return the longest chain of layers from one shape to another.

    Args:
        layers: in the order of execution.
        start: shape of x for one picture.
        end: shape of z for one picture.

    Returns:
        Layers, in order, each of which takes the shape that the one before gives, or what a pooling or a flattening makes of it.
        The chain leads to `end` where one does; otherwise it is the longest.

    Example:
        >>> one, two = LayerShape("conv", (3, 8, 8), (4, 8, 8)), LayerShape("conv", (4, 8, 8), (4, 8, 8))
        >>> shortcut = LayerShape("conv", (3, 8, 8), (4, 8, 8))
        >>> longest_chain([one, two, shortcut], (3, 8, 8), (4, 8, 8)) == [one, two]
        True
    """
    chains: list[list[LayerShape]] = []
    for layer in layers:
        before = [chain for chain in chains if _leads(chain[-1].out_shape, layer.in_shape)]
        if before:
            # of equal chains the one that ran last: a shortcut that runs before a single convolution gives way to it
            chains.append([*max(reversed(before), key=len), layer])
        elif _leads(start, layer.in_shape):
            chains.append([layer])
    finished = [chain for chain in chains if _leads(chain[-1].out_shape, end)]
    return max(finished or chains, key=len, default=[])


def _leads(given: Shape, wanted: Shape) -> bool:
    """Tell whether features of one shape can become another by pooling, flattening or reshaping."""
    if given == wanted:
        return True
    if len(given) != len(wanted) and math.prod(given) == math.prod(wanted):
        return True
    if len(given) != 3:
        return False
    if len(wanted) == 3:
        return given[0] == wanted[0] and given[1] >= wanted[1] and given[2] >= wanted[2]
    return len(wanted) == 1 and wanted[0] % given[0] == 0 and wanted[0] < math.prod(given)


def _closed(chain: Sequence[LayerShape], start: Shape, end: Shape) -> tuple[LayerShape, ...]:
    """Put a layer that is not learned wherever the shape changes between two layers."""
    closed: list[LayerShape] = []
    shape = start
    for layer in chain:
        closed += [*_gap(shape, layer.in_shape), layer]
        shape = layer.out_shape
    return (*closed, *_gap(shape, end))


def _gap(given: Shape, wanted: Shape) -> list[LayerShape]:
    """Return the layer between two shapes, or nothing where they are the same."""
    if given == wanted:
        return []
    return [LayerShape("reshape" if math.prod(given) == math.prod(wanted) else "resample", given, wanted)]


def _recorder(seen: list[LayerShape]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    """Make a forward hook that appends the layer it is called for."""

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        before, after = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kind: Literal["conv", "transposed"] = "conv" if isinstance(module, nn.Conv2d) else "transposed"
            sizes = (_pair(module.kernel_size), _pair(module.stride), _padding(module), _pair(module.dilation))
            seen.append(LayerShape(kind, before, after, *sizes, groups=module.groups))
        else:
            seen.append(LayerShape("linear", before, after))

    return record


def _pair(sizes: tuple[int, ...]) -> Pair:
    """Tell the type checker that there are two."""
    return sizes[0], sizes[1]


def _padding(module: nn.Conv2d | nn.ConvTranspose2d) -> Pair:
    """Return the padding of a convolution in numbers; "same" and "valid" are allowed words."""
    if not isinstance(module.padding, str):
        return _pair(module.padding)
    same = module.padding == "same"
    down, across = (d * (k - 1) // 2 if same else 0 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return down, across
