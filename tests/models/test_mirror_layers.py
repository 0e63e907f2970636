# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.errors import ModelError
from sfumato.models.inverter import MirrorDecoder
from sfumato.models.lenet import lenet5
from sfumato.models.mirror import LayerShape, longest_chain, mirror_layers
from sfumato.models.mobilenet import mobilenet_v2
from sfumato.models.resnet import resnet18, resnet20
from sfumato.models.vgg import vgg11, vgg16


def cuts(model: nn.Sequential) -> Iterator[nn.Sequential]:
    """Heads at every child, and at every grandchild of a sequence of blocks."""
    for count, child in enumerate(model):
        for inner in range(1, len(child)) if isinstance(child, nn.Sequential) else ():
            yield nn.Sequential(*model[:count], *child[:inner])
        yield model[: count + 1]


@pytest.mark.parametrize("factory", [lenet5, vgg11, vgg16, resnet18, resnet20, mobilenet_v2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 13), (1, 64, 64)])
def test_every_cut_of_the_zoo_is_mirrored(factory: Callable[..., nn.Sequential], shape: tuple[int, int, int]) -> None:
    model = factory(5, shape, width=0.125).eval()
    x = torch.zeros(2, *shape)
    for head in cuts(model):
        with torch.no_grad():
            z = head(x)
            layers = mirror_layers(head, x)
            assert MirrorDecoder(layers, shape)(z).shape == x.shape
        assert layers == () or (layers[0].in_shape, layers[-1].out_shape) == (shape, z.shape[1:])


@pytest.mark.parametrize(
    ("factory", "depth", "learned"),
    [(lenet5, 7, 5), (vgg11, 3, 2), (vgg11, 12, 11), (resnet18, 6, 17), (resnet20, 8, 20), (mobilenet_v2, 4, 52)],
)
def test_the_main_path_is_followed(factory: Callable[..., nn.Sequential], depth: int, learned: int) -> None:
    head = factory(10, (3, 32, 32), width=0.25)[:depth]
    layers = mirror_layers(head, torch.zeros(1, 3, 32, 32))
    assert sum(layer.learned for layer in layers) == learned
    assert not [layer for layer in layers if layer.kind == "conv" and layer.kernel == (1, 1) and layer.stride == (2, 2)]


def test_layers_say_how_they_were_made() -> None:
    head = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 2), (1, 1), 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 3)
    )
    layers = mirror_layers(head, torch.zeros(3, 4, 16, 8))
    assert layers == (
        LayerShape("conv", (4, 16, 8), (8, 8, 8), (3, 5), (2, 1), (1, 2), (1, 1), 2),
        LayerShape("resample", (8, 8, 8), (128,)),
        LayerShape("linear", (128,), (3,)),
    )


class Functional(nn.Module):
    """Pooling, flattening and a squeeze without modules of their own, and the shortcut before the main path."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(1, 4, 1, 2)
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.narrow, self.widen = nn.Linear(4, 2), nn.Linear(2, 4)
        self.last = nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        z = self.shortcut(x) + self.second(F.relu(self.first(x)))
        gate = torch.sigmoid(self.widen(self.narrow(z.mean((2, 3)))))
        return self.last(F.max_pool2d(z * gate[:, :, None, None], 2).flatten(1))


def test_functional_forms_and_side_branches() -> None:
    head = Functional()
    layers = mirror_layers(head, torch.zeros(1, 1, 16, 16))
    assert [(layer.kind, layer.out_shape) for layer in layers] == [
        ("conv", (4, 8, 8)),
        ("conv", (4, 8, 8)),
        ("resample", (64,)),
        ("linear", (7,)),
    ]
    assert layers[0].kernel == (3, 3)
    assert MirrorDecoder(layers, (1, 16, 16))(torch.zeros(2, 7)).shape == (2, 1, 16, 16)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # that a copy is made is PyTorch's affair
@pytest.mark.parametrize(
    "head",
    [
        nn.Conv2d(2, 3, 4, padding="same"),
        nn.Conv2d(2, 3, 3, padding="valid"),
        nn.Conv2d(2, 3, 3, stride=3, dilation=2),
        nn.ConvTranspose2d(2, 3, 3, 2, 1, 1),
        nn.ConvTranspose2d(2, 3, 2, 3, output_padding=2),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Upsample(scale_factor=2)),
        nn.Sequential(nn.Conv2d(2, 6, 4, 4), nn.Flatten(2), nn.Linear(9, 5)),
        nn.Sequential(nn.Conv2d(2, 6, 4, 4), nn.Flatten(1), nn.Unflatten(1, (9, 6))),
        nn.Linear(12, 5),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.PixelUnshuffle(2)),
    ],
)
def test_odd_layers_come_back_to_the_exact_size(head: nn.Module) -> None:
    x = torch.zeros(2, 2, 12, 12)
    assert MirrorDecoder(mirror_layers(head, x), (2, 12, 12))(head(x)).shape == x.shape


def test_a_class_token_does_not_stop_the_mirror() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mix = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.mix(torch.cat([tokens[:, :1], tokens], dim=1))

    head, x = Tokens(), torch.zeros(2, 3, 16, 16)
    layers = mirror_layers(head, x)
    assert layers[0].kind == "conv"
    assert MirrorDecoder(layers, (3, 16, 16))(head(x)).shape == x.shape


def test_the_head_is_left_as_it_was() -> None:
    head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5).eval())
    mirror_layers(head, torch.rand(1, 1, 8, 8))
    assert [module.training for module in head] == [True, True, False]
    assert head[1].num_batches_tracked == 0
    assert not head[0]._forward_hooks


def test_a_head_that_gives_no_tensor_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ModelError, match=r"one tensor, \(N, \.\.\.\), got tuple"):
        mirror_layers(Two(), torch.zeros(1, 1, 8, 8))


def test_the_longest_chain_ends_at_z_where_one_does() -> None:
    long = [LayerShape("conv", (1, 8, 8), (1, 8, 8)) for _ in range(3)]
    away = LayerShape("conv", (1, 8, 8), (9, 4, 4))
    assert longest_chain([*long, away], (1, 8, 8), (1, 8, 8)) == long
    assert longest_chain([*long, away], (1, 8, 8), (2, 2, 2)) == [*long, away]
    assert longest_chain([away], (3, 3, 3), (9, 4, 4)) == []
