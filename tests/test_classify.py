# SPDX-License-Identifier: Apache-2.0
"""What an adversary who has the weights makes of pictures: logits and embedding, with gradient, through the defense."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.defenses.compose import Compose
from sfumato.defenses.noise import Noise
from sfumato.defenses.top_k import TopK
from sfumato.errors import ModelError
from sfumato.seeds import generator
from sfumato.split import split, whole
from sfumato.target import Target, WeightsView


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(72, 5), nn.Linear(5, 3))


def view_of(target: Target) -> WeightsView:
    view = target.view("weights", generator(0, "view"))
    assert isinstance(view, WeightsView)
    return view


def pictures() -> torch.Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("at", ["", "2", "3"])
def test_logits_and_embedding_are_those_of_the_model_in_eval_mode(at: str) -> None:
    model, x = net().train(), pictures()
    view = view_of(Target(split(model, at=at) if at else whole(model), Compose()))
    answer = view.classify(x)
    assert model.training
    model.eval()
    torch.testing.assert_close(answer.logits, model(x))
    torch.testing.assert_close(answer.embedding, model[:5](x))
    (slope,) = torch.autograd.grad(answer.logits.sum() + answer.embedding.sum(), [x])
    assert bool((slope.flatten(1).abs().sum(1) > 0).all())
    assert view.queries == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_features_are_protected_and_what_is_done_to_answers_is_not() -> None:
    model, x = net().eval(), pictures()
    noisy, cut_off = (view_of(Target(split(model, at="2"), Compose(defense))) for defense in (Noise(sigma=1.0), TopK(k=1)))
    first, second = (noisy.classify(x).logits for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(cut_off.classify(x).logits, model(x))
    assert not torch.allclose(cut_off.logits(x), model(x))


def test_a_model_without_a_last_linear_layer_has_no_embedding() -> None:
    view = view_of(Target(whole(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())), Compose()))
    with pytest.raises(ModelError, match=r"an embedding is what the last layer of a model is given"):
        view.classify(pictures())
