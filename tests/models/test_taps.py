# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.models.taps import taps


def caught(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs, by hooks at the places that are told."""
    found: dict[str, Tensor] = {}

    def keep(name: str, given: bool) -> Callable[..., None]:
        return lambda _, arguments, output: found.update({name: arguments[0] if given else output})

    handles = [tap.at.register_forward_hook(keep(name, tap.given)) for name, tap in taps(model, x).items()]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("name", "at"), [("vgg11", "c3"), ("resnet18", "layer2.0"), ("resnet50", "layer1.0"), ("ir50", "layer1.1")]
)
def test_a_cut_model_shows_what_the_whole_one_does(name: str, at: str) -> None:
    model, x = sf.build_model(name, classes=3, shape=(1, 16, 16), options={"width": 0.0625}).eval(), torch.rand(2, 1, 16, 16)
    whole = caught(model, x)
    cut = caught(sf.split(model, at=at), x)
    parted = {"normalize", at.partition(".")[0]} if "." in at else {"normalize"}  # traced away, or in both halves
    assert set(whole) == {layer for layer, _ in model.named_modules() if layer}
    for layer in {layer for layer in whole if not layer.endswith("shortcut")} - parted:
        assert torch.equal(cut[layer], whole[layer]), layer


def test_shapes_are_those_of_the_whole_model() -> None:
    model, x = sf.build_model("resnet18", classes=3, shape=(1, 8, 8), options={"width": 0.0625}), torch.rand(2, 1, 8, 8)
    assert taps(model, x)["layer2"].shape == caught(model, x)["layer2"].shape == (2, 8, 4, 4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class _Twice(nn.Module):
    """Calls one layer twice, another that gives a pair, and a third never."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.pair, self.unused = nn.Flatten(), _Pair(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        first, _ = self.pair(self.act(x))
        again: Tensor = self.act(first[:, :, None, None].expand(-1, -1, 2, 2))
        return again


class _Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_the_first_call_counts_and_what_gives_no_single_tensor_is_left_out() -> None:
    found = taps(_Twice(), torch.zeros(3, 1, 4, 4))
    assert {name: tap.shape for name, tap in found.items()} == {"act": (3, 16)}


def test_rows_must_be_pictures() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Flatten(0), nn.Unflatten(0, (2, -1)), nn.Linear(4, 2))
    assert list(taps(model, torch.zeros(2, 1, 2, 2))) == ["0", "2", "3"]
