# SPDX-License-Identifier: Apache-2.0
"""A toy that a net learns by heart: pictures of four classes, a part of them under wrong labels."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from sfumato.split import whole

TRAIN = sf.Train(epochs=60, batch_size=32, optimizer=sf.Optimizer(name="adam", learning_rate=1e-2, weight_decay=0.0))


@cache
def noisy_labels() -> sf.Data:
    """96 members, 64 pictures of reference and 160 of test, 1x8x8; a third have a label drawn at random."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(320) % 4
    prototypes = torch.rand(4, 1, 8, 8, generator=stream)
    x = 0.35 * prototypes[y] + 0.65 * torch.rand(320, 1, 8, 8, generator=stream)
    wrong = torch.rand(320, generator=stream) < 1 / 3
    y[wrong] = torch.randint(4, (int(wrong.sum()),), generator=stream)
    return sf.load_data((x[:160], y[:160]), test=(x[160:], y[160:]), reference=0.4)


def dense_net() -> sf.Split:
    """A net large enough to know them by heart, not cut."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return whole(nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4)))


def trained(*defenses: sf.Defense, train: sf.Train = TRAIN) -> sf.Target:
    """The net, trained with defenses."""
    return sf.harden(dense_net(), noisy_labels(), defenses=list(defenses), train=train)


def asked(target: nn.Module, part: str) -> tuple[Tensor, Tensor]:
    """What a target answers about a part, (N, C), and the labels, (N,)."""
    pictures = noisy_labels().part(part)
    with torch.no_grad():
        return target.eval()(pictures.read(torch.arange(len(pictures))) / 255), pictures.labels


def losses(target: nn.Module) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each member and of each other picture."""
    member, other = (F.cross_entropy(*asked(target, part), reduction="none") for part in ("private", "test"))
    return member, other


def gap(target: nn.Module) -> float:
    """How much larger the mean loss of others is than that of members."""
    member, other = losses(target)
    return (other.mean() - member.mean()).item()


def found_by_loss(target: nn.Module) -> float:
    """The area under the ROC curve of the adversary who takes small losses for members."""
    member, other = (side.numpy() for side in losses(target))
    pairs = [(1.0 if m < o else 0.5 if m == o else 0.0) for m in member for o in other]
    return sum(pairs) / len(pairs)


@cache
def undefended() -> sf.Target:
    """The net, trained without defense."""
    return trained()
