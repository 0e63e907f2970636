# SPDX-License-Identifier: Apache-2.0
"""What each kind of prior puts together of the losses, against the sums written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sfumato import seeds
from sfumato.data.resident import ResidentPictures
from sfumato.data.variation import DRAWS
from sfumato.defenses.compose import Compose
from sfumato.priors.base import PriorKind
from sfumato.priors.conditional import SEEN, ConditionalContest
from sfumato.priors.contest import Turn
from sfumato.priors.gan import GanContest
from sfumato.priors.inversion import InversionContest
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import new_prior
from sfumato.split import whole
from sfumato.target import Target, WeightsView

SMALL = PriorSettings(width=4, latent=6, batch_size=8, kernels=3, dims=2, top=10, critic_steps=1)
PUBLIC = ResidentPictures(torch.arange(40 * 64).remainder(241).to(torch.uint8).view(40, 1, 8, 8), torch.arange(40) % 2)


def view() -> WeightsView:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    model[1].weight.data = torch.randn(3, 64, generator=seeds.generator(0, "weights"))
    return WeightsView(Target(whole(model), Compose()).eval(), seeds.generator(0, "view"))


def turn(settings: PriorSettings, step: int = 0, update: int = 0) -> Turn:
    return Turn(PUBLIC, settings, torch.device("cpu"), seed=0, step=step, update=update)


def surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy to soft labels, by its definition."""
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -(labels * probability.log()).sum(1)


@pytest.mark.parametrize("every", [1, 4])
def test_a_gan_has_its_penalty_now_and_then_and_as_much_heavier(every: int) -> None:
    settings = replace(SMALL, loss="logistic", penalty=3.0, penalty_every=every)
    contest = GanContest(new_prior("gan", (1, 8, 8), settings).eval(), settings)
    for step in range(2):
        now = turn(settings, step)
        x = now.pictures().requires_grad_()
        true, made = contest.critic(x), contest.critic(contest.generator(now.latents()))
        gap = (1 + (-true).exp()).log().mean() + (1 + made.exp()).log().mean()
        (slope,) = torch.autograd.grad(true.sum(), [x])
        penalty = 3.0 * every * slope.square().sum((1, 2, 3)).mean() / 2 if step % every == 0 else 0.0
        torch.testing.assert_close(contest.critic_loss(now), gap + penalty)


def test_an_inversion_prior_learns_soft_labels_matches_features_and_is_sure() -> None:
    settings = replace(SMALL, entropy=0.5)
    known = view()
    contest = InversionContest(new_prior("inversion", (1, 8, 8), settings, classes=3).eval(), settings, known)
    now = turn(settings)
    x, made = now.pictures("labeled"), contest.critic(contest.generator(now.latents()))
    soft = surprise(contest.critic(x)[1], known.classify(x).logits.softmax(1)).mean()
    true, fake = contest.critic(now.pictures("unlabeled"))[1].exp().sum(1), made[1].exp().sum(1)  # D = Z / (Z + 1)
    told = -((true / (true + 1)).log().mean() + (1 / (fake + 1)).log().mean()) / 2
    torch.testing.assert_close(contest.critic_loss(now), soft + told)
    matched = (made[0].mean(0) - contest.critic(now.pictures())[0].mean(0)).abs().mean()
    unsure = surprise(made[1], made[1].softmax(1)).sum()
    torch.testing.assert_close(contest.generator_loss(now), matched + 0.5 * unsure)


def test_a_conditional_prior_is_told_by_the_target_of_varied_pictures() -> None:
    settings = replace(SMALL, loss="hinge", penalty=0.0, margin=0.7, betas=(0.0, 0.9))
    known = view()
    contest = ConditionalContest(new_prior("conditional", (1, 8, 8), settings, classes=3).eval(), settings, known, PUBLIC)
    now = turn(settings, update=-1)
    y = torch.randint(3, (8,), generator=now.stream("classes"))
    x_hat = contest.generator(now.latents(), y)
    logits = known.classify(SEEN.vary(x_hat, torch.rand(8, DRAWS, generator=now.stream("augment")))).logits
    behind = [max(row[k] for k in range(3) if k != label) - row[label] for row, label in zip(logits, y.tolist(), strict=True)]
    expected = -contest.critic(x_hat, y).mean() + 0.7 * torch.stack(behind).mean()
    torch.testing.assert_close(contest.generator_loss(now), expected)


@pytest.mark.parametrize("kind", ["gan", "inversion", "conditional"])
def test_a_critic_s_loss_leaves_no_gradient_in_the_generator(kind: PriorKind) -> None:
    settings = replace(SMALL, loss="hinge", penalty=0.0)
    prior = new_prior(kind, (1, 8, 8), settings, classes=3)
    made = {
        "gan": lambda: GanContest(prior, settings),
        "inversion": lambda: InversionContest(prior, settings, view()),
        "conditional": lambda: ConditionalContest(prior, settings, view(), PUBLIC),
    }[kind]()
    made.critic_loss(turn(settings)).backward()
    assert all(parameter.grad is None for parameter in prior.generator.parameters())
    assert any(parameter.grad is not None for parameter in made.critic.parameters())
