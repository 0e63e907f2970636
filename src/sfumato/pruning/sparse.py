# SPDX-License-Identifier: Apache-2.0
"""What a pruned model weighs: in numbers, in bytes on a disk, in multiply-accumulates, in time.

Source: wang2021mcmia, Table V (weights before and after).
Departures: the paper counts weights only. A zero inside a dense tensor saves no byte of memory and no time in PyTorch, so bytes
are those of a file, multiply-accumulates with a zero are counted apart, and time is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.files import tensor_bytes
from sfumato.modules import eval_mode
from sfumato.pruning.tensors import as_head, tensor_costs
from sfumato.pruning.weights import single
from sfumato.split import Split
from sfumato.types import Compression

_ROUNDS = 30


def compression(model: Split, x: Tensor, *, before: Split | None = None) -> Compression:
    """Measure what pruning left of a model.

    Args:
        model: the pruned model; its modes are left as they are found.
        x: a picture, (1, C, H, W), on its device; of more only the first is used.
        before: the model before it was pruned: where channels are gone, `model` does not say how large it was. Without it what is
            zero counts as pruned, and no time is measured.

    Returns:
        The numbers. Bytes are those of whole safetensors files. Multiply-accumulates are those of convolutions and linear layers.
        Milliseconds are medians over runs of one picture, the two models in turn.

    Raises:
        ModelError: there are no weights that could be pruned.

    Example:
        >>> dense = Split(torch.nn.Flatten(), torch.nn.Linear(64, 10, bias=False))
        >>> _ = dense.tail.weight.data[1:].zero_()
        >>> found = compression(dense, torch.zeros(1, 1, 8, 8))
        >>> found.weights, found.kept, found.macs_dense, found.macs_kept, found.ratio
        (640, 64, 640, 64, 10.0)
    """
    whole = model if before is None else before
    return Compression(
        weights=sum(group.size for group in single(whole)),
        kept=sum(int(place.tensor.count_nonzero()) for group in single(model) for place in group.weights),
        bytes_dense=len(tensor_bytes(whole.state_dict(), sparse=False)),
        bytes_stored=len(tensor_bytes(model.state_dict())),
        macs_dense=_macs(whole, x, zeros=True),
        macs_kept=_macs(model, x, zeros=False),
        milliseconds=None if before is None else _milliseconds([before, model], x[:1]),
    )


def _macs(model: Split, x: Tensor, *, zeros: bool) -> int:
    """Count the multiply-accumulates of one picture, those with a weight of zero or without."""
    total = 0
    for _, tensor, cost in tensor_costs(as_head(model), x):
        if cost.macs:
            applied = round(cost.macs) // tensor.numel()
            total += applied * (tensor.numel() if zeros else int(tensor.count_nonzero()))
    return total


def _milliseconds(models: Sequence[Split], x: Tensor) -> tuple[float, float]:
    """Return the median time of two models; they take turns, so that a busy machine is busy for both."""
    taken: list[list[float]] = [[] for _ in models]
    for turn in range(_ROUNDS + 3):
        for model, seconds in zip(models, taken, strict=True):
            with eval_mode(model), torch.no_grad():
                start = _now(x)
                model(x)
                if turn >= 3:  # the first runs allocate
                    seconds.append(_now(x) - start)
    first, second = (1000 * statistics.median(seconds) for seconds in taken)
    return first, second


def _now(x: Tensor) -> float:
    """Return the time in seconds when all that was asked of the device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
