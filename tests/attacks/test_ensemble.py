# SPDX-License-Identifier: Apache-2.0
"""Which members an ensemble chooses, and by what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.attacks.features import ensemble
from sfumato.attacks.features.regression import Fitting
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.target import FeaturesView, Recording, Target
from toys import attacked

QUICK = Fitting(epochs=3, batch_size=64)


class Off(nn.Module):
    """Is off by a constant."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, z: Tensor) -> Tensor:
        return z + self.bias


def recorded(data: sf.Data) -> Recording:
    """Releases that are the pictures themselves."""
    target = Target(sf.Split(nn.Identity(), nn.Flatten()), Compose())
    view = target.view("features", torch.Generator().manual_seed(0))
    assert isinstance(view, FeaturesView)
    return view.record(data.part("auxiliary"))


@pytest.mark.parametrize(
    ("biases", "chosen"),
    [
        ([0.3, 0.1, 0.2], [1]),  # the mean of errors of one sign is worse than the best alone
        ([0.3, -0.2, 5.0], [1, 0]),  # errors that cancel, and one that does not
        ([0.3, -0.3, 0.2, -0.2], [2, 3]),
        ([0.3, 0.3, -0.5], [0, 1, 2]),  # neither the best alone nor the best two
        ([0.4], [0]),
    ],
)
def test_the_mean_of_the_best_few_is_chosen(biases: list[float], chosen: list[int], blobs: sf.Data) -> None:
    members = [Off(bias) for bias in biases]
    found = ensemble.choose(members, recorded(blobs))
    assert {members.index(member) for member in found} == set(chosen)


def test_the_error_that_it_chooses_by_is_that_of_the_mean(blobs: sf.Data) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        members = [nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid()) for _ in range(4)]
    held_out = recorded(blobs)
    z, x = held_out.pairs(torch.arange(len(held_out)))
    with torch.no_grad():
        made = [member(z) for member in members]
    order = sorted(range(4), key=lambda place: (made[place] - x).square().mean().item())
    means = [torch.stack([made[place] for place in order[:count]]).mean(0) for count in range(1, 5)]
    count = min(range(4), key=lambda place: (means[place] - x).square().mean().item()) + 1
    assert ensemble.choose(members, held_out) == tuple(members[place] for place in order[:count])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[nn.Module]]:
    """The members of each ensemble that is fitted."""
    kept: list[list[nn.Module]] = []
    choose = ensemble.choose

    def keep(members: Sequence[nn.Module], held_out: Recording) -> tuple[nn.Module, ...]:
        kept.append(list(members))
        return choose(members, held_out)

    monkeypatch.setattr(ensemble, "choose", keep)
    return kept


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_each_restart_is_a_start_of_its_own_and_always_the_same(
    small_split: sf.Split, blobs: sf.Data, trained: list[list[nn.Module]]
) -> None:
    target = Target(small_split, Compose())
    for restarts, seed in ((1, 0), (2, 0), (1, 5)):
        attacked(sf.Ensemble(residual=((0, 4), (1, 4)), restarts=restarts, fitting=QUICK), target, blobs, seed)
    short, long, other = trained
    assert [len(members) for members in trained] == [3, 6, 3]
    assert all(same(a, b) for a, b in zip(short, long, strict=False))
    assert not any(same(a, b) for a, b in zip(long[:3], long[3:], strict=True))
    assert not any(same(a, b) for a, b in zip(short, other, strict=True))


class Gray(nn.Module):
    """Answers with one gray."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 1, 8, 8), self.value)


def test_what_it_makes_is_the_mean_of_the_chosen(small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "choose", lambda members, held_out: (Gray(0.2), Gray(0.6)))
    attack = sf.Ensemble(residual=((0, 4),), mirror=False, fitting=QUICK)
    (found,) = attacked(attack, Target(small_split, Compose()), blobs).reconstructions["inference"]
    assert found.selection == "best"
    assert torch.allclose(found.x_hat, torch.full((8, 1, 8, 8), 0.4))


def test_the_members_share_their_queries_and_their_progress(small_split: sf.Split, blobs: sf.Data) -> None:
    told: list[tuple[int, int]] = []
    found = sf.Ensemble(residual=((0, 4),), fitting=QUICK)(
        Target(small_split, Compose()),
        blobs.part("auxiliary"),
        {"inference": torch.rand(2, 4, 8, 8)},
        watch=lambda done, total: told.append((done, total)),
    )
    assert found.queries == len(blobs.part("auxiliary"))
    assert told == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"restarts": 0}, "one restart or more"),
        ({"residual": (), "mirror": False}, "at least one network"),
        ({"residual": ((8, 0),)}, "channels >= 1, got 8 and 0"),
    ],
)
def test_an_ensemble_of_nothing_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.Ensemble(**arguments)
