# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from defense_rows import ROWS
from example_reid import street, street_split
from nets import small_net
from sfumato import registry
from sfumato.data.partition import partition
from sfumato.deploy.exporting.calibration import Wire, calibrate
from sfumato.deploy.exporting.halves import Halves, halve, head_file, tail_file
from sfumato.errors import ExportError
from sfumato.models.embedding import captured, last_linear
from sfumato.split import whole
from sfumato.target import Target
from sfumato.train import assemble

PROTECTING: dict[str, dict[str, object]] = {
    "noise": {"sigma": 0.3},
    "noise_nopeek": {"sigma": 0.3, "weight": 0.5},
    "noise_arl": {"sigma": 0.3, "blocks": 0, "channels": 4},
    "dropout": {"p": 0.3, "rescale": True},
    "mid": {"answers": "mean"},
}
RELEASING: dict[str, dict[str, object]] = {"rounding": {}, "top_k": {"k": 1}, "hamp": {}}
REFUSED = {"memguard"}
ELSEWHERE = {*PROTECTING, *RELEASING, *REFUSED}


def defended(*defenses: sf.Defense, data: sf.Data) -> Target:
    return assemble(sf.split(small_net(), at="2"), data, defenses, seed=0)


def made(name: str, **arguments: object) -> sf.Defense:
    defense = registry.create("defenses", name, arguments)
    assert isinstance(defense, sf.Defense)
    return defense


@pytest.fixture(scope="module")
def data(blobs: sf.Data) -> sf.Data:
    return partition(blobs, reference=0.2)


def assert_same(halves: Halves, sizes: tuple[int, ...] = (1, 2, 7, 64)) -> None:
    """Assert that both files compute what PyTorch does, given the same numbers."""
    head, tail = (onnxruntime.InferenceSession(file) for file in (head_file(halves), tail_file(halves)))
    for size in sizes:
        x, draws = torch.rand(size, *halves.picture_shape), tuple(torch.rand(size, *draw.shape) for draw in halves.draws)
        inputs = {"x": x.numpy(), **{draw.name: value.numpy() for draw, value in zip(halves.draws, draws, strict=True)}}
        (z,) = head.run(None, inputs)
        with torch.no_grad():
            wanted = halves.head(x, draws)
            answer = halves.tail(torch.from_numpy(z))
        assert z.dtype == wanted.numpy().dtype
        assert np.abs(z.astype(float) - wanted.numpy().astype(float)).max() <= (1 if z.dtype == np.uint8 else 1e-3)
        (found,) = tail.run(None, {"z": z})
        assert np.abs(found - answer.numpy()).max() < 1e-4


@pytest.mark.parametrize("name", PROTECTING)
def test_every_protection_is_exported(name: str, data: sf.Data) -> None:
    target = defended(made(name, **PROTECTING[name]), data=data)
    halves = halve(target, Wire("float16"), data.shape)
    assert bool(halves.draws) == target.protection.stochastic
    assert_same(halves)


def test_protections_composed_draw_in_their_order(data: sf.Data) -> None:
    target = defended(sf.Dropout(p=0.2), sf.Noise(sigma=0.1, distribution="laplace"), data=data)
    wire = calibrate(target.features(torch.rand(64, *data.shape)).detach())
    halves = halve(target, wire, data.shape)
    assert [(draw.name, draw.distribution, draw.shape) for draw in halves.draws] == [
        ("draw_0", "uniform", (4, 8, 8)),
        ("draw_1", "exponential", (4, 8, 8)),
        ("draw_2", "exponential", (4, 8, 8)),
    ]
    assert_same(halves)


def test_defenses_with_a_hook_of_deployment_have_a_test_that_knows_it() -> None:
    for hook, named in (("protect", {*PROTECTING, "patrol-paper"}), ("release", {*RELEASING, *REFUSED, "patrol-paper"})):
        loaded = {name: entry.load() for name, entry in registry.TABLE["defenses"].items()}
        assert {name for name, kind in loaded.items() if getattr(kind, hook, None) is not getattr(sf.Defense, hook)} == named


def layers(target: Target) -> list[tuple[type, str]]:
    return [(type(module), module.extra_repr()) for module in target.split.modules() if not list(module.children())]


@pytest.mark.parametrize("name", sorted(set(registry.TABLE["defenses"]) - ELSEWHERE))
def test_every_other_defense_leaves_a_model_that_is_exported(name: str, data: sf.Data) -> None:
    defense = made(name, **ROWS[name])
    target = sf.harden(sf.split(small_net(), at="2"), data, defenses=[defense], epochs=1)
    assert not target.protection.stochastic
    if layers(target) != layers(Target(sf.split(small_net(), at="2"), sf.Compose())):  # files of those are tested above
        assert_same(halve(target, Wire("float32"), data.shape))


@pytest.mark.parametrize("name", RELEASING)
def test_every_release_is_exported(name: str, data: sf.Data) -> None:
    assert_same(halve(defended(made(name, **RELEASING[name]), data=data), Wire("float32"), data.shape))


def test_a_release_by_gradient_is_refused(data: sf.Data) -> None:
    target = defended(made("memguard"), data=data)
    with pytest.raises(ExportError, match="MemGuard.*Keep this target in PyTorch"):
        tail_file(halve(target, Wire("float32"), data.shape))


def test_a_tail_that_draws_is_refused(data: sf.Data) -> None:
    with pytest.raises(ExportError, match='tail to draw no random numbers.*answers = "mean"'):
        halve(defended(made("mid", answers="sample"), data=data), Wire("float32"), data.shape)


class Own(sf.Defense):
    name = "own"
    stochastic = True

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z * torch.rand(len(z), 1, 1, 1, generator=generator) + torch.randn(z.shape, generator=generator)


@pytest.mark.parametrize("name", RELEASING)
def test_both_halves_are_the_target_as_it_answers_users(name: str, data: sf.Data) -> None:
    target = defended(made("mid", answers="mean"), made(name, **RELEASING[name]), data=data)
    halves, x = halve(target, Wire("float32"), data.shape), torch.rand(4, *data.shape)
    with torch.no_grad():
        torch.testing.assert_close(halves.tail(halves.head(x)), target(x))


def test_a_defense_of_the_users_own_is_exported(data: sf.Data) -> None:
    halves = halve(defended(Own(), data=data), Wire("float32"), data.shape)
    assert [draw.shape for draw in halves.draws] == [(1, 1, 1), (4, 8, 8)]
    assert_same(halves)


class Protecting(sf.Defense):
    """Protects with a function, and says of itself what it is told to."""

    name = "protecting"
    stochastic = False

    def __init__(self, change: Callable[[Tensor], Tensor], *, stochastic: bool) -> None:
        super().__init__()
        self.change, self.stochastic = change, stochastic

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.change(z)


@pytest.mark.parametrize(
    ("change", "stochastic"),
    [
        (torch.randn_like, False),
        (lambda z: z + 1, True),
        (lambda z: z + torch.from_numpy(np.random.default_rng(0).random(z.shape, np.float32)), True),  # the same each time
    ],
)
def test_a_defense_that_says_something_else_of_its_draws_is_refused(
    change: Callable[[Tensor], Tensor], stochastic: bool, data: sf.Data
) -> None:
    target = Target(sf.split(small_net(), at="2").eval(), sf.Compose(Protecting(change, stochastic=stochastic)))
    with pytest.raises(ExportError, match=f"found stochastic = {stochastic} and {int(not stochastic)} draws"):
        halve(target, Wire("float32"), data.shape)


class Changed(nn.Module):
    """A convolution, and a function of its maps."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(1, 2, 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.conv(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z.reshape(-1, 1, 6, 6), r"\(2, C, ...\) of torch.float32.*found \(4, 1, 6, 6\) of torch.float32"),
        (lambda z: z.mean((1, 2, 3)), r"found \(2,\)"),
        (lambda z: z.double(), "found .* of torch.float64"),
        (lambda z: z.bfloat16(), "found .* of torch.bfloat16"),
        (lambda z: z / 0, "some not finite"),
        (lambda z: nn.functional.dropout(z, 0.5), "the head of the model to draw no random numbers.*training=self.training"),
    ],
)
def test_features_that_cannot_be_sent_as_they_are_are_refused(
    change: Callable[[Tensor], Tensor], message: str, data: sf.Data
) -> None:
    split = sf.Split(Changed(change).eval(), nn.Identity())
    with pytest.raises(ExportError, match=message):
        halve(Target(split, sf.Compose()), Wire("float32"), data.shape)


def test_answers_are_float32_as_manifests_say(data: sf.Data) -> None:
    class Double(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.flatten(1).double().cumsum(1)

    halves = halve(Target(sf.Split(nn.Conv2d(1, 2, 3), Double()), sf.Compose()), Wire("float32"), data.shape)
    assert halves.tail(torch.rand(2, *halves.feature_shape)).dtype == torch.float32
    assert_same(halves)


def test_a_model_that_is_not_cut_sends_the_picture(data: sf.Data) -> None:
    halves = halve(Target(whole(small_net()), sf.Compose()), Wire("float32"), data.shape)
    assert halves.feature_shape == data.shape
    assert_same(halves)


def test_a_layer_that_works_in_place_does_not_change_what_was_sent(data: sf.Data) -> None:
    split = sf.Split(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2)))
    assert_same(halve(Target(split, sf.Compose()), Wire("float32"), data.shape))


def test_a_head_that_works_in_place_leaves_the_pictures(data: sf.Data) -> None:
    class Dark(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(0.5)

    halves = halve(Target(sf.Split(Dark(), nn.Flatten()), sf.Compose()), Wire("float32"), data.shape)
    x = torch.ones(2, *data.shape)
    assert (float(halves.head(x).max()), float(x.min())) == (0.5, 1.0)
    assert_same(halves)


def test_the_target_is_left_as_it_is_found(data: sf.Data) -> None:
    target = defended(sf.Noise(sigma=0.1), data=data)
    target.train()
    target.split.tail.eval()
    before, modes = copy.deepcopy(target.state_dict()), [module.training for module in target.modules()]
    halves = halve(target, Wire("float32"), data.shape)
    head_file(halves)
    assert [module.training for module in target.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    assert all(parameter.requires_grad for parameter in target.parameters())
    assert not any(module.training for module in halves.head.target.modules())


def test_reidentification_answers_with_the_embedding() -> None:
    target = Target(street_split().eval(), sf.Compose())
    halves = halve(target, Wire("float32"), street().shape, "reidentification")
    assert_same(halves)
    x = torch.rand(3, *street().shape)
    with torch.no_grad(), captured(last_linear(target.split, x)) as given:
        target(x)
    torch.testing.assert_close(halves.tail(halves.head(x)), given[0])
