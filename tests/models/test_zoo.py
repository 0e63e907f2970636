# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.lenet import lenet5
from sfumato.models.mobilenet import mobilenet_v2
from sfumato.models.normalize import Normalize
from sfumato.models.resnet import resnet18, resnet20
from sfumato.models.vgg import vgg11, vgg16

ZOO: dict[str, Callable[..., nn.Sequential]] = {
    "lenet5": lenet5,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "mobilenet_v2": mobilenet_v2,
}


def parameters(model: nn.Module | Sequence[nn.Module]) -> int:
    modules = [model] if isinstance(model, nn.Module) else model
    return sum(p.numel() for module in modules for p in module.parameters())


def pictures(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(count, *shape, generator=seeds.generator(0, "pictures"))


@pytest.mark.parametrize(
    ("factory", "classes", "shape", "options", "count"),
    [
        (lenet5, 10, (1, 28, 28), {}, 61_706),
        (lenet5, 10, (1, 32, 32), {}, 61_706),
        (resnet18, 10, (3, 32, 32), {}, 11_173_962),
        (resnet18, 1000, (3, 224, 224), {}, 11_689_512),
        (resnet20, 10, (3, 32, 32), {}, 269_722),
        (resnet20, 10, (3, 32, 32), {"shortcut": "projection"}, 272_474),
        (mobilenet_v2, 10, (3, 32, 32), {}, 2_236_682),
        (mobilenet_v2, 1000, (3, 224, 224), {}, 3_504_872),
        (vgg11, 10, (3, 32, 32), {}, 9_756_426),
    ],
)
def test_parameters_are_those_of_the_literature(
    factory: Callable[..., nn.Module], classes: int, shape: tuple[int, int, int], options: dict[str, object], count: int
) -> None:
    with torch.device("meta"):  # counting needs no numbers
        model = factory(classes, shape, **options)
    assert parameters(model) == count


def test_lenet_weights_of_each_layer() -> None:
    model = lenet5(10, (1, 28, 28))
    assert [p.numel() for p in model.parameters() if p.dim() > 1] == [150, 2400, 48000, 10080, 840]


def test_vgg11_is_split_by_cem() -> None:
    model = vgg11(200, (3, 32, 32))
    head, tail = model[:3], model[3:]
    z = head(pictures(2, (3, 32, 32)))
    assert z.shape == (2, 128, 8, 8)
    bottleneck, widening = 128 * 8 * 9 + 8, 8 * 128 * 9 + 128
    assert parameters(head) == 85_256 - bottleneck
    # Table S6 prints 0.085 M and 9.78 M, and cuts digits off rather than rounding; 9.78 M is the tail with 200 classes
    assert int((parameters(tail) + widening) / 1e4) == 978


def test_vgg16_has_thirteen_convolutions() -> None:
    with torch.device("meta"):
        model = vgg16(10, (3, 32, 32))
    names = [name for name, _ in model.named_children()]
    assert names == ["normalize", *(f"c{n}" for n in range(1, 14)), "pool", "flatten", "classifier"]


@pytest.mark.parametrize(
    ("name", "children"),
    [
        ("lenet5", "normalize c1 c2 flatten f1 f2 classifier"),
        ("vgg11", "normalize c1 c2 c3 c4 c5 c6 c7 c8 pool flatten classifier"),
        ("resnet18", "normalize stem layer1 layer2 layer3 layer4 pool flatten classifier"),
        ("resnet20", "normalize stem layer1 layer2 layer3 pool flatten classifier"),
        ("mobilenet_v2", "normalize stem blocks last pool flatten classifier"),
    ],
)
def test_children_are_the_documented_cuts(name: str, children: str) -> None:
    model = ZOO[name](10, (1, 8, 8), width=0.25)
    assert [child for child, _ in model.named_children()] == children.split()
    assert isinstance(model[0], Normalize)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32), (3, 48, 33), (3, 64, 64)])
def test_every_size_gives_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = ZOO[name](7, shape, width=0.125).eval()
    with torch.no_grad():
        logits = model(pictures(2, shape))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
        assert torch.equal(logits, model(pictures(2, shape)))


def test_the_stem_may_be_chosen() -> None:
    x = pictures(2, (3, 32, 32))
    maps = [resnet18(10, (3, 32, 32), width=0.125, stem=stem)[:2](x).shape[2:] for stem in ("auto", "cifar", "imagenet")]
    assert maps == [(32, 32), (32, 32), (8, 8)]
    assert resnet18(10, (3, 64, 64), width=0.125)[:2](pictures(2, (3, 64, 64))).shape[2:] == (16, 16)
    assert resnet18(10, (1, 8, 8), width=0.125, stem="imagenet")(pictures(2, (1, 8, 8))).shape == (2, 10)


def test_mobilenet_strides_follow_the_size() -> None:
    maps = [mobilenet_v2(10, (3, s, s), width=0.25).eval()[:4](pictures(1, (3, s, s))).shape[2:] for s in (32, 64)]
    assert maps == [(4, 4), (2, 2)]


@pytest.mark.parametrize("name", ZOO)
def test_gradients_reach_every_parameter(name: str) -> None:
    with seeds.ambient(0, "weights"):
        model = ZOO[name](4, (1, 16, 16), width=0.25)
        model(pictures(8, (1, 16, 16))).square().sum().backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []
    # single units may be dead, a weight matrix may not
    assert [key for key, p in model.named_parameters() if p.dim() > 1 and not p.grad.any()] == []


@pytest.mark.parametrize("name", ZOO)
def test_tracing_by_fx_keeps_every_bit(name: str) -> None:
    model = ZOO[name](4, (3, 16, 16), width=0.125).eval()
    x = pictures(2, (3, 16, 16))
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("name", ZOO)
def test_nothing_works_in_place(name: str) -> None:
    model = ZOO[name](4, (1, 16, 16), width=0.125)
    assert [key for key, module in model.named_modules() if getattr(module, "inplace", False)] == []


@pytest.mark.parametrize("name", ZOO)
def test_width_scales_the_channels(name: str) -> None:
    with torch.device("meta"):
        sizes = [parameters(ZOO[name](4, (1, 16, 16), width=width)) for width in (0.5, 1.0, 2.0)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"shape": (1, 7, 8)}, "at least 8 pixels"),
        ({"shape": (0, 8, 8)}, "channels, height, width"),
        ({"width": 0.0}, "width must be a positive number, got 0.0"),
        ({"mean": [0.5, 0.5]}, "mean must have 1 numbers"),
        ({"std": [0.0]}, "std must be positive"),
    ],
)
def test_sizes_out_of_range_are_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ZOO[name](**{"classes": 4, "shape": (1, 8, 8), "width": 0.125, **arguments})


def test_normalization_is_part_of_the_model() -> None:
    model = lenet5(4, (3, 8, 8), mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    x = pictures(2, (3, 8, 8))
    expected = torch.stack([(x[:, 0] - 0.1) / 0.5, (x[:, 1] - 0.2) / 0.25, (x[:, 2] - 0.3) / 1.0], dim=1)
    torch.testing.assert_close(model.normalize(x), expected)


def test_normalize_refuses_lists_of_different_length() -> None:
    with pytest.raises(ConfigError, match="got 1 and 2 numbers"):
        Normalize([0.5], [0.5, 0.5])
