# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sfumato as sf
from sfumato import registry
from sfumato.errors import ConfigError, CutError
from sfumato.models.resolve import build_model
from sfumato.split import cost


class Odd(nn.Module):
    """A residual connection, a module called twice, in-place operations, functional dropout, and a second output."""

    def __init__(self, two_outputs: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 2.0))
        self.fc = nn.Linear(256, 3)
        self.two_outputs = two_outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        stem = self.act(self.norm(self.stem(x)) * self.scale)
        joined = self.act(stem + self.body(stem) * self.scale)
        logits = self.fc(F.dropout(joined, 0.5, training=self.training).flatten(1))
        return (logits, joined.mean()) if self.two_outputs else logits


def same_bits(model: nn.Module, at: str, x: Tensor, *, training: bool) -> bool:
    """Whether head then tail gives the bits of the whole, running statistics included."""
    twin = copy.deepcopy(model)
    halves = sf.split(twin, at=at)
    model.train(training)
    halves.train(training)
    outs = []
    for net in (model, halves):
        torch.manual_seed(0)
        outs.append(net(x))
    first, second = (out if isinstance(out, tuple) else (out,) for out in outs)
    buffers = zip(model.buffers(), twin.buffers(), strict=True)
    return all(map(torch.equal, first, second)) and all(torch.equal(a, b) for a, b in buffers)


@pytest.mark.parametrize("name", registry.TABLE["models"])
def test_every_clean_cut_of_the_zoo_is_exact(name: str) -> None:
    model = build_model(name, classes=3, shape=(3, 8, 8), options={"width": 0.25})
    found = sf.cuts(model, torch.rand(1, 3, 8, 8))
    x = torch.rand(4, 3, 8, 8)
    assert len(found) >= 5
    whole = cost(model, x[:1])
    for cut in found[:: 6 if name == "ir152" else 1]:  # its units are those of ir50, ten times over
        assert cut.head.macs + cut.tail.macs == whole.macs, cut
        assert cut.head.parameters + cut.tail.parameters == whole.parameters, cut
        assert sf.split(copy.deepcopy(model).eval(), at=cut.name).head(x).shape[1:] == cut.shape
        for training in (False, True):
            assert same_bits(copy.deepcopy(model), cut.name, x, training=training), (cut.name, training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("at", ["stem", "norm", "act#1", "act#2", "add", "dropout", "flatten"])
def test_odd_graphs_are_exact(at: str, training: bool) -> None:
    assert same_bits(Odd(), at, torch.rand(2, 1, 8, 8), training=training)


def test_both_outputs_come_out_of_the_tail() -> None:
    assert same_bits(Odd(two_outputs=True), "act#2", torch.rand(2, 1, 8, 8), training=False)


def test_functional_dropout_follows_the_mode_of_its_half() -> None:
    halves = sf.split(Odd(), at="act#1")
    x = torch.rand(2, 1, 8, 8)
    halves.eval()
    assert torch.equal(halves(x), halves(x))
    halves.train()
    assert not torch.equal(halves(x), halves(x))


def test_released_features_survive_an_in_place_tail() -> None:
    halves = sf.split(Odd().eval(), at="norm").eval()
    z = halves.head(torch.rand(2, 1, 8, 8))
    before = z.clone()
    halves.tail(z)
    assert torch.equal(z, before)


def test_head_and_tail_hold_the_models_own_parameters() -> None:
    model = Odd()
    halves = sf.split(model, at="act#1")
    assert {id(p) for p in halves.parameters()} == {id(p) for p in model.parameters()}
    assert "head.stem.weight" in halves.state_dict()


def test_an_unclean_cut_lists_what_crosses_and_the_nearest_clean_cuts() -> None:
    with pytest.raises(
        CutError, match=r"'body' is not clean: 2 values cross it \(act#1, body\); nearest clean cuts: 'act#1' and 'add'"
    ):
        sf.split(Odd(), at="body")


def test_a_module_called_twice_must_be_named_by_its_call() -> None:
    with pytest.raises(CutError, match="called several times; name the call: act#1, act#2"):
        sf.split(Odd(), at="act")


def test_an_unknown_cut_offers_the_nearest_name_and_all_clean_ones() -> None:
    with pytest.raises(CutError, match=r"no cut 'stam' \(did you mean 'stem'\?\); clean cuts: stem, norm"):
        sf.split(Odd(), at="stam")


def test_the_example_of_cuts_is_a_picture() -> None:
    with pytest.raises(ConfigError, match=r"example must be one picture, such as torch.zeros\(1, 3, 32, 32\), got \(1, 8, 8\)"):
        sf.cuts(Odd(), (1, 8, 8))


def test_the_end_of_a_model_is_no_cut() -> None:
    with pytest.raises(CutError, match="end of the model"):
        sf.split(Odd(), at="fc")


def test_a_model_that_branches_on_values_is_refused_with_the_way_out() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CutError, match=r"cannot trace Branching.*give Split\(head=..., tail=...\)"):
        sf.split(Branching(), at="x")


def test_a_model_that_is_another_graph_in_training_is_refused() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) + 1) if self.training else self.b(self.a(x))

    with pytest.raises(CutError, match="different things in training and in evaluation"):
        sf.split(Auxiliary(), at="a")


def test_a_cut_must_release_a_row_for_each_picture() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).mean(0))

    with pytest.raises(CutError, match="one row for each of 2 pictures"):
        sf.split(Mean(), at="mean", example=torch.rand(2, 4))


def test_an_in_place_operation_on_a_view_of_z_leaves_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(8, 2)).eval()
    halves = sf.split(net, at="0").eval()
    z = halves.head(torch.rand(2, 1, 4, 4))
    before = z.clone()
    halves.tail(z)
    assert torch.equal(z, before)


def test_a_constant_that_depends_on_the_mode_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * (2.0 if self.training else 1.0))

    with pytest.raises(CutError, match="different things in training and in evaluation"):
        sf.split(Scaled(), at="a")


def test_a_shared_module_with_weights_is_held_by_both_halves() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.end = nn.Conv2d(2, 2, 3, padding=1), nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.conv(self.conv(x)))

    model, x = Twice(), torch.rand(2, 2, 4, 4)
    assert same_bits(model, "conv#1", x, training=True)
    twin = copy.deepcopy(sf.split(model, at="conv#1"))
    assert twin.head.conv is twin.tail.conv


def test_a_buffer_that_is_written_on_the_way_makes_a_cut_unclean() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
            self.register_buffer("n", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.n.add_(1)
            return self.b(self.a(x) * self.n)

    with pytest.raises(CutError, match="not clean"):
        sf.split(Counting(), at="mul")


def test_what_is_computed_of_buffers_stays_in_the_graph() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.full((1, 1, 1), 3.0))
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x * (1 / self.scale)).flatten(1) * self.scale.flatten()

    model, x = Scaled(), torch.rand(2, 1, 4, 4)
    halves = sf.split(model, at="conv")
    assert torch.equal(halves(x), model(x))
    assert [name for name in halves.state_dict() if "constant" in name] == []
    assert halves.to(torch.float64)(x.double()).dtype == torch.float64


def test_arguments_with_defaults_are_taken_as_they_are() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, with_features: bool = False, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
            z = self.a(x)
            if mask is not None:
                z = z * mask
            return (self.b(z), z) if with_features else self.b(z)

    model = Optional()
    x = torch.rand(3, 4)
    assert torch.equal(sf.split(model, at="a")(x), model(x))


@st.composite
def residual_nets(draw: st.DrawFn) -> nn.Module:
    blocks = draw(st.lists(st.booleans(), min_size=1, max_size=4))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=bool(i % 2))) for i in range(len(blocks))
            )
            self.end = nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            for block, residual in zip(self.blocks, blocks, strict=True):
                x = x + block(x) if residual else block(x)
            return self.end(x)

    return Net()


@settings(max_examples=20, deadline=None)
@given(residual_nets())
def test_random_nets_are_exact_at_every_clean_cut(model: nn.Module) -> None:
    x = torch.rand(2, 2, 4, 4)
    for cut in sf.cuts(model, x[:1]):
        assert torch.equal(sf.split(model, at=cut.name)(x), model(x)), cut.name


def test_the_reference_encoder_costs_what_the_paper_says(blobs: sf.Data) -> None:
    from sfumato.train import assemble

    data = sf.load_data((torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10))
    halves = sf.split(build_model("vgg11", classes=10, shape=(3, 32, 32)), at="c2")
    target = assemble(halves, data, [sf.Bottleneck(channels=8)], seed=0)
    head = cost(target.split.head, torch.zeros(1, 3, 32, 32))
    assert head.parameters == 85_256  # xia2025cem, Table S6: 0.085 M
    # Table S6 says 21.9 M, which counts batch norm and pooling too; these are the three convolutions.
    assert head.macs == 32 * 32 * 27 * 64 + 16 * 16 * 576 * 128 + 8 * 8 * 1152 * 8
    assert target.features(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 8, 8)
