# SPDX-License-Identifier: Apache-2.0
"""Which weights are pruned, and how one ratio is divided over them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.errors import ConfigError, ModelError
from sfumato.pruning.admm import open_rows, prune
from sfumato.pruning.tensors import as_head
from sfumato.pruning.weights import coupled, divide, each, narrow, single
from sfumato.split import Split, cost

LENET = ["c1.0", "c2.0", "f1.0", "f2.0", "classifier"]
SIZES = [150, 2400, 48_000, 10_080, 840]


def lenet(at: str | None) -> Split:
    model = sf.build_model("lenet5", classes=10, shape=(1, 28, 28))
    return sf.whole(model) if at is None else sf.split(model, at=at)


class Many(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1, bias=False)
        self.layer_norm, self.group_norm, self.slope = nn.LayerNorm([16, 8, 8]), nn.GroupNorm(4, 16), nn.PReLU(16)
        self.place = nn.Parameter(torch.zeros(1, 16, 8, 8))
        self.attention, self.last = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_weights_are_those_of_layers_and_no_biases_norms_places_or_frozen_ones() -> None:
    groups = single(sf.whole(Many()))
    names = ["conv", "depthwise", "point", "attention.in_proj_weight", "attention.out_proj", "last"]
    assert [group.name for group in groups] == names
    assert [group.size for group in groups] == [216, 72, 128, 768, 256, 64]
    assert [group.name for group in groups if group.fragile] == ["conv", "depthwise", "last"]


@pytest.mark.parametrize("at", [None, "c1", "c2", "f1"])
def test_names_sizes_and_order_do_not_depend_on_the_cut(at: str | None) -> None:
    groups = single(lenet(at))
    assert [group.name for group in groups] == LENET
    assert [group.size for group in groups] == SIZES


def test_a_layer_of_both_halves_and_a_shared_weight_count_once() -> None:
    shared, other, last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
    other.weight = shared.weight
    groups = single(Split(nn.Sequential(nn.Flatten(), shared), nn.Sequential(shared, other, last)))
    assert [group.size for group in groups] == [16, 8]


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="two dimensions or more"):
        single(Split(nn.Flatten(), nn.BatchNorm1d(4)))


def test_the_numbers_that_the_field_found_for_lenet() -> None:
    counts = each(single(lenet(None)), (1 / 0.8, 1 / 0.2, 1 / 0.05, 1 / 0.06, 1 / 0.25))
    assert counts == (120, 480, 2400, 605, 210)
    assert sum(counts) == 3815
    assert sum(SIZES) / sum(counts) == pytest.approx(16.11, abs=0.005)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.27, 10.0, 15.78, 100.0, 5000.0])
def test_one_ratio_is_reached_to_the_weight(ratio: float) -> None:
    counts = divide(single(lenet("c1")), ratio)
    assert sum(counts) == math.floor(sum(SIZES) / ratio)
    assert all(1 <= count <= size for count, size in zip(counts, SIZES, strict=True))


def test_large_layers_give_more_and_fragile_ones_at_most_half() -> None:
    counts = divide(single(lenet(None)), 15.78)
    shares = [count / size for count, size in zip(counts, SIZES, strict=True)]
    assert shares[0] >= 0.5
    assert shares[4] == 0.5
    assert shares[1] > shares[3] > shares[2]
    # in proportion to the square root of the size
    assert counts[1] / counts[2] == pytest.approx((SIZES[1] / SIZES[2]) ** 0.5, rel=0.01)


TABLE_V = [("vgg16", 10, 12.8), ("resnet18", 10, 10.54), ("mobilenet_v2", 10, 10.06), ("mobilenet_v2", 1000, 3.27)]


@pytest.mark.parametrize(("name", "classes", "ratio"), TABLE_V, ids=str)
def test_the_ratios_of_table_v_fit_their_models(name: str, classes: int, ratio: float) -> None:
    groups = single(sf.whole(sf.build_model(name, classes=classes, shape=(3, 32, 32))))
    counts = divide(groups, ratio)
    assert sum(group.size for group in groups) / sum(counts) == pytest.approx(ratio, rel=1e-4)
    fragile = [group for group in groups if group.fragile]
    halves = [2 * counts[groups.index(group)] >= group.size for group in fragile]
    # a classifier of 1,280,000 weights is most of MobileNetV2, and has to give
    assert halves == [True] * len(fragile) or (classes == 1000 and halves == [True] * (len(fragile) - 1) + [False])


def test_patterns_choose_layers_and_the_first_that_fits_counts() -> None:
    groups = single(lenet("c2"))
    assert each(groups, {"c?.*": 2, "f1*": 10, "f*": 4}) == (75, 1200, 4800, 2520, 840)
    assert each(groups, {"*": 2}) == (75, 1200, 24_000, 5040, 420)


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ((2.0, 2.0), r"ratio must have one number for each of c1\.0, c2\.0, f1\.0, f2\.0, classifier \(5\), got 2"),
        ({"clasifier": 2.0}, r"no layer fits 'clasifier' \(did you mean 'classifier'\?\); the layers are c1\.0"),
        ((1, 1, 1, 1, 1681), r"ratio 1681 leaves none of the 840 weights of 'classifier'; it must be at most 840"),
        ({"c1.0": 301}, r"none of the 150 weights of 'c1\.0'"),
    ],
    ids=str,
)
def test_ratios_that_fit_no_layer_or_empty_one_are_refused(ratio: tuple[float, ...] | dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        each(single(lenet(None)), ratio)


def test_one_ratio_that_empties_a_layer_is_refused() -> None:
    message = r"leaves 4 of 61470 weights for 5 layers.*'c1\.0' \(150 weights\), would be empty; it must be at most 12294"
    with pytest.raises(ConfigError, match=message):
        divide(single(lenet(None)), 12_300)
    assert divide(single(lenet(None)), 12_294) == (1, 1, 1, 1, 1)


NETS = {
    "lenet5": (28, 1.0),
    "vgg11": (32, 0.125),
    "resnet18": (16, 0.125),
    "mobilenet_v2": (16, 0.25),
}


def made(name: str) -> tuple[Split, Tensor]:
    """A net of the zoo whose batch norms look trained, and pictures."""
    side, width = NETS[name]
    channels = 1 if name == "lenet5" else 3
    net = sf.build_model(name, classes=3, shape=(channels, side, side), options={"width": width})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                assert tensor is not None
                tensor.data.normal_()
    return sf.whole(net).eval(), torch.rand(4, channels, side, side)


@pytest.mark.parametrize("name", NETS)
def test_rows_that_are_zero_can_be_removed_with_the_same_answers(name: str) -> None:
    from sfumato.pruning import channels

    model, x = made(name)
    whole = cost(model, x[:1]).parameters
    groups, plan = coupled(model, x)
    counts = narrow(plan, 3.0)
    with torch.no_grad():
        before = model(x)
        for group, count in zip(groups, counts, strict=True):
            prune(group, count)
        masked = model(x)
    weights = sum(group.size for group in single(model))
    channels.remove(as_head(model), [group.root for group in groups], [open_rows(group) for group in groups], x)
    with torch.no_grad():
        assert (model(x) - masked).abs().max() <= 1e-5 * masked.abs().max()
    assert (before - masked).abs().max() > 1e-3 * masked.abs().max()
    left = single(model)
    assert weights / sum(group.size for group in left) >= 3.0
    assert sum(group.size for group in left) == plan.footprint(counts).parameters
    assert cost(model, x[:1]).parameters < whole / 2.8


def test_the_rows_of_linear_layers_go_and_those_of_the_classifier_stay() -> None:
    groups, _ = coupled(lenet("c1"), torch.rand(2, 1, 28, 28))
    assert [group.name for group in groups] == LENET[:4]
    assert [group.size for group in groups] == [6, 16, 120, 84]
    assert all(group.rows and len(group.weights) == len(group.beside) == 1 for group in groups)


def test_channels_that_are_added_go_together_with_their_norms() -> None:
    groups, _ = coupled(*made("resnet18"))
    stem = next(group for group in groups if len(group.weights) > 1)
    assert len(stem.weights) == 3  # the stem and the last convolution of two blocks
    assert len(stem.beside) == 6
    assert {type(place.module) for place in stem.beside} == {nn.BatchNorm2d}


@pytest.mark.parametrize("ratio", [1.5, 4.0, 15.78, 200.0])
def test_channels_stay_by_the_square_root_of_their_number_and_no_more_fit(ratio: float) -> None:
    _, plan = coupled(lenet(None), torch.rand(2, 1, 28, 28))
    whole = plan.footprint(plan.sizes).parameters
    assert whole == sum(SIZES)
    counts = narrow(plan, ratio)
    assert plan.footprint(counts).parameters <= whole / ratio
    # the next channel that the rule lets stay is one too many
    scale = min((count + 1) / size**0.5 for count, size in zip(counts, plan.sizes, strict=True) if count < size)
    more = [max(count, min(math.floor(scale * size**0.5 + 1e-9), size)) for count, size in zip(counts, plan.sizes, strict=True)]
    assert more != list(counts)
    assert plan.footprint(more).parameters > whole / ratio
    if ratio == 15.78:
        assert counts == (4, 6, 18, 15)


def test_a_ratio_of_one_leaves_every_channel() -> None:
    _, plan = coupled(lenet(None), torch.rand(2, 1, 28, 28))
    assert narrow(plan, 1.0) == plan.sizes


def test_a_ratio_that_no_removal_reaches_is_refused() -> None:
    _, plan = coupled(lenet(None), torch.rand(2, 1, 28, 28))
    with pytest.raises(ConfigError, match="with one left of each of 4 groups it is 714.8; .*structured=False"):
        narrow(plan, 1000.0)


def test_frozen_channels_stay(blobs: sf.Data) -> None:
    model = lenet(None)
    model.get_submodule("tail.f1").requires_grad_(False)
    groups, _ = coupled(model, torch.rand(2, 1, 28, 28))
    assert [group.name for group in groups] == ["c1.0", "c2.0", "f2.0"]
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="no channel whose weights are trained"):
        coupled(model, torch.rand(2, 1, 28, 28))
