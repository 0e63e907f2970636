# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sfumato as sf
from sfumato.errors import ConfigError, UnknownNameError
from sfumato.models.freezing import FreezePoint, freeze_points, frozen_by, frozen_part, nearest_point
from sfumato.models.ir import ir50, ir152
from sfumato.models.resnet import resnet18, resnet20
from sfumato.models.vgg import VGG16, vgg16_face
from sfumato.split import Split, whole

STEM = 1920  # parameters of the stem of IR-50 and IR-152
SHIFT = 2048  # of the last norm of vgg16_face, which nobody trains


def made(factory: Callable[..., nn.Module], classes: int = 1000, **options: object) -> tuple[nn.Module, Tensor]:
    """A network of the paper's size, which costs nothing, and a batch for it."""
    with torch.device("meta"):
        return factory(classes, (3, 64, 64), **options), torch.zeros(2, 3, 64, 64)


def millions(count: int) -> float:
    return round(count / 1e6, 2)


@pytest.mark.parametrize(("index", "trained"), [(23, 15.04), (26, 13.86), (29, 11.50), (33, 9.14), (43, 2.05)])
def test_the_indices_of_vgg16_are_those_of_the_paper(index: int, trained: float) -> None:
    point = frozen_part(*made(vgg16_face), index).point
    assert millions(point.trainable + SHIFT) == trained  # the paper counts what is fixed
    assert point.frozen + point.trainable + SHIFT == 16_776_232


def test_the_index_counts_the_layers_of_torchvisions_vgg16() -> None:
    kinds = [kind for group in VGG16 for kind in ["Conv2d", "BatchNorm2d", "ReLU"] * len(group) + ["MaxPool2d"]]
    assert len(kinds) == 44
    model, x = made(vgg16_face)
    for index in (0, 5, 6, 23, 25, 26, 29, 33, 42, 43):
        name = frozen_part(model, x, index).point.name
        assert type(model.get_submodule(name)).__name__ == kinds[index]
        assert name.startswith(f"c{kinds[: index + 1].count('Conv2d')}.")


@pytest.mark.parametrize(
    ("factory", "at", "trained", "counted"),
    [
        (ir152, 46, 17.83, 62.60),
        (ir50, 5, 34.39, 35.44),
        (resnet18, "layer3", 8.91, 11.69),
        (vgg16_face, "c8", 13.86, 16.78),
        (vgg16_face, "c8.0", 13.86, 16.78),  # its norm is trained, 1,024 parameters
    ],
)
def test_other_networks_are_frozen_where_the_paper_freezes_them(
    factory: Callable[..., nn.Module], at: str | int, trained: float, counted: float
) -> None:
    model, x = made(factory)
    point = frozen_part(model, x, at).point
    assert millions(point.trainable) == trained
    assert millions(sum(p.numel() for p in model.parameters())) == counted


def test_the_stem_of_an_ir_is_frozen_which_the_released_code_forgets() -> None:
    model, x = made(ir50)
    layers = frozen_by(model, x, 5)
    assert [layer.name for layer in layers][:4] == ["normalize", "stem.0", "stem.1", "stem.2"]
    assert sum(p.numel() for layer in layers[:4] for p in layer.parameters) == STEM
    paper = sum(
        p.numel()
        for name, p in model.named_parameters()
        if not name.startswith(("stem", "layer1", "layer2.0", "layer2.1", "layer2.2"))
    )
    assert frozen_part(model, x, 5).point.trainable == paper == 34_391_912
    assert millions(paper + STEM) == 34.39  # what the released code trains, too
    assert frozen_part(model, x, 5).point.frozen == 1_045_312


def test_the_units_of_an_ir_are_counted_from_the_first_stage_to_the_last() -> None:
    model, x = made(ir50)
    names = [frozen_part(model, x, index).point.name for index in (0, 2, 3, 6, 7, 20, 21, 23)]
    assert names == [f"layer{unit}" for unit in ("1.0", "1.2", "2.0", "2.3", "3.0", "3.13", "4.0", "4.2")]


def test_points_lie_between_layers_that_weigh_and_have_the_outermost_name() -> None:
    model, x = made(vgg16_face)
    points = freeze_points(model, x)
    assert [point.name for point in points] == [*(f"c{n}" for n in range(1, 13)), "norm"]
    assert [millions(point.trainable) for point in points][6:10] == [15.04, 13.86, 11.49, 9.13]


def test_a_norm_goes_with_the_convolution_that_it_follows_and_not_with_another_block() -> None:
    model, x = made(ir50)
    names = [point.name for point in freeze_points(model, x)]
    assert names[:9] == [
        "stem", "layer1.0.body.prelu", "layer1.0", "layer1.1.body.prelu", "layer1.1", "layer1.2.body.prelu", "layer1",
        "layer2.0.body.prelu", "layer2.0.body",
    ]  # fmt: skip
    assert "layer2.0.body.bn1" not in names, "it starts a unit, and is frozen with it"
    assert names[-2:] == ["layer4", "embedding"]
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    assert [point.name for point in freeze_points(flat, torch.zeros(2, 1, 8, 8))] == ["1", "3"]


def literal(model: nn.Module, names: list[str]) -> tuple[int, int]:
    """Parameters of these modules alone, and of all others."""
    held = sum(p.numel() for name in names for p in model.get_submodule(name).parameters())
    return held, sum(p.numel() for p in model.parameters()) - held


def test_counts_are_those_of_a_slow_sum() -> None:
    model = resnet20(3, (1, 8, 8), shortcut="projection")
    x = torch.zeros(2, 1, 8, 8)
    for point, names in {
        "stem": ["stem"],
        "layer1.1": ["stem", "layer1.0", "layer1.1"],
        "layer2.0.body": ["stem", "layer1", "layer2.0.body"],
        "layer2": ["stem", "layer1", "layer2"],
    }.items():
        found = frozen_part(model, x, point).point
        assert (found.frozen, found.trainable) == literal(model, names)
        assert found in freeze_points(model, x)


def test_every_point_freezes_more_than_the_one_before_and_is_found_by_its_name() -> None:
    model, x = resnet20(3, (1, 8, 8)), torch.zeros(2, 1, 8, 8)
    points = freeze_points(model, x)
    assert len(points) == 19  # twenty layers that weigh
    assert all(a.frozen < b.frozen and a.trainable > b.trainable > 0 for a, b in zip(points, points[1:], strict=False))
    assert [frozen_part(model, x, point.name).point for point in points] == list(points)


@pytest.mark.parametrize("cut", ["stem", "layer1", "layer2.0", "layer2.1", "layer3.2"])
def test_a_cut_changes_nothing(cut: str) -> None:
    model, x = ir50(5, (3, 16, 16), width=0.125), torch.zeros(2, 3, 16, 16)
    halves = sf.split(ir50(5, (3, 16, 16), width=0.125), at=cut)
    assert freeze_points(halves, x) == freeze_points(model, x) == freeze_points(whole(model), x)
    for at in ("stem.1", "layer1.1.body.conv1", "layer2", "layer2.1", "layer4", 0, 6, 23):
        plain = frozen_part(model, x, at)
        for other in (halves, whole(model)):
            found = frozen_part(other, x, at)
            assert found.point == plain.point
            trained = [layer.name for layer in found.layers if layer.parameters]  # a cut may hold a buffer in both halves
            assert trained == [layer.name for layer in plain.layers if layer.parameters]


def test_an_index_of_single_layers_does_not_depend_on_a_cut() -> None:
    model, x = resnet20(3, (1, 8, 8), width=0.25), torch.zeros(2, 1, 8, 8)
    halves = sf.split(model, at="layer2.0")
    for index in (0, 5, 30):
        assert frozen_part(halves, x, index).point == frozen_part(model, x, index).point


class Named(nn.Module):
    """A network as face recognition has them: layers in `body`, an input layer written down last, a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(16, 3)
        self.body = nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)) for _ in range(3)))
        self.unused = nn.Linear(7, 7)
        self.input = nn.Conv2d(1, 2, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        z = functional.adaptive_avg_pool2d(self.body(self.input(x) + self.shift), (4, 2))
        logits: Tensor = self.output(z.flatten(1))
        return logits


@pytest.mark.parametrize("wrapped", [False, True])
def test_everything_before_a_place_is_frozen_whatever_holds_it(wrapped: bool) -> None:
    net, x = Named(), torch.zeros(2, 1, 8, 8)
    model = whole(net) if wrapped else net
    layers = frozen_by(model, x, 1)  # of the body
    assert {layer.name for layer in layers} == {"", "unused", "input", "body.0.0", "body.0.1", "body.1.0", "body.1.1"}
    held = {parameter for layer in layers for parameter in layer.parameters}
    trained = set(model.parameters()) - held
    assert trained == {*net.body[2].parameters(), *net.output.parameters()}
    assert [point.name for point in freeze_points(model, x)] == ["input", "body.0", "body.1", "body"]


def test_features_are_counted_by_their_children() -> None:
    layers = OrderedDict(
        first=nn.Conv2d(1, 2, 3),
        features=nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sequential(nn.BatchNorm2d(2)), nn.Conv2d(2, 2, 3), nn.MaxPool2d(2)),
        flat=nn.Flatten(),
        last=nn.Linear(2, 2),
    )  # fmt: skip
    model, x = nn.Sequential(layers), torch.zeros(2, 1, 8, 8)
    assert [frozen_part(model, x, index).point.name for index in range(4)] == [f"features.{n}" for n in range(4)]
    assert [layer.name for layer in frozen_by(model, x, 1)] == ["first", "features.0", "features.1.0"]


def test_what_is_shared_or_fixed_counts_once_or_not_at_all() -> None:
    one = nn.Linear(4, 4)
    model = nn.Sequential(nn.Flatten(), one, nn.ReLU(), one, nn.Linear(4, 2), nn.Linear(2, 2))
    x = torch.zeros(2, 1, 2, 2)
    assert freeze_points(model, x) == (FreezePoint("1", 20, 16), FreezePoint("4", 30, 6))
    model[4].requires_grad_(False)
    assert freeze_points(model, x) == (FreezePoint("1", 20, 6), FreezePoint("4", 20, 6))
    one.bias.requires_grad_(False)
    assert frozen_part(model, x, "1").point == FreezePoint("1", 16, 6)


def test_dropout_before_the_place_belongs_to_the_frozen_part_and_after_it_does_not() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 2))
    part = frozen_part(model, torch.zeros(2, 1, 2, 2), "3")
    assert list(part.modules) == [model[1], model[3], model[0], model[2]]
    assert [layer.name for layer in part.layers] == ["1", "3"]
    block = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 3)), nn.Linear(3, 2))
    assert block[1] not in frozen_part(block, torch.zeros(2, 1, 2, 2), "1.1").modules, "it ends later"


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        ("layr1", UnknownNameError, r"no module 'layr1' runs in the model \(did you mean 'layer1'\?\); freeze points.*layer1 \("),
        ("pool.x", UnknownNameError, "no module 'pool.x' runs in the model"),
        (-1, ConfigError, r"an index from 0, stem.0, to \d+, classifier, got -1; freeze points"),
        (500, ConfigError, "got 500; freeze points, and how many parameters each leaves to train: stem "),
        ("normalize", ConfigError, "must keep parameters from being trained, but normalize ends before any; freeze points"),
        ("classifier", ConfigError, "must leave parameters to train, but none is trained after classifier; freeze points"),
    ],
)
def test_a_place_that_is_none_is_refused(at: str | int, error: type[ConfigError], message: str) -> None:
    with pytest.raises(error, match=message):
        frozen_by(resnet18(3, (1, 8, 8), width=0.125), torch.zeros(2, 1, 8, 8), at)


def test_a_model_of_the_users_own_layers_has_names_alone() -> None:
    class Own(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.mix = nn.Parameter(torch.ones(4, outputs))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.mix

    model, x = nn.Sequential(Own(4), Own(2)), torch.zeros(2, 1, 2, 2)
    assert frozen_part(model, x, "0").point == FreezePoint("0", 16, 8)
    with pytest.raises(ConfigError, match=r"an index of a module that PyTorch has, got 0; freeze points.* 0 \(8\)$"):
        frozen_by(model, x, 0)


def test_only_fixed_parameters_left_is_nothing_left() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, 1, 2, 2)
    model[2].requires_grad_(False)
    assert freeze_points(model, x) == ()
    with pytest.raises(ConfigError, match="none is trained after 1; the model has no freeze point: it needs two layers"):
        frozen_by(model, x, "1")


def test_a_number_of_parameters_finds_the_nearest_point() -> None:
    points = freeze_points(*made(vgg16_face))
    assert nearest_point(points, 13_900_000).name == "c8"
    assert nearest_point(points, 9_100_000).name == "c10"
    assert nearest_point(points, 2_049_000).name == "norm"
    assert nearest_point([FreezePoint("a", 5, 105)], 100).name == "a"  # 5 % off


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        (3_000_000, r"within 5 % .* got 3000000; freeze points.*c7 \(15 M\), c8 \(13.9 M\).*norm \(2.05 M\)$"),
        (14, "got 14; it is a number of parameters: write 13_900_000 for 13.9 million"),
    ],
)
def test_a_number_that_no_point_leaves_is_refused(trainable: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nearest_point(freeze_points(*made(vgg16_face)), trainable)
    with pytest.raises(ConfigError, match="the model has no freeze point"):
        nearest_point([], 5)


def test_a_long_list_names_the_outermost_points() -> None:
    model, x = made(ir152)
    with pytest.raises(ConfigError, match=r"stem \(62.6 M\), layer1 .* embedding \(513 k\), and 99 further inside$"):
        frozen_by(model, x, -1)
    assert len(freeze_points(model, x)) == 105


def test_modules_that_are_called_by_nobody_have_no_place() -> None:
    net, x = Named(), torch.zeros(2, 1, 8, 8)
    for model in (net, whole(net)):
        with pytest.raises(UnknownNameError, match="no module 'unused' runs"):
            frozen_by(model, x, "unused")
    assert frozen_by(net, x, 0)[1].start == -math.inf


def test_halves_made_by_hand_may_have_the_same_names() -> None:
    model = Split(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Sequential(nn.Flatten(), nn.Linear(72, 2)))
    x = torch.zeros(2, 1, 8, 8)
    assert freeze_points(model, x) == (FreezePoint("head.1", 24, 146),)
    assert [layer.name for layer in frozen_by(model, x, "tail.0")] == ["head.0", "head.1"]


def test_looking_leaves_a_model_as_it_was() -> None:
    model = Split(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Sequential(nn.Flatten(), nn.Linear(72, 2))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen_by(model, torch.rand(2, 1, 8, 8), "head.1")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
