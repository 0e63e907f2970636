# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from sfumato import seeds
from sfumato.data.resident import ResidentPictures
from sfumato.data.variation import DRAWS
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, DataError, TrainingError, WeightsError
from sfumato.priors import train
from sfumato.priors.base import Prior, PriorKind
from sfumato.priors.conditional import SEEN, pseudo_labels
from sfumato.priors.settings import SMOKE, PriorSettings
from sfumato.priors.train import new_prior, train_prior
from sfumato.split import whole
from sfumato.target import Target, WeightsView

KINDS: tuple[PriorKind, ...] = get_args(PriorKind)
SMALL = {"width": 4, "latent": 6, "batch_size": 8, "steps": 6, "kernels": 3, "dims": 2, "top": 10}


def pictures(count: int = 40) -> ResidentPictures:
    """Dark and light pictures with a little noise."""
    stream = seeds.generator(0, "pictures")
    levels = torch.tensor([60, 190])[torch.arange(count) % 2].view(-1, 1, 1, 1)
    noise = torch.randint(-25, 26, (count, 1, 8, 8), generator=stream)
    return ResidentPictures((levels + noise).to(torch.uint8), torch.arange(count) % 2)


def by_light() -> WeightsView:
    """A target that finds dark pictures of class 0 and light ones of class 1, with a batch norm whose statistics must stay."""
    last = nn.Linear(1, 2)
    last.weight.data, last.bias.data = torch.tensor([[-10.0], [10.0]]), torch.tensor([5.0, -5.0])
    model = nn.Sequential(nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    return WeightsView(Target(whole(model), Compose()).eval(), seeds.generator(0, "view"))


def settings(kind: PriorKind, **changed: object) -> PriorSettings:
    return replace(SMOKE[kind], **{**SMALL, **changed})


def trained(kind: PriorKind, view: WeightsView | None = None, **rest: object) -> Prior:
    chosen = rest.pop("settings", settings(kind))
    return train_prior(kind, pictures(), chosen, view=view or by_light(), classes=2, **rest)  # type: ignore[arg-type]


def made(prior: Prior, count: int = 64) -> Tensor:
    labels = torch.arange(count) % 2 if prior.kind == "conditional" else None
    with torch.no_grad():
        return prior(prior.draw(count, seeds.generator(0, "made")), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(
    kind: PriorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(kind, average=0.5, penalty=1.0, penalty_every=2)
    once = trained(kind, settings=chosen)
    monkeypatch.setattr(train, "PAUSE", 0.0)
    seen: list[int] = []

    def stop(step: int, total: int) -> None:
        seen.append(step)
        if step == 3:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(kind, settings=chosen, checkpoint=checkpoint, watch=stop)
    again = trained(kind, settings=chosen, checkpoint=checkpoint, watch=stop)
    assert seen == [1, 2, 3, 4, 5, 6]
    for name, value in once.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    other = trained(kind, settings=chosen, seed=1)
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in once.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["wgan-gp", "hinge", "logistic"])
def test_every_kind_and_loss_moves_both_networks(kind: PriorKind, loss: str) -> None:
    chosen = settings(kind, loss=loss, steps=1, critic_steps=2, penalty=1.0)
    before = new_prior(kind, (1, 8, 8), chosen, classes=2)
    after = trained(kind, settings=chosen)
    assert not after.training
    for network in ("generator", "critic"):
        pairs = zip(getattr(before, network).parameters(), getattr(after, network).parameters(), strict=True)
        moved = [not torch.equal(old, new) for old, new in pairs]
        assert sum(moved) >= len(moved) - 2  # the bias of a score cancels in some losses


@pytest.mark.parametrize(("kind", "rate", "steps"), [("gan", 2e-3, 150), ("style", 1e-3, 60)])
def test_a_generator_learns_what_pictures_are(kind: PriorKind, rate: float, steps: int) -> None:
    light = torch.randint(180, 221, (40, 1, 4, 8), generator=seeds.generator(0, "light"))
    halves = ResidentPictures(torch.cat([light, light - 150], 2).to(torch.uint8), torch.zeros(40, dtype=torch.int64))
    chosen = settings(kind, width=8, steps=steps, generator_rate=rate, critic_rate=rate)

    def rows(prior: Prior) -> Tensor:
        return made(prior).mean((0, 1, 3)) * 255

    untrained, trained = (new_prior(kind, (1, 8, 8), chosen).eval(), train_prior(kind, halves, chosen))
    true = torch.tensor([200.0] * 4 + [50.0] * 4)
    assert (rows(trained) - true).abs().mean() < 30
    assert (rows(untrained) - true).abs().mean() > 60


def test_a_conditional_generator_learns_the_target_classes() -> None:
    chosen = settings("conditional", steps=80, generator_rate=2e-3, critic_rate=2e-3, margin=1.0)
    prior = trained("conditional", settings=chosen)
    x = made(prior).mean((1, 2, 3))
    assert x[0::2].mean() + 0.2 < x[1::2].mean()


def test_an_inversion_discriminator_learns_the_target_classes() -> None:
    prior = trained("inversion", settings=settings("inversion", steps=30, critic_rate=2e-3))
    assert prior.critic is not None
    logits = prior.critic(pictures().read(torch.arange(40)) / 255)[1]
    assert (logits.argmax(1) == torch.arange(40) % 2).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["inversion", "conditional"])
def test_the_target_answers_in_evaluation_mode(kind: PriorKind) -> None:
    view = by_light()
    view._target.train()
    before = {name: value.clone() for name, value in view._target.state_dict().items()}
    trained(kind, view)
    assert all(torch.equal(value, before[name]) for name, value in view._target.state_dict().items())
    assert all(parameter.grad is None for parameter in view._target.parameters())
    assert view._target.training


def test_pseudo_labels_are_the_surest() -> None:
    places, labels = pseudo_labels(by_light(), pictures(), top=5)
    assert labels.tolist() == [0] * 5 + [1] * 5
    light = (pictures().read(torch.arange(40)).float()).mean((1, 2, 3))
    assert places[:5].tolist() == light.argsort()[:5].tolist()
    assert places[5:].tolist() == light.argsort(descending=True)[:5].tolist()


def test_the_mean_style_is_measured() -> None:
    prior = trained("style", settings=settings("style", average=0.9))
    w = prior.style.mapping(prior.draw(5000, seeds.generator(1, "z")))
    torch.testing.assert_close(prior.style.w_mean, w.mean(0), atol=0.05, rtol=0.1)
    assert prior.style.w_mean.any()


def test_averaged_weights_are_the_average_of_those_of_all_steps() -> None:
    """A run of fewer steps is the beginning of a longer one, and averaging does not change what is averaged."""
    averaged = dict(trained("style", settings=settings("style", average=0.8, steps=3)).generator.named_parameters())
    first = new_prior("style", (1, 8, 8), settings("style"))
    ways = [first, *(trained("style", settings=settings("style", steps=steps)) for steps in (1, 2, 3))]
    for name, value in averaged.items():
        w0, w1, w2, w3 = (dict(prior.generator.named_parameters())[name] for prior in ways)
        torch.testing.assert_close(value, 0.8 * (0.8 * (0.8 * w0 + 0.2 * w1) + 0.2 * w2) + 0.2 * w3, rtol=1e-4, atol=1e-7)
        assert not torch.equal(w2, w3)


def test_what_the_target_sees_of_made_pictures_stays_pictures() -> None:
    x = torch.rand(6, 3, 8, 8, generator=seeds.generator(0, "x")).requires_grad_()
    seen = SEEN.vary(x, torch.rand(6, DRAWS, generator=seeds.generator(0, "augment")))
    assert seen.shape == x.shape
    assert float(seen.detach().min()) >= 0
    assert float(seen.detach().max()) <= 1
    assert not torch.equal(seen, x)
    seen.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()
    flat = SEEN.vary(torch.full((50, 1, 8, 8), 0.5), torch.rand(50, DRAWS, generator=seeds.generator(0, "flat")))
    assert 0.4 - 1e-6 <= float(flat.min()) < 0.45 < 0.55 < float(flat.max()) <= 0.6 + 1e-6


def test_grids_show_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "GRID", 4)
    trained("conditional", samples=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004.png", "step-000006.png"]


def test_losses_that_stop_being_finite_end_the_run(tmp_path: Path) -> None:
    chosen = settings("style", steps=200, generator_rate=1e30, critic_rate=1e30, penalty=0.0)
    with pytest.raises(TrainingError, match=r"by step \d+ of 200; there is no checkpoint; lower generator_rate and critic_rate"):
        trained("style", settings=chosen, checkpoint=tmp_path / "checkpoint.safetensors")


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a batch is 64 public pictures, got only 40; lower batch_size"):
        trained("gan", settings=settings("gan", batch_size=64))
    with pytest.raises(DataError, match="50 public pictures are to stand for each class, got only 40; lower top"):
        trained("conditional", settings=settings("conditional", top=50))
    with pytest.raises(ConfigError, match="an audit of a recipe trains it"):
        train_prior("inversion", pictures(), settings("inversion"), classes=2)
    with pytest.raises(ConfigError, match="2 classes or more, got None"):
        train_prior("conditional", pictures(), settings("conditional"), view=by_light())
    odd = ResidentPictures(torch.zeros(40, 1, 9, 9, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    with pytest.raises(ConfigError, match="got 9x9 with 1 channels; resize the pictures"):
        train_prior("gan", odd, settings("gan"))


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "PAUSE", 0.0)
    path = tmp_path / "checkpoint.safetensors"
    trained("gan", checkpoint=path, definition="one")
    with pytest.raises(WeightsError, match="other settings, pictures, seed or target; remove it"):
        trained("gan", checkpoint=path, definition="another")
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="truncated or of another format"):
        trained("gan", checkpoint=path, definition="one")
