# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import sfumato as sf
from memorized import asked, trained, undefended
from sfumato.defenses.top_k import TopK
from sfumato.errors import ConfigError

LOGITS = 3 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0))


def literal(logits: np.ndarray, k: int) -> np.ndarray:
    """The k largest, and what they leave shared by the others."""
    out = np.zeros(logits.shape)
    for i, row in enumerate(logits.astype(np.float64)):
        p = np.exp(row) / np.exp(row).sum()
        top = sorted(range(len(p)), key=lambda c: -p[c])[:k]
        for c in range(len(p)):
            out[i, c] = p[c] if c in top else (1 - sum(p[t] for t in top)) / (len(p) - k)
    return out


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_largest_are_released_and_the_others_share_the_rest(k: int) -> None:
    released = TopK(k=k).release(LOGITS)
    assert np.allclose(released.exp().numpy(), literal(LOGITS.numpy(), k), atol=1e-6)
    assert torch.allclose(released.exp().sum(1), torch.ones(len(LOGITS)))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("k", [1, 3])
def test_the_label_stays_and_every_number_is_finite(k: int, scale: float) -> None:
    logits = LOGITS * scale
    released = TopK(k=k).release(logits)
    assert released.isfinite().all()
    assert torch.equal(released.argmax(1), logits.argmax(1))


def test_of_two_equal_classes_the_first_is_the_answer_still() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    assert TopK(k=1).release(logits).argmax(1).tolist() == logits.argmax(1).tolist()


def test_an_adversary_learns_nothing_of_the_order_of_the_others() -> None:
    first, second = (torch.tensor([[0.7, *rest]]).log() for rest in ((0.2, 0.07, 0.03), (0.03, 0.07, 0.2)))
    assert torch.allclose(TopK(k=1).release(first), TopK(k=1).release(second))
    assert not torch.allclose(TopK(k=2).release(first), TopK(k=2).release(second))


def test_a_trained_target_tells_its_largest_posterior_alone() -> None:
    (kept, _), (whole, _) = asked(trained(TopK(k=1)), "test"), asked(undefended(), "test")
    ranked, full = (logits.softmax(1).sort(1, descending=True).values for logits in (kept, whole))
    assert torch.allclose(ranked[:, 0], full[:, 0], atol=1e-5)
    assert torch.allclose(ranked[:, 1:], ranked[:, 1:2].expand(-1, 3), atol=1e-6)
    assert torch.equal(kept.argmax(1), whole.argmax(1))


def test_a_k_that_hides_nothing_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="k must be at least 1"):
        TopK(k=0)
    with pytest.raises(ConfigError, match="k must be below the number of classes, 2, got 2"):
        TopK(k=2).prepare(small_split, blobs)
    TopK(k=1).prepare(small_split, blobs)


def test_data_of_another_task_is_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="top_k needs a data set for classification"):
        TopK(k=1).prepare(small_split, dataclasses.replace(blobs, task="reidentification"))
