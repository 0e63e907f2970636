# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.deploy.exporting.tracing import DrawnFrom, Given, Recorded, find_draws, record, require_no_draws
from sfumato.deploy.manifest import Distribution, Draw
from sfumato.errors import ExportError

Call = Callable[[Tensor], Tensor]

DRAWING: dict[str, tuple[Distribution, Call]] = {
    "normal_": ("normal", lambda z: torch.empty_like(z).normal_(2.0, 3.0, generator=torch.Generator())),
    "uniform_": ("uniform", lambda z: torch.empty_like(z).uniform_(-1, 3)),
    "exponential_": ("exponential", lambda z: torch.empty_like(z).exponential_(2.0)),
    "log_normal_": ("normal", lambda z: torch.empty_like(z).log_normal_(0.1, 0.5)),
    "cauchy_": ("uniform", lambda z: torch.empty_like(z).cauchy_(1.0, 2.0)),
    "bernoulli_": ("uniform", lambda z: torch.empty_like(z).bernoulli_(0.2)),
    "bernoulli_ of a tensor": ("uniform", lambda z: torch.empty_like(z).bernoulli_(torch.full_like(z, 0.2))),
    "bernoulli": ("uniform", lambda z: torch.bernoulli(torch.full_like(z, 0.3))),
    "Tensor.bernoulli": ("uniform", lambda z: z.bernoulli(0.3)),
    "randn": ("normal", lambda z: torch.randn(z.shape)),
    "randn of numbers": ("normal", lambda z: torch.randn(*z.shape, dtype=torch.float64)),
    "randn of a size": ("normal", lambda z: torch.randn(size=z.shape)),
    "rand": ("uniform", lambda z: torch.rand(z.shape)),
    "randn_like": ("normal", torch.randn_like),
    "rand_like": ("uniform", torch.rand_like),
    "normal of two tensors": ("normal", lambda z: torch.normal(torch.full_like(z, 2.0), torch.full_like(z, 3.0))),
    "normal of a std": ("normal", lambda z: torch.normal(2.0, torch.full_like(z, 3.0))),
    "normal of tensors that broadcast": ("normal", lambda z: torch.normal(torch.zeros(z.shape[0], 1, 1, 1), torch.ones_like(z))),
    "normal of a size": ("normal", lambda z: torch.normal(2.0, 3.0, z.shape)),
    "dropout": ("uniform", lambda z: F.dropout(torch.ones_like(z), 0.3, training=True)),
    "dropout of all": ("uniform", lambda z: F.dropout(torch.ones_like(z), 1.0, training=True)),
    "dropout in place": ("uniform", lambda z: F.dropout(torch.ones_like(z), 0.3, training=True, inplace=True)),
    "Laplace of torch.distributions": (
        "uniform",
        lambda z: torch.distributions.Laplace(torch.zeros_like(z), torch.ones_like(z)).sample(),
    ),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_is_found_and_replayed_with_the_distribution_that_it_has(name: str) -> None:
    distribution, call = DRAWING[name]
    assert find_draws(call, (1, 2, 3)) == (Draw("draw_0", distribution, (1, 2, 3)),)
    z = torch.zeros(4000, 1, 2, 3)
    ours, numbers = record(call, z)
    theirs = call(z)
    assert ours.dtype == theirs.dtype
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=ours.dtype)
    spread = theirs.quantile(levels[3]) - theirs.quantile(levels[1]) + 0.1
    assert (ours.flatten().quantile(levels) - theirs.flatten().quantile(levels)).abs().max() < 0.1 * spread
    with DrawnFrom(Given(numbers.values)):
        assert torch.equal(call(z), ours)


def test_several_draws_keep_their_order_and_their_shapes() -> None:
    def call(x: Tensor) -> Tensor:
        return x.flatten(1) + torch.rand(len(x), 16) + torch.randn_like(x).flatten(1)

    assert find_draws(call, (1, 4, 4)) == (Draw("draw_0", "uniform", (16,)), Draw("draw_1", "normal", (1, 4, 4)))


def test_dropout_that_is_off_draws_nothing() -> None:
    assert find_draws(lambda x: F.dropout(x, 0.5, training=False), (1, 2, 2)) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x + torch.multinomial(torch.ones(len(x), 4), 1)[:, :, None, None], "multinomial"),
        (lambda x: x[torch.randperm(len(x))], "randperm"),
        (lambda x: F.gumbel_softmax(x), "exponential_"),
        (lambda x: x + torch.randint(2, x.shape), "randint"),
        (lambda x: x + float(np.random.default_rng().normal()), "PyTorch does not"),
        (lambda x: x + torch.poisson(x), "poisson"),
        (lambda x: x + torch.distributions.Gamma(torch.ones_like(x), 1.0).sample(), "standard_gamma"),
        (lambda x: x + torch.empty_like(x).geometric_(0.5), "geometric"),
        (lambda x: F.dropout2d(x, 0.5), "bernoulli"),
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), "bernoulli"),
        (lambda x: torch.randn(x.shape, out=torch.zeros_like(x)), "writes to out="),
        (lambda x: x + torch.randn(x.shape[1:]), "first dimension"),
        (lambda x: x + torch.randn(2, *x.shape[1:]).mean(0), "first dimension"),
        (lambda x: x + torch.randn(len(x), 1, 1, len(x)).mean(), "first dimension"),
    ],
)
def test_what_no_input_can_stand_for_is_refused(call: Call, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        find_draws(call, (1, 2, 2))


def test_a_number_of_draws_that_changes_is_refused() -> None:
    times = iter(range(1, 9))
    with pytest.raises(ExportError, match="none was left"):
        find_draws(lambda x: sum((torch.randn_like(x) for _ in range(next(times))), x), (1, 2, 2))


def test_a_given_number_of_another_shape_is_refused() -> None:
    with (
        pytest.raises(ExportError, match=r"expected a draw of shape \(2, 3\), found \(2, 4\)"),
        DrawnFrom(Given([torch.zeros(2, 3)])),
    ):
        torch.randn(2, 4)


def test_attention_without_dropout_is_no_draw() -> None:
    assert find_draws(lambda x: F.scaled_dot_product_attention(x, x, x), (1, 4, 4)) == ()


def test_who_must_not_draw_is_named() -> None:
    with pytest.raises(ExportError, match="expected the tail to draw no random numbers.*mean"):
        require_no_draws(torch.randn_like, torch.zeros(2, 2), who="the tail", advice="answer from the mean")
    require_no_draws(torch.clone, torch.zeros(2, 2), who="the tail", advice="")


def test_a_recorder_keeps_what_it_drew() -> None:
    numbers = Recorded()
    with DrawnFrom(numbers):
        drawn = torch.rand(2, 3)
    assert numbers.kinds == [("uniform", (2, 3))]
    assert torch.equal(numbers.values[0], drawn)
