# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

import sfumato as sf
from sfumato.models.group_norm import batch_norms, groups, replace_batch_norms


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(512, 32), (256, 32), (128, 32), (96, 16), (64, 16), (48, 8), (32, 8), (24, 4), (16, 4), (7, 1), (2, 1)],
)
def test_groups_divide_the_channels_and_hold_four_of_them_at_least(channels: int, expected: int) -> None:
    assert groups(channels) == expected
    assert channels % expected == 0
    assert channels // expected >= min(4, channels)


def test_every_batch_norm_is_replaced_with_its_scale_and_shift() -> None:
    shared = nn.BatchNorm2d(8, eps=1e-3)
    nn.init.uniform_(shared.weight)
    nn.init.uniform_(shared.bias)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), shared, nn.Sequential(shared), nn.Flatten(), nn.BatchNorm1d(8, affine=False))
    assert batch_norms(model) == ("1", "2.0", "4")
    replace_batch_norms(model.eval())
    assert batch_norms(model) == ()
    assert model[2][0] is model[1], "a module that is used twice stays one"
    assert (model[1].num_groups, model[1].eps, model[1].training) == (2, 1e-3, False)
    assert torch.equal(model[1].weight, shared.weight)
    assert torch.equal(model[1].bias, shared.bias)
    assert model[4].weight is None
    assert not list(model.buffers())
    assert model(torch.rand(3, 1, 3, 3)).shape == (3, 8)


def test_a_map_of_a_single_place_still_tells_pictures_apart() -> None:
    """With the greatest common divisor of 32 and 32 a group would be one number, and its deviation from itself 0."""
    model = nn.Sequential(nn.BatchNorm2d(32))
    replace_batch_norms(model)
    answer = model(torch.randn(2, 32, 1, 1))
    assert (answer[0] - answer[1]).abs().max() > 0.1
    assert nn.GroupNorm(32, 32)(torch.randn(2, 32, 1, 1)).abs().max() < 1e-3


def test_what_depended_on_the_batch_no_longer_does() -> None:
    model = sf.build_model("resnet18", classes=2, shape=(3, 8, 8)).train()
    x = torch.rand(3, 3, 8, 8)
    assert not torch.allclose(model(x)[:2], model(x[:2]), atol=1e-3)
    replace_batch_norms(model)
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-3)
