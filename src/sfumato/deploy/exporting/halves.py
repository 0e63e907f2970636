# SPDX-License-Identifier: Apache-2.0
"""Both halves of a target as they are exported: head, `protect` and the packing for the wire; unpacking, tail and `release`.

The random numbers of `protect` are inputs of the first. What a server answers in re-identification is the embedding: the features
that its last linear layer is given, which are what galleries are searched by.

Source: none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.deploy.exporting.calibration import Wire
from sfumato.deploy.exporting.onnx_files import onnx_file
from sfumato.deploy.exporting.tracing import DrawnFrom, Given, find_draws, require_no_draws
from sfumato.deploy.manifest import Draw
from sfumato.errors import ExportError
from sfumato.models.embedding import captured, last_linear
from sfumato.target import Target
from sfumato.types import TaskName

PICTURES, FEATURES, ANSWER = "x", "z", "answer"
"""Names of the tensors in the ONNX files."""
_FEATURES = "draw in the `protect` of a defense, which audits know of, and let F.dropout be told training=self.training"
_ANSWERS = 'answer from the mean on the server, such as answers = "mean" of the defense mid, or keep the target in PyTorch'


class Head(nn.Module):
    """The device half: from pictures and random numbers to what is sent.

    Args:
        target: on the CPU, in eval mode.
        wire: how z is packed.
    """

    def __init__(self, target: Target, wire: Wire) -> None:
        super().__init__()
        self.target = target
        self.wire = wire

    def features(self, x: Tensor, draws: tuple[Tensor, ...] = ()) -> Tensor:
        """Return protected features before they are packed, (N, ...), float32.

        Args:
            x: (N, C, H, W), [0, 1].
            draws: the random numbers, each (N, ...).
        """
        with DrawnFrom(Given(draws)):
            return self.target.features(x.clone())  # a layer may work in place, and x is the caller's

    def forward(self, x: Tensor, draws: tuple[Tensor, ...] = ()) -> Tensor:
        """Return what is sent, (N, ...), in the format of the wire."""
        return self.wire.pack(self.features(x, draws))


class Tail(nn.Module):
    """The server half: from what was sent to the answer.

    Args:
        target: on the CPU, in eval mode.
        wire: how z is packed.
        embedding: answer with what this layer of the target is given, in place of released logits.
    """

    def __init__(self, target: Target, wire: Wire, embedding: nn.Linear | None = None) -> None:
        super().__init__()
        self.target = target
        self.wire = wire
        self.embedding = embedding

    def raw(self, z: Tensor) -> Tensor:
        """Return the answer before any `release`, (N, K) or (N, E)."""
        z = self.wire.unpack(z)
        if self.embedding is None:
            logits: Tensor = self.target.split.tail(z)
            return logits
        with captured(self.embedding) as given:
            self.target.split.tail(z)
        return given[0]

    def released(self, raw: Tensor) -> Tensor:
        """Return an answer as users get it."""
        return (self.target.protection.release(raw) if self.embedding is None else raw).float()

    def forward(self, z: Tensor) -> Tensor:
        """Return the answer, (N, K) or (N, E), float32."""
        return self.released(self.raw(z))


@dataclass(frozen=True)
class Halves:
    """Both halves in PyTorch.

    Attributes:
        head: from pictures and draws to what is sent.
        tail: from what is sent to answers.
        draws: what the head is given beside pictures.
        picture_shape: (C, H, W).
        feature_shape: of z for one picture.
    """

    head: Head
    tail: Tail
    draws: tuple[Draw, ...]
    picture_shape: tuple[int, int, int]
    feature_shape: tuple[int, ...]


def halve(target: Target, wire: Wire, picture_shape: tuple[int, int, int], task: TaskName = "classification") -> Halves:
    """Return both halves of a copy of a target, on the CPU and in eval mode; the target stays as it is.

    Args:
        target: trained.
        wire: how z is packed.
        picture_shape: (C, H, W).
        task: whether the answer is logits or an embedding.

    Raises:
        ExportError: what it sends is not one finite float32 tensor with a row for each picture; it draws in a way that cannot be
            exported, in the model in place of a defense, or on the server; or its defense says of itself that it does not draw
            and does, or the reverse.
        ModelError: an embedding is asked for where the logits do not come from a linear layer.

    Example:
        >>> import sfumato as sf
        >>> net = sf.Split(nn.Identity(), nn.Flatten())
        >>> made = halve(Target(net, sf.Compose(sf.Noise(sigma=1.0))), Wire("float16"), (1, 2, 2))
        >>> made.draws[0].distribution, made.tail(made.head(torch.zeros(1, 1, 2, 2), (torch.ones(1, 1, 2, 2),)))
        ('normal', tensor([[1., 1., 1., 1.]]))
    """
    copied = copy.deepcopy(target).cpu().eval().requires_grad_(False)
    example = torch.rand(2, *picture_shape)
    embedding = last_linear(copied.split, example) if task == "reidentification" else None
    draws = _draws_of(copied, example)
    head, tail = Head(copied, wire), Tail(copied, wire, embedding)
    with torch.no_grad():
        z = head(example, tuple(torch.rand(2, *draw.shape) for draw in draws))
    # also before tracing: what a tail caches at its first call must be real numbers
    require_no_draws(tail.raw, z, who="the tail", advice=_ANSWERS)
    require_no_draws(tail, z, who="`release`", advice="leave the defense out, or keep the target in PyTorch")
    return Halves(head, tail, draws, picture_shape, tuple(z.shape[1:]))


def _draws_of(target: Target, example: Tensor) -> tuple[Draw, ...]:
    """Return what the features of a target draw, where all else is as it must be to be sent."""
    with torch.no_grad():
        z = target.features(example.clone())
    if not (z.dtype == torch.float32 and z.ndim > 1 and len(z) == len(example) and z.isfinite().all()):
        raise ExportError(
            f"expected two pictures to become features (2, C, ...) of torch.float32, all finite, found {tuple(z.shape)} of "
            f"{z.dtype}, or some not finite; cut the model where one such tensor crosses, and call .float() on one of another "
            "type"
        )
    require_no_draws(lambda x: target.split.head(x.clone()), example, who="the head of the model", advice=_FEATURES)
    draws = find_draws(lambda x: target.features(x.clone()), example.shape[1:])
    if bool(draws) != target.protection.stochastic:
        raise ExportError(
            f"expected {target.defense} to draw with PyTorch where it says `stochastic`, found stochastic = "
            f"{target.protection.stochastic} and {len(draws)} draws: audits go by what it says; correct that, and let `protect` "
            "draw with functions such as torch.randn_like(z)"
        )
    return draws


def head_file(halves: Halves) -> bytes:
    """Return the head as an ONNX file: inputs "x" and the draws, output "z".

    Raises:
        ExportError: it cannot be traced.
    """
    tensors = [torch.rand(2, *halves.picture_shape), *(torch.rand(2, *draw.shape) for draw in halves.draws)]
    names = [PICTURES, *(draw.name for draw in halves.draws)]
    return onnx_file(halves.head, tensors, names, output=FEATURES)


def tail_file(halves: Halves) -> bytes:
    """Return the tail as an ONNX file: input "z", output "answer".

    Raises:
        ExportError: it cannot be traced; where that is the fault of `release` the message says so.
    """
    z = halves.head.wire.pack(torch.rand(2, *halves.feature_shape))
    try:
        return onnx_file(halves.tail, [z], [FEATURES], output=ANSWER)
    except ExportError as error:
        raise ExportError(
            f"expected a tail and a `release` that can be exported, found that {error} ({halves.tail.target.defense}). Keep this "
            "target in PyTorch, or leave out the defense that changes answers by steps of gradient or branches on data, such as "
            "memguard"
        ) from error
