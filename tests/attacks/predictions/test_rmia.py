# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from membership_toys import auc, balanced, gaussian, memorizing
from sfumato.attacks.predictions.rmia import RMIA, log_ratios, rmia_scores
from sfumato.errors import ConfigError, DataError


def drawn(models: int = 7, count: int = 12, views: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities by a target and by references, and a keep matrix that is not balanced."""
    stream = torch.Generator().manual_seed(0)
    keep = torch.rand(models, count, generator=stream) < 0.5
    keep[:2] = torch.tensor([True, False])[:, None]
    p = 0.01 + 0.98 * torch.rand(models + 1, count, views, generator=stream, dtype=torch.float64)
    return p[0].log(), p[1:].log(), keep


def literal(log_p: Tensor, references: Tensor, keep: Tensor, *, online: bool, a: float) -> np.ndarray:
    p, ps, kept = log_p.exp().numpy(), references.exp().numpy(), keep.numpy()
    ratios = np.zeros_like(p)
    for i in range(p.shape[0]):
        for v in range(p.shape[1]):
            outside = ps[~kept[:, i], i, v].mean()
            mean = (outside + ps[kept[:, i], i, v].mean()) / 2 if online else (1 + a) / 2 * outside + (1 - a) / 2
            ratios[i, v] = p[i, v] / mean
    return ratios


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_the_ratios_are_those_of_the_equations(online: bool, a: float) -> None:
    log_p, references, keep = drawn()
    found = log_ratios(log_p, references, keep, online=online, a=a)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.exp().numpy(), literal(log_p, references, keep, online=online, a=a))


def test_online_is_the_mean_over_all_references_where_halves_are_even() -> None:
    log_p, references, _ = drawn(8)
    keep = balanced(8, len(log_p))
    expected = log_p - references.exp().mean(0).log()
    torch.testing.assert_close(log_ratios(log_p, references, keep), expected)


def test_how_many_references_an_example_has_of_each_kind_says_nothing() -> None:
    """A mean over all would make an example with fewer references that know it look more like a member."""
    keep = torch.tensor([[True, True], [True, False], [False, False]])
    references = torch.where(keep, 0.9, 0.3).log()[..., None]
    first, second = log_ratios(torch.tensor([[0.6], [0.6]]).log(), references, keep)[:, 0].tolist()
    assert first == pytest.approx(second)


def test_probabilities_that_only_logarithms_can_tell_are_told() -> None:
    keep = torch.tensor([[True, True], [False, False]])
    references = torch.tensor([[-2000.0, -0.1], [-2001.0, -0.1]], dtype=torch.float64)[..., None]
    found = log_ratios(torch.tensor([[-1990.0], [-0.1]]), references, keep)
    expected = -1990 + 2000 - math.log((1 + math.exp(-1)) / 2)
    assert found[0, 0].item() == pytest.approx(expected)
    assert found[1, 0].item() == pytest.approx(0, abs=1e-6)


def test_an_example_of_one_side_is_guessed() -> None:
    log_p, references, keep = drawn(views=1)
    p = references.exp()[..., 0]
    keep[:, 0], keep[:, 1] = False, True
    found = log_ratios(log_p, references, keep, a=0.4)[:, 0].exp()
    outside = p[:, 0].mean()
    assert found[0].item() == pytest.approx((log_p[0, 0].exp() / (0.7 * outside + 0.3)).item())  # as offline
    assert found[1].item() == pytest.approx((log_p[1, 0].exp() / p[:, 1].mean()).item())


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_score_counts_the_non_members_that_are_dominated(gamma: float) -> None:
    stream = torch.Generator().manual_seed(0)
    x, z = (torch.randint(-4, 5, (count,), generator=stream).double() * math.log(2) for count in (40, 30))
    r_x, r_z = x.exp().round(decimals=6).numpy(), z.exp().round(decimals=6).numpy()  # powers of two: many are equal
    expected = [np.mean([one / other > gamma * (1 + 1e-9) for other in r_z]) for one in r_x]
    x = x - 1e-12  # an equal ratio does not dominate, whichever way the logarithm was rounded
    assert rmia_scores(x, z, gamma).tolist() == expected
    assert rmia_scores(torch.zeros(1), torch.zeros(3), 1.0).item() == 0


def test_gamma_does_not_change_the_order_beyond_ties() -> None:
    toy = gaussian(1000, spread=1.0)
    ratio, share = RMIA()(toy.evidence).scores, RMIA(gamma=2.0)(toy.evidence).scores
    order = ratio.argsort()
    assert bool((share[order].diff() >= 0).all())
    assert len(share.unique()) > 100
    assert 0 <= float(share.min()) < float(share.max()) <= 1


def test_gamma_compares_with_the_known_non_members() -> None:
    toy = memorizing(200)
    evidence, known = toy.evidence, toy.evidence.known
    assert known is not None
    ratio = RMIA()(evidence).scores
    others = ratio[(known == 0).nonzero()[:, 0]]
    expected = [(one > others + math.log(3)).double().mean().item() for one in ratio]
    assert RMIA(gamma=3.0)(evidence).scores.tolist() == pytest.approx(expected)


def test_a_known_likelihood_ratio_is_attacked_within_a_percent_of_the_best() -> None:
    """log p is N(h, 1) outside and N(h + 2, 1) inside, so that log p - h is all that tells a member."""
    count, models = 4000, 64
    stream = torch.Generator().manual_seed(0)
    keep, member = balanced(models, count), balanced(1, count, seed=1)[0]
    easy = 3 * torch.randn(count, 1, generator=stream) - 30

    def log_p(kept: Tensor) -> Tensor:
        return easy + 2.0 * kept[:, None] + torch.randn(count, 1, generator=stream)

    target = log_p(member)
    found = log_ratios(target, torch.stack([log_p(row) for row in keep]), keep)
    assert auc(found[:, 0], member) > 0.99 * auc((target - easy)[:, 0], member)
    assert auc(target[:, 0], member) < 0.75  # how easy an example is must be known


@pytest.mark.parametrize("online", [True, False])
def test_the_attack_reads_probabilities_of_stored_logits(online: bool) -> None:
    toy = gaussian(40, views=3, spread=1.0)
    assert toy.evidence.references is not None
    place = toy.evidence.labels.view(-1, 1, 1).expand(-1, 3, 1)
    answers = (toy.evidence.target, *toy.evidence.references.answers)
    log_p = torch.stack([one.logits.double().log_softmax(-1).gather(2, place)[..., 0] for one in answers])
    expected = log_ratios(log_p[0], log_p[1:], toy.evidence.references.keep, online=online).mean(1)
    torch.testing.assert_close(RMIA(online=online)(toy.evidence).scores, expected)


def test_offline_does_not_look_at_models_that_were_trained_on_the_example() -> None:
    log_p, references, keep = drawn()
    changed = references.where(~keep[..., None], -7.0)
    assert torch.equal(log_ratios(log_p, changed, keep, online=False), log_ratios(log_p, references, keep, online=False))
    assert not torch.equal(log_ratios(log_p, changed, keep), log_ratios(log_p, references, keep))


def test_one_reference_will_do() -> None:
    toy = memorizing(models=1)
    for online in (True, False):
        assert toy.auc(RMIA(online=online)(toy.evidence).scores) > 0.95


def test_nothing_is_kept_of_a_reference() -> None:
    log_p, references, keep = drawn()
    seen: list[weakref.ref[Tensor]] = []

    def one_at_a_time() -> Iterator[Tensor]:
        for one in references:
            assert all(old() is None for old in seen[:-1])
            made = one.clone()
            seen.append(weakref.ref(made))
            yield made

    assert torch.equal(log_ratios(log_p, one_at_a_time(), keep), log_ratios(log_p, references, keep))


@pytest.mark.parametrize("bad", [{"a": -0.1}, {"a": 1.1}, {"a": math.nan}, {"gamma": 0.0}, {"gamma": math.inf}])
def test_what_it_refuses(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(bad))} must be"):
        RMIA(**bad)


def test_gamma_needs_non_members_that_are_known() -> None:
    assert RMIA(gamma=2.0).needs == {"references", "known"}
    assert RMIA().needs == replace(RMIA(gamma=2.0), gamma=None).needs == {"references"}
    with pytest.raises(ConfigError, match="RMIA needs examples whose membership the adversary knows"):
        RMIA(gamma=2.0)(replace(memorizing(40).evidence, known=None))
    with pytest.raises(DataError, match="expected non-members to compare with, found none"):
        rmia_scores(torch.zeros(3), torch.zeros(0), 1.0)
