# SPDX-License-Identifier: Apache-2.0
"""Attacks on toys: how well one does, what one does that sees nothing, and a target whose inverse is known."""

from __future__ import annotations

import torch
from torch import nn

import sfumato as sf
from sfumato.attacks.base import Attacked, FeatureAttack
from sfumato.defenses.compose import Compose
from sfumato.metrics import image
from sfumato.target import Target


def attacked(attack: FeatureAttack, target: Target, data: sf.Data, seed: int = 0) -> Attacked:
    """What an attack makes of eight test pictures."""
    x = data.part("test").read(torch.arange(8)) / 255
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sent = [target.eval().features(x, stream) for _ in range(attack.releases)]
    z = sent[0] if attack.releases == 1 else torch.stack(sent, 1)
    return attack(target, data.part("auxiliary"), {"inference": z}, seed=seed)


def error(attack: FeatureAttack, target: Target, data: sf.Data) -> float:
    """The mean squared error on those pictures."""
    found = attacked(attack, target, data).reconstructions["inference"][0].x_hat
    return image.mse(found, data.part("test").read(torch.arange(len(found))) / 255).mean().item()


def mean_error(data: sf.Data) -> float:
    """What an adversary reaches that sees nothing: it answers with the mean picture."""
    train, test = (data.part(name).read(torch.arange(40)) / 255 for name in ("train", "test"))
    return image.mse(train.mean(0).expand_as(test), test).mean().item()


def linear_target(*defenses: sf.Defense) -> Target:
    """A head that mixes the pixels by an orthogonal matrix: its inverse is known, and nothing is lost."""
    mix = nn.Linear(64, 64, bias=False)
    mix.weight.data = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
    return Target(sf.Split(nn.Sequential(nn.Flatten(), mix), nn.Linear(64, 2)), Compose(*defenses))
