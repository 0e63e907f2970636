# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.attacks.weights.selection import (
    in_parts,
    mirrored,
    require_selection,
    robust_confidence,
    select_end,
    select_start,
)
from sfumato.data.variation import Variation
from sfumato.errors import ConfigError
from style_toys import drawn

IDENTITY = Variation()


def test_the_mirror_image_counts_as_much_as_the_picture() -> None:
    x, weight = torch.rand(5, 1, 4, 4), drawn(16, 3, seed=0)

    def ask(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight

    both = [np.exp(ask(one).numpy()) for one in (x, x.flip(-1))]
    expected = sum(one / one.sum(1, keepdims=True) for one in both) / 2
    np.testing.assert_allclose(mirrored(ask, x).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 50, 64])
@pytest.mark.parametrize("each", [1, 5, 50])
def test_the_surest_are_chosen_whatever_the_batch(batch: int, each: int) -> None:
    probability = drawn(50, 4, seed=0).softmax(1)
    asked: list[int] = []

    def confidence(some: Tensor) -> Tensor:
        asked.append(len(some))
        return probability[some[:, 0].long()]

    labels = torch.tensor([3, 1])
    found = select_start(torch.arange(50.0)[:, None], confidence, labels, each=each, batch=batch)
    order = np.argsort(-probability.numpy()[:, [3, 1]].T, axis=1, kind="stable")[:, :each]
    np.testing.assert_array_equal(found.index.numpy(), order)
    torch.testing.assert_close(found.confidence, probability.T[labels].gather(1, found.index))
    assert sum(asked) == 50  # every candidate once for all classes
    assert max(asked) <= batch


def test_of_equals_the_earlier_is_chosen() -> None:
    found = select_start(torch.zeros(9, 1), lambda z: torch.ones(len(z), 2), torch.tensor([0, 1]), each=3, batch=2)
    assert found.index.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_one_candidate_may_serve_every_class() -> None:
    found = select_start(torch.tensor([[0.0], [1.0]]), lambda z: z.expand(-1, 3), torch.arange(3), each=1)
    assert found.index.flatten().tolist() == [1, 1, 1]


def test_more_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="draw more samples"):
        select_start(torch.zeros(3, 1), lambda z: z, torch.tensor([0]), each=4)


def fragile(x: Tensor) -> Tensor:
    """A target that sees its class in a bright picture, and is surer of one bright pixel in a corner."""
    sure = 4 * x.mean((1, 2, 3)) + 8 * x[:, 0, 0, 0] * (x.mean((1, 2, 3)) < 0.1)
    return torch.stack([sure, torch.zeros_like(sure)], 1)


def test_the_candidate_that_holds_up_to_crops_is_preferred() -> None:
    x = torch.zeros(2, 1, 8, 8)
    x[0, 0, 0, 0] = 1.0  # fools the target
    x[1] = 0.9  # shows the class
    labels = torch.zeros(2, dtype=torch.int64)
    raw = robust_confidence(lambda z, _: z, fragile, x, labels, variation=IDENTITY, times=1)
    assert raw[0] > raw[1]
    robust = robust_confidence(lambda z, _: z, fragile, x, labels, times=50)
    assert robust[1] > robust[0]
    assert select_end(robust, torch.tensor([0]), keep=1).tolist() == [1]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_crops_of_a_row_do_not_depend_on_its_batch(batch: int) -> None:
    x, labels = torch.rand(7, 1, 8, 8), torch.arange(7) % 2
    whole = robust_confidence(lambda z, _: z, fragile, x, labels, times=4, batch=7)
    torch.testing.assert_close(robust_confidence(lambda z, _: z, fragile, x, labels, times=4, batch=batch), whole)
    assert not torch.equal(robust_confidence(lambda z, _: z, fragile, x, labels, times=4, batch=7, seed=1), whole)


def test_rows_are_kept_by_class_the_surest_first() -> None:
    confidence = drawn(12, seed=0)
    found = select_end(confidence, torch.tensor([4, 0, 2]), keep=2).view(3, 2)
    for number, rows in enumerate(found.tolist()):
        own = sorted(range(4 * number, 4 * number + 4), key=lambda row: -float(confidence[row]))
        assert rows == own[:2]


def test_parts_are_put_together_again() -> None:
    x = torch.rand(200, 2)
    assert torch.equal(in_parts(lambda some: some * 2, x), 2 * x)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((10, 20, 5, 0.5, 1.0), "samples"), ((20, 4, 5, 0.5, 1.0), "per_class"), ((20, 4, 0, 0.5, 1.0), "per_class"),
        ((20, 4, 2, 1.5, 1.0), "psi"), ((20, 4, 2, 0.5, 0.0), "crop"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused(arguments: tuple[float, ...], word: str) -> None:
    samples, candidates, per_class, psi, crop = arguments
    with pytest.raises(ConfigError, match=word):
        require_selection(samples=int(samples), candidates=int(candidates), per_class=int(per_class), psi=psi, crop=crop)
