# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.defenses.adversary import Adversarial, InnerAdversary
from sfumato.errors import ConfigError
from sfumato.train import assemble, fit


def network(z: Tensor) -> nn.Module:
    return nn.Sequential(nn.Linear(z.shape[1], 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def taught(adversary: InnerAdversary, steps: int, seed: int) -> InnerAdversary:
    stream = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        z = torch.rand(8, 3, generator=stream)
        adversary.meet(z)
        adversary.learn((adversary(z) - z[:, :2]).square().mean())
    return adversary


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learning_lowers_the_loss() -> None:
    z = torch.rand(50, 3, generator=torch.Generator().manual_seed(9))
    errors = [(taught(InnerAdversary(network, 0.01), steps, 0).frozen(z) - z[:, :2]).square().mean().item() for steps in (1, 300)]
    assert errors[1] < 0.2 * errors[0]


def test_what_is_recalled_goes_on_to_the_same_bits_and_draws_no_random_number() -> None:
    whole = taught(InnerAdversary(network, 0.01), 3, 0)
    again = InnerAdversary(network, 0.01)
    again.recall({name: value.clone() for name, value in whole.memory().items()})
    assert equal(again.memory(), whole.memory())
    state = torch.get_rng_state()
    again.meet(torch.rand(8, 3, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(taught(again, 3, 1).memory(), taught(whole, 3, 1).memory())
    assert "optimizer.0.exp_avg_sq" in whole.memory()
    assert "network.1.running_mean" in whole.memory()


def test_a_copy_learns_by_itself_and_the_same() -> None:
    one = taught(InnerAdversary(network, 0.01), 2, 0)
    other = copy.deepcopy(one)
    before = {name: value.clone() for name, value in one.memory().items()}
    taught(other, 2, 1)
    assert equal(one.memory(), before)
    assert equal(taught(one, 2, 1).memory(), other.memory())


def test_frozen_answers_for_z_and_leaves_no_trace() -> None:
    adversary = taught(InnerAdversary(network, 0.01), 3, 0)
    before = {name: value.clone() for name, value in adversary.memory().items()}
    z = torch.rand(8, 3, requires_grad=True)
    adversary.frozen(z).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert equal(adversary.memory(), before)
    assert all(parameter.grad is None for parameter in adversary._network.parameters())
    assert all(module.training for module in adversary._network.modules())


def test_forget_drops_everything() -> None:
    adversary = taught(InnerAdversary(network, 0.01), 1, 0)
    adversary.forget()
    assert adversary.memory() == {}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="learning_rate must be > 0 and finite"):
        InnerAdversary(network, rate)


SMALL = {"blocks": 0, "channels": 4}
BASELINES = [
    sf.DistCorr(weight=0.5),
    sf.NoiseNopeek(sigma=0.1, weight=0.5),
    sf.ResSFL(threshold=-1.0, steps=2, pretrain=2, **SMALL),
    sf.NoiseARL(sigma=0.1, weight=0.5, **SMALL),
    sf.APP(weight=0.5, steps=2, **SMALL),
]


def trained(split: sf.Split, data: sf.Data, defense: sf.Defense, **options: object) -> dict[str, Tensor]:
    target = assemble(split, data, [sf.Bottleneck(channels=2), sf.Dropout(p=0.1), defense], seed=5)
    fit(target, data, sf.Train(epochs=3, batch_size=32, augment=sf.Augment(crop=1)), seed=5, **options)
    return target.state_dict()


@pytest.mark.parametrize("defense", BASELINES, ids=lambda part: part.name)
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(
    defense: sf.Defense, small_split: sf.Split, blobs: sf.Data, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    whole = trained(small_split, blobs, defense)
    assert not [name for name in whole if "adversary" in name or "network" in name or "decoder" in name]
    for epochs in (1, 2):
        path = tmp_path / f"{epochs}.safetensors"

        def stop(done: int, total: int, last: int = 6 * epochs + 3) -> None:
            if done == last:
                raise StopError

        with pytest.raises(StopError):
            trained(small_split, blobs, defense, checkpoint=path, watch=stop)
        assert equal(trained(small_split, blobs, defense, checkpoint=path), whole)


@pytest.mark.parametrize("defense", BASELINES, ids=lambda part: part.name)
def test_mixed_precision_trains(defense: sf.Defense, small_split: sf.Split, blobs: sf.Data) -> None:
    hardened = sf.harden(small_split, blobs, defenses=[defense], train=sf.Train(epochs=1, precision="bfloat16"))
    assert all(value.isfinite().all() for value in hardened.state_dict().values())


@pytest.mark.parametrize("defense", BASELINES[2:], ids=lambda part: part.name)
def test_the_adversary_learns_in_training_and_is_not_deployed(
    defense: Adversarial, small_split: sf.Split, blobs: sf.Data
) -> None:
    target = assemble(small_split, blobs, [defense], seed=0)
    (part,) = target.defense
    assert isinstance(part, Adversarial)
    memories: list[dict[str, Tensor]] = []

    def note(done: int, total: int) -> None:
        memories.append({name: value.clone() for name, value in part.memory().items()})

    fit(target, blobs, sf.Train(epochs=1, batch_size=64), seed=0, watch=note)
    assert not equal(memories[0], memories[-1])
    assert part.memory() == {}
    assert list(part.parameters()) == []
