# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sfumato as sf
from nets import small_net
from sfumato.defenses.fista import shrink
from sfumato.defenses.masks import SoftMasks, Sparsity
from sfumato.errors import ConfigError, ModelError
from sfumato.split import Split, cost

SHAPE = (3, 16, 16)


def resnet(at: str = "layer3") -> Split:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sf.split(sf.build_model("resnet18", classes=3, shape=SHAPE, options={"width": 0.125}), at=at, name="resnet18")


def masked(model: Split, *, keep: sf.Keep | None = None, kind: str = "channel", **given: object) -> SoftMasks:
    x = torch.rand(2, *(SHAPE if model.name == "resnet18" else (1, 8, 8)))
    with torch.no_grad():
        return SoftMasks(model, x, kind=kind, sparsity=Sparsity(**given), keep=keep)  # type: ignore[arg-type]


def small() -> Split:
    return sf.split(small_net(), at="2")


def slope(masks: SoftMasks, gradient: Tensor) -> None:
    """Give the masks a gradient."""
    for mask, part in zip(masks.values, gradient.split(list(masks.plan.sizes)), strict=True):
        mask.grad = part.clone()


def values(masks: SoftMasks) -> Tensor:
    return torch.cat([mask.detach() for mask in masks.values])


@torch.no_grad()
def test_masks_that_are_all_open_change_nothing() -> None:
    model, x = resnet().eval(), torch.rand(2, *SHAPE)
    before = model(x)
    masks = masked(model)
    assert torch.equal(model(x), before)
    assert values(masks).tolist() == [1.0] * sum(masks.plan.sizes)


@torch.no_grad()
def test_a_step_is_one_of_fista_with_both_norms_as_the_paper_has_them() -> None:
    masks = masked(small(), average=False, rate=0.02, l1=3.0, l2=5.0)
    gradients = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    slope(masks, gradients[0])
    masks.step()
    first = shrink(1 - 0.02 * gradients[0], step=0.02, l1=3.0, l2=5.0)
    assert torch.allclose(values(masks), first, atol=1e-6)
    slope(masks, gradients[1])
    masks.step()
    second = shrink(first - 0.02 * gradients[1], step=0.02, l1=3.0, l2=5.0)
    t = (1 + math.sqrt(5)) / 2
    ahead = second + (t - 1) / ((1 + math.sqrt(1 + 4 * t**2)) / 2) * (second - first)
    assert torch.allclose(values(masks), ahead, atol=1e-6)
    masks.narrow(1.0)
    assert torch.allclose(values(masks), second, atol=1e-6)


@torch.no_grad()
def test_on_average_the_norms_are_divided_and_the_weights_take_what_masks_have_in_common() -> None:
    model = resnet().eval()
    masks, x = masked(model, rate=0.5, l1=30.0), torch.rand(2, *SHAPE)
    count = sum(masks.plan.sizes)
    gradient = 0.1 * torch.randn(count, generator=torch.Generator().manual_seed(0))
    slope(masks, gradient)
    bare = shrink(1 - 0.5 * gradient, step=0.5, l1=30.0 / count, l2=10.0 / count)
    for mask, part in zip(masks.values, bare.split(list(masks.plan.sizes)), strict=True):
        mask.copy_(part)
    expected = model(x)
    for mask in masks.values:
        mask.fill_(1.0)
    masks.step()
    assert values(masks).mean().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(values(masks), bare / bare.mean(), atol=1e-5)
    assert torch.allclose(model(x), expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_the_norms_alone_close_nothing_that_all_masks_share() -> None:
    masks = masked(small(), rate=0.5)
    for _ in range(200):
        slope(masks, torch.zeros(10))
        masks.step()
    assert torch.allclose(values(masks), torch.ones(10), atol=1e-4)


@torch.no_grad()
def test_the_head_narrows_with_each_epoch_until_it_fits_when_half_are_done() -> None:
    model = resnet()
    masks = masked(model, keep=sf.Keep(parameters=0.2))
    noise = torch.rand(sum(masks.plan.sizes), generator=torch.Generator().manual_seed(0))
    sizes, shares = [masks.whole.parameters], [0.0, 0.0]
    for number in range(8):
        masks.begin_epoch()
        slope(masks, noise)
        masks.step()
        masks.narrow((number + 1) / 8)
        left = max(0.0, 1 - 2 * (number + 1) / 8) ** 3
        sizes.append(masks._kept().parameters)
        limit = masks.whole.parameters * (0.2 + 0.8 * left)
        assert sizes[-1] <= limit
        shares.append(sizes[-1] / limit)
    assert min(shares[2:]) > 0.9  # and no more than it must
    assert sizes[5:] == [sizes[4]] * 4
    assert all(after <= before for before, after in zip(sizes, sizes[1:], strict=False))


@torch.no_grad()
def test_what_is_closed_at_the_end_of_an_epoch_stays_closed() -> None:
    masks = masked(small(), keep=sf.Keep(parameters=0.5))
    slope(masks, torch.linspace(-1, 1, 10))
    masks.step()
    masks.narrow(1.0)
    closed = values(masks) == 0
    assert 0 < closed.sum() < 10
    masks.begin_epoch()
    for _ in range(3):
        slope(masks, -torch.ones(10))
        masks.step()
    masks.narrow(1.0)
    assert torch.equal(values(masks) == 0, closed)


@torch.no_grad()
def test_under_a_budget_the_norms_close_nothing_and_stop_when_the_head_fits() -> None:
    masks = masked(small(), keep=sf.Keep(parameters=1), average=False, rate=1.0, l1=100.0)
    slope(masks, torch.zeros(10))
    masks.step()
    assert torch.equal(values(masks), torch.ones(10))  # the whole head fits: no norm acts
    masks = masked(small(), keep=sf.Keep(parameters=0.9), average=False, rate=1.0, l1=100.0)
    slope(masks, torch.zeros(10))
    masks.step()
    assert values(masks).tolist() == pytest.approx([0.01] * 10)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["channel", "block"])
def test_removal_leaves_what_the_masked_head_computes(kind: str) -> None:
    model, x = resnet("layer4").eval(), torch.rand(3, *SHAPE)
    masks = masked(model, kind=kind, keep=sf.Keep(parameters=0.5))
    masks.narrow(1.0)
    for number, mask in enumerate(masks.values):
        mask.mul_(torch.rand(mask.shape, generator=torch.Generator().manual_seed(number)) + 0.1)
    before = model(x)
    masks.remove(model)
    assert torch.allclose(model(x), before, rtol=1e-4, atol=1e-4)
    kept = cost(model.head, x[:1])
    assert kept.parameters <= 0.5 * masks.whole.parameters
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def test_without_a_budget_masks_at_or_below_the_threshold_go_and_a_share_of_each_unit_stays() -> None:
    model = small()
    masks = masked(model, threshold=0.5, least=0.5)
    masks.values[0].copy_(torch.tensor([0.1, 0.6, 0.5, 0.3, 0.7, 0.2]))  # two are above it, half of six stay
    masks.values[1].copy_(torch.tensor([0.9, 0.9, 0.4, 0.9]))
    masks._open = torch.ones(10)
    masks.remove(model)
    first, second = (module for module in model.head.modules() if isinstance(module, nn.Conv2d))
    assert (first.out_channels, second.out_channels) == (3, 3)


@torch.no_grad()
def test_a_finished_model_gives_a_fresh_one_its_shapes() -> None:
    for kind in ("channel", "block"):
        model, fresh, x = resnet().eval(), resnet().eval(), torch.rand(2, *SHAPE)
        for halves in (model, fresh):
            masks = masked(halves, kind=kind, keep=sf.Keep(parameters=0.4))
            if halves is model:
                slope(masks, torch.rand(sum(masks.plan.sizes), generator=torch.Generator().manual_seed(0)))
                masks.step()
                masks.remove(model)
        masks.reshape(fresh, model.state_dict())
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh(x), model(x))


def test_masks_that_start_from_a_normal_distribution_are_half_closed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masks = masked(resnet(), start="normal")
    drawn = values(masks)
    assert (drawn == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert drawn[drawn > 0].mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"l1": -1.0}, "l1, l2 and threshold must be >= 0, got -1.0, 10.0 and 0.0"),
        ({"l2": math.inf}, "l1, l2 and threshold must be >= 0"),
        ({"threshold": -0.1}, "l1, l2 and threshold must be >= 0"),
        ({"rate": 0.0}, r"rate must be > 0 and least a share in \[0, 1\], got 0.0 and 0.05"),
        ({"least": 1.5}, "least a share in"),
        ({"start": "onse"}, "did you mean 'ones'"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sparsity(**given)  # type: ignore[arg-type]


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"keep asks for a head of at most 40 B, but the smallest that pruning can make .* 80 B"
    ):
        masked(small(), keep=sf.Keep(memory=40))
    with pytest.raises(ModelError, match="block-wise pruning needs residual blocks"):
        masked(small(), kind="block")


def test_the_loss_reaches_the_masks_through_the_model() -> None:
    model = small()
    masks = masked(model)
    F.cross_entropy(model(torch.rand(4, 1, 8, 8)), torch.tensor([0, 1, 0, 1])).backward()
    assert all(mask.grad is not None and mask.grad.abs().sum() > 0 for mask in masks.values)
    masks.clear()
    assert all(mask.grad is None for mask in masks.values)
