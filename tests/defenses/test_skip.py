# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.errors import ConfigError, ConflictError, ModelError
from sfumato.files import load_into, read_tensors, write_tensors
from sfumato.split import cost
from sfumato.train import assemble, fit

HEAVY = sf.Train(epochs=2, batch_size=32, optimizer=sf.Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=0.01))


class Branches(nn.Module):
    """A head whose first convolution is registered last, with a grouped one and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(6, 8, 3, padding=1)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.shortcut = nn.Conv2d(6, 8, 1)
        self.stem = nn.Conv2d(1, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.body(self.grouped(x)) + self.shortcut(x)
        return out


def skipped(target: sf.Target) -> set[tuple[str, int, int]]:
    """The convolution, output and input channel of each kernel that is zero."""
    found = set()
    for name, conv in target.split.head.named_modules():
        if isinstance(conv, nn.Conv2d):
            for o, kernels in enumerate(conv.weight):
                found |= {(name, o, i) for i, kernel in enumerate(kernels) if all(w == 0 for w in kernel.flatten().tolist())}
    return found


def branches() -> sf.Split:
    return sf.Split(Branches(), nn.Sequential(nn.Flatten(), nn.Linear(512, 2)))


def test_a_share_of_the_connections_between_convolutions_is_left_out(blobs: sf.Data) -> None:
    split = branches()
    target = assemble(split, blobs, [sf.Skip(p=0.4)], seed=0)
    zeros = skipped(target)
    assert {name for name, _, _ in zeros} == {"body", "shortcut"}
    for name in ("body", "shortcut"):
        assert sum(zero[0] == name for zero in zeros) == round(0.4 * 8 * 6)
    before = split.head.state_dict()
    for name, value in target.split.head.state_dict().items():
        for place in np.ndindex(*value.shape):
            if (name.removesuffix(".weight"), *place[:2]) not in zeros:
                assert value[place] == before[name][place]
    assert skipped(assemble(split, blobs, [sf.Skip(p=0.4)], seed=0)) == zeros
    assert skipped(assemble(split, blobs, [sf.Skip(p=0.4)], seed=1)) != zeros


def test_each_output_channel_keeps_a_connection(blobs: sf.Data) -> None:
    target = assemble(branches(), blobs, [sf.Skip(p=0.99)], seed=0)
    zeros = skipped(target)
    for name in ("body", "shortcut"):
        for o in range(8):
            assert sum((name, o, i) not in zeros for i in range(6)) == 1


def test_zero_leaves_every_connection(blobs: sf.Data) -> None:
    assert skipped(assemble(branches(), blobs, [sf.Skip(p=0.0)], seed=0)) == set()


def test_what_is_left_out_stays_out_through_momentum_and_weight_decay(small_split: sf.Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [sf.Skip(p=0.5)], seed=0)
    zeros, before = skipped(target), target.split.head.get_parameter("2.weight").clone()
    assert len(zeros) == 12
    steps: list[int] = []
    fit(target, blobs, HEAVY, seed=0, watch=lambda done, total: steps.append(len(skipped(target) ^ zeros)))
    assert steps == [0] * 12
    moved = (target.split.head.get_parameter("2.weight") != before).flatten(2).any(2)
    assert int(moved.sum()) == 12


def test_a_saved_target_goes_on_with_its_own_connections(small_split: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    trained = sf.harden(small_split, blobs, defenses=[sf.Skip(p=0.5)], train=HEAVY, seed=0)
    write_tensors(tmp_path / "weights.safetensors", trained.state_dict())
    again = assemble(small_split, blobs, [sf.Skip(p=0.5)], seed=9)
    assert skipped(again) != skipped(trained)
    load_into(again, read_tensors(tmp_path / "weights.safetensors")[0], source="weights")
    assert skipped(again) == skipped(trained)
    fit(again, blobs, HEAVY, seed=1)
    assert skipped(again) == skipped(trained)


@pytest.mark.parametrize("added", [[], [sf.Noise(sigma=0.1)], [sf.Bottleneck(channels=2)]], ids=str)
def test_a_target_that_is_hardened_once_more_keeps_its_own(
    added: list[sf.Defense], small_split: sf.Split, blobs: sf.Data
) -> None:
    first = sf.harden(small_split, blobs, defenses=[sf.Skip(p=0.5)], train=HEAVY, seed=0)
    second = sf.harden(first, blobs, defenses=added, train=HEAVY, seed=1)
    assert {(o, i) for _, o, i in skipped(second)} == {(o, i) for _, o, i in skipped(first)}


def test_the_head_is_no_cheaper(small_split: sf.Split, blobs: sf.Data) -> None:
    target, x = assemble(small_split, blobs, [sf.Skip(p=0.5)], seed=0), torch.zeros(1, 1, 8, 8)
    assert cost(target.split.head, x) == cost(small_split.head, x)


def test_a_defense_that_changes_shapes_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    class Narrow(sf.Defense):
        name = "narrow"

        def reshape(self, model: sf.Split, weights: Mapping[str, Tensor]) -> None: ...

    with pytest.raises(ConflictError, match=r"Skip\(p=0.5\) zeroes kernels of convolutions that Narrow\(\) takes apart"):
        assemble(small_split, blobs, [Narrow(), sf.Skip(p=0.5)], seed=0)


@pytest.mark.parametrize("cut", ["0", "1"])
def test_a_head_of_one_convolution_is_refused(cut: str, blobs: sf.Data) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ModelError, match="needs a head of at least two convolutions, .* cut the model later"):
        assemble(sf.split(net, at=cut), blobs, [sf.Skip(p=0.5)], seed=0)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_p_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match=r"p must be in \[0, 1\)"):
        sf.Skip(p=p)
