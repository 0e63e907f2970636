# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sfumato import seeds
from sfumato.errors import ConfigError
from sfumato.models.ir import ir50, ir152
from sfumato.models.lenet import lenet5
from sfumato.models.mobilenet import mobilenet_v2
from sfumato.models.normalize import Normalize
from sfumato.models.resnet import resnet18, resnet20, resnet34, resnet50
from sfumato.models.vgg import vgg11, vgg16, vgg16_face

ZOO: dict[str, Callable[..., nn.Sequential]] = {
    "lenet5": lenet5,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "vgg16_face": vgg16_face,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "ir50": ir50,
    "ir152": ir152,
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
        (resnet34, 1000, (3, 224, 224), {}, 21_797_672),
        (resnet50, 1000, (3, 224, 224), {}, 25_557_032),
        (vgg16_face, 1000, (3, 64, 64), {}, 16_776_232),
        (ir50, 1000, (3, 64, 64), {}, 35_437_224),
        (ir152, 1000, (3, 64, 64), {}, 62_599_848),
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


@pytest.mark.parametrize(("frozen", "millions"), [(7, 15.04), (8, 13.86), (9, 11.50), (10, 9.14), (13, 2.05)])
def test_vgg16_face_is_frozen_at_the_places_of_tl_dmi(frozen: int, millions: float) -> None:
    with torch.device("meta"):
        model = vgg16_face(1000, (3, 64, 64))
    assert round(parameters(model[1 + frozen :]) / 1e6, 2) == millions


def test_ir_nets_are_frozen_at_the_places_of_tl_dmi() -> None:
    with torch.device("meta"):
        deep, shallow = ir152(1000, (3, 64, 64)), ir50(1000, (3, 64, 64))
    assert round(parameters([deep.layer4, deep.embedding, deep.classifier]) / 1e6, 2) == 17.83
    # its units 0 to 5; what the papers print as trained includes neither these nor the stem
    assert round((parameters(shallow) - parameters([shallow.stem, shallow.layer1, *shallow.layer2[:3]])) / 1e6, 2) == 34.39


def test_the_last_batch_norm_of_vgg16_face_scales_and_does_not_shift() -> None:
    model = vgg16_face(4, (3, 64, 64), width=0.125)
    assert model.classifier.in_features == 4 * 64
    assert model.norm.weight.requires_grad
    assert not model.norm.bias.requires_grad
    assert not model.norm.bias.any()
    given = model[:-1](pictures(32, (3, 64, 64)))
    torch.testing.assert_close(given.mean(0), torch.zeros(256), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("side", "places"), [(64, 16), (112, 49), (32, 4), (40, 9)])
def test_ir_embeds_every_place_of_the_last_map(side: int, places: int) -> None:
    with torch.device("meta"):
        model = ir50(10, (3, side, side))
    assert model.embedding.linear.in_features == 512 * places
    assert model.embedding.linear.out_features == 512


def test_a_unit_of_ir_is_its_formula() -> None:
    unit = ir50(2, (1, 8, 8), width=0.125).layer1[0].eval()  # as many channels as before: the shortcut only subsamples
    assert isinstance(unit.shortcut, nn.MaxPool2d)
    x = pictures(2, (8, 8, 8)) - 0.5
    inner = functional.conv2d(x / (1 + 1e-5) ** 0.5, unit.body.conv1.weight, padding=1)
    inner = torch.where(inner > 0, inner, 0.25 * inner)
    expected = functional.conv2d(inner, unit.body.conv2.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5 + x[:, :, ::2, ::2]
    torch.testing.assert_close(unit(x), expected)


def test_a_bottleneck_halves_the_map_in_its_middle() -> None:
    blocks = resnet50(2, (3, 8, 8), width=0.125).layer2
    assert [block.body.conv2.stride for block in blocks] == [(2, 2), (1, 1), (1, 1), (1, 1)]
    assert [block.body.conv1.stride for block in blocks] == [(1, 1)] * 4
    assert blocks[0].body.conv3.out_channels == 4 * blocks[0].body.conv2.out_channels


@pytest.mark.parametrize(
    ("name", "children"),
    [
        ("lenet5", "normalize c1 c2 flatten f1 f2 classifier"),
        ("vgg11", "normalize c1 c2 c3 c4 c5 c6 c7 c8 pool flatten classifier"),
        ("vgg16_face", f"normalize {' '.join(f'c{n}' for n in range(1, 14))} flatten norm classifier"),
        ("resnet18", "normalize stem layer1 layer2 layer3 layer4 pool flatten classifier"),
        ("resnet34", "normalize stem layer1 layer2 layer3 layer4 pool flatten classifier"),
        ("resnet50", "normalize stem layer1 layer2 layer3 layer4 pool flatten classifier"),
        ("ir50", "normalize stem layer1 layer2 layer3 layer4 embedding classifier"),
        ("ir152", "normalize stem layer1 layer2 layer3 layer4 embedding classifier"),
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
    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    assert [key for key, p in trained if p.grad is None or not p.grad.isfinite().all()] == []
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
