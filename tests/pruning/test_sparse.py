# SPDX-License-Identifier: Apache-2.0
"""What a pruned model weighs, against what can be counted by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save
from torch import nn

import sfumato as sf
from sfumato.files import tensor_bytes
from sfumato.pruning.admm import prune
from sfumato.pruning.sparse import compression
from sfumato.pruning.weights import divide, single
from sfumato.split import Split

X = torch.rand(1, 1, 28, 28)


def lenet(at: str | None = None) -> Split:
    model = sf.build_model("lenet5", classes=10, shape=(1, 28, 28))
    return sf.whole(model) if at is None else sf.split(model, at=at)


def pruned(split: Split, ratio: float) -> Split:
    split = copy.deepcopy(split)
    groups = single(split)
    with torch.no_grad():
        for group, count in zip(groups, divide(groups, ratio), strict=True):
            prune(group, count)
    return split


@pytest.mark.parametrize("at", [None, "c2"])
def test_numbers_bytes_and_operations_are_those_of_the_model(at: str | None) -> None:
    dense = lenet(at)
    found = compression(pruned(dense, 15.78), X)
    assert (found.weights, found.kept) == (61_470, 3895)
    assert found.ratio >= 15.78
    # 28x28 places of c1, 10x10 of c2, one of each linear layer
    assert found.macs_dense == 784 * 150 + 100 * 2400 + 48_000 + 10_080 + 840
    assert found.bytes_dense == len(save({name: value.clone() for name, value in dense.state_dict().items()}, metadata={}))
    assert found.bytes_stored < found.bytes_dense / 8
    assert found.milliseconds is None


def test_only_operations_with_a_weight_are_kept() -> None:
    split = Split(nn.Conv2d(1, 2, 3, bias=False), nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))
    with torch.no_grad():
        split.head.weight[0] = 0  # type: ignore[index, operator]
        split.tail[1].weight[:, 5:] = 0  # type: ignore[index]
    found = compression(split, torch.rand(1, 1, 8, 8))
    assert (found.macs_dense, found.macs_kept) == (36 * 18 + 216, 36 * 9 + 15)
    assert (found.weights, found.kept) == (234, 9 + 15)
    assert split.training


def test_an_untouched_model_keeps_everything() -> None:
    found = compression(lenet(), X)
    assert found.ratio == 1
    assert found.macs_kept == found.macs_dense
    assert found.bytes_stored == found.bytes_dense


def test_a_model_that_lost_channels_is_compared_with_the_one_before() -> None:
    before, after = lenet(), Split(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), at="")
    found = compression(after, X, before=before)
    assert (found.weights, found.kept) == (61_470, 1568)
    assert found.macs_kept == 1568
    assert found.bytes_dense == len(tensor_bytes(before.state_dict(), sparse=False))
    assert found.bytes_stored == len(tensor_bytes(after.state_dict()))
    assert found.milliseconds is not None
    slow, fast = found.milliseconds
    assert 0 < fast < slow < 1000
