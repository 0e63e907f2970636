# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sfumato as sf
from memorized import asked, found_by_loss, trained, undefended
from sfumato.defenses.rounding import Rounding
from sfumato.errors import ConfigError

LOGITS = 3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0))


def literal(logits: np.ndarray, digits: int) -> np.ndarray:
    """Each posterior, rounded by itself."""
    rows = [[math.exp(value) / sum(math.exp(other) for other in row) for value in row] for row in logits.astype(np.float64)]
    return np.array([[round(p, digits) for p in row] for row in rows])


@pytest.mark.parametrize("digits", [0, 1, 2, 4])
def test_what_is_released_are_the_rounded_posteriors(digits: int) -> None:
    released = Rounding(digits=digits).release(LOGITS)
    assert released.isfinite().all()
    assert np.allclose(released.exp().numpy(), literal(LOGITS.numpy(), digits), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("digits", [0, 1, 3])
def test_the_label_stays_and_every_number_is_finite(digits: int, scale: float) -> None:
    released = Rounding(digits=digits).release(LOGITS * scale)
    assert released.isfinite().all()
    assert torch.equal(released.argmax(1), LOGITS.argmax(1))


def test_a_hundred_classes_that_all_round_to_zero_keep_their_label() -> None:
    logits = torch.zeros(1, 100)
    logits[0, 63] = 0.01
    assert Rounding(digits=1).release(logits).argmax(1).tolist() == [63]


def test_an_adversary_sees_no_more_than_the_decimals() -> None:
    base = torch.tensor([[0.62, 0.22, 0.16]])
    near = torch.tensor([[0.64, 0.20, 0.16]])
    first, second = (Rounding(digits=1).release(p.log()) for p in (base, near))
    assert torch.equal(first, second)
    assert not torch.equal(*(Rounding(digits=2).release(p.log()) for p in (base, near)))


def test_without_decimals_a_small_loss_tells_what_the_label_tells() -> None:
    target = trained(Rounding(digits=0))
    right = [(logits.argmax(1) == y).double() for logits, y in (asked(undefended(), part) for part in ("private", "test"))]
    confident = found_by_loss(target)
    by_label = 0.5 + (right[0].mean() - right[1].mean()).item() / 2
    # a posterior below one half rounds to 0, as if the label were wrong: that little is left
    assert by_label - 0.02 < confident < found_by_loss(undefended()) - 0.03


@pytest.mark.parametrize("digits", [-1, 7])
def test_digits_out_of_range_are_refused(digits: int) -> None:
    with pytest.raises(ConfigError, match="digits must be 0 to 6"):
        Rounding(digits=digits)


def test_it_composes_after_another_release() -> None:
    from sfumato.defenses.top_k import TopK

    both = sf.Compose(TopK(k=1), Rounding(digits=2))
    released = both.release(torch.tensor([[0.611, 0.3, 0.089]]).log())
    assert released.exp()[0].tolist() == pytest.approx([0.61, 0.19, 0.19])
