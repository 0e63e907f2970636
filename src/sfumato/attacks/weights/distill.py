# SPDX-License-Identifier: Apache-2.0
"""Distil a target into other networks on public pictures: what an adversary does who wants models that err otherwise.

Source: nguyen2023lomma, section 4.2 and its release; hinton2015distilling.
Equations: KL(softmax(T(x)) || softmax(S(x))), mean over pictures, at temperature 1 -> divergence
Departures: the teacher sees every picture and its mirror image once, and its answers are kept; the release asks it anew at each
step. The release's students are EfficientNets with weights of ImageNet, which are a download; any model can be named.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.arguments import require_least, require_positive
from sfumato.attacks.weights.base import Means
from sfumato.data.loader import as_images, batches, divide, shuffled
from sfumato.models.resolve import build_model
from sfumato.seeds import derive
from sfumato.target import BATCH
from sfumato.types import Logits

_MOMENTUM, _DECAY, _HALVED = 0.9, 1e-4, 20


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How students are trained, by descent with momentum 0.9 and weight decay 1e-4.

    Args:
        epochs: passes over the public pictures.
        batch_size: pictures a step.
        learning_rate: of the first 20 epochs; halved every 20.

    Raises:
        ConfigError: a value is out of its range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        require_least(1, epochs=self.epochs)
        require_least(2, batch_size=self.batch_size)
        require_positive(learning_rate=self.learning_rate)


def distilled(means: Means, model: str, known: Tensor, *, settings: Distillation, number: int = 0) -> nn.Module:
    """Train a network to answer as the target does on public pictures.

    Args:
        means: what the adversary has.
        model: of the student, as `sfumato.build_model` names it.
        known: what the target answers, as `answers` returns it.
        settings: how it is trained.
        number: of the student, for its random numbers.

    Returns:
        The student in eval mode, on the device of the target, without gradients to its weights.

    Raises:
        ModelError: the model cannot take the pictures.
    """
    device, public = means.view.device, means.public
    weights = derive(means.seed, "student", number)
    student = build_model(model, classes=known.shape[-1], shape=public.shape, seed=weights).to(device).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=settings.learning_rate, momentum=_MOMENTUM, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, _HALVED, 0.5)
    for epoch in range(settings.epochs):
        stream = means.stream("distill", number, epoch)
        for index in divide(shuffled(len(public), stream), settings.batch_size):
            mirrored = torch.rand(len(index), generator=stream) < 0.5
            x = as_images(public.read(index), device)
            x = torch.where(mirrored.to(device)[:, None, None, None], x.flip(-1), x)
            optimizer.zero_grad(set_to_none=True)
            divergence(student(x), known[mirrored.long(), index].to(device)).backward()
            optimizer.step()
        schedule.step()
    return student.eval().requires_grad_(False)


def divergence(logits: Logits, known: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of a student from its teacher, mean over pictures.

    Args:
        logits: of the student, (N, K).
        known: log probabilities of the teacher, (N, K).

    Example:
        >>> divergence(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]).log()).item()
        0.0
    """
    return F.kl_div(F.log_softmax(logits, 1), known, reduction="batchmean", log_target=True)


@torch.no_grad()
def answers(means: Means) -> Tensor:
    """Return what the target answers about the public pictures and their mirror images: log probabilities, (2, N, K), on the CPU.

    Args:
        means: what the adversary has.
    """
    sides: list[list[Tensor]] = [[], []]
    for x, _ in batches(means.public, size=BATCH, device=means.view.device):
        for side, shown in zip(sides, (x, x.flip(-1)), strict=True):
            side.append(F.log_softmax(means.white.classify(shown).logits, 1).cpu())
    return torch.stack([torch.cat(side) for side in sides])
