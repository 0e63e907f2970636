# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from membership_toys import auc, balanced, gaussian
from sfumato.attacks.predictions.base import Evidence
from sfumato.attacks.predictions.lira import LiRA, Variance, gather, lira_scores
from sfumato.errors import ConfigError, DataError

VARIANCES: tuple[Variance, ...] = ("bayes", "shrunk", "global", "example")
PRIOR = 4.0


def drawn(models: int = 9, count: int = 12, views: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log odds of a target and of references, and a keep matrix that is not balanced: 2 or more models on each side."""
    stream = torch.Generator().manual_seed(seed)
    keep = torch.rand(models, count, generator=stream) < 0.5
    keep[:4] = torch.tensor([True, True, False, False])[:, None]
    scale = 0.5 + torch.rand(count, 1, generator=stream)
    phi = torch.randn(count, views, generator=stream) * 3
    references = (
        2.0 * keep[..., None] + phi.mean(1)[:, None] + scale * torch.randn(models, count, views, generator=stream)
    ).double()
    return phi, references, keep


def literal(phi: Tensor, references: Tensor, keep: Tensor, *, variance: str, online: bool) -> list[float]:
    """LiRA as one would write it down, an example, a view and a side at a time."""
    target, phis, kept = phi.double().numpy(), references.numpy(), keep.numpy()
    models, count, views = phis.shape
    if variance == "auto":
        variance = "example" if models >= 64 else "global"
    pooled = np.zeros((2, views))
    for side in (0, 1):
        for v in range(views):
            groups = [phis[kept[:, i] == side, i, v] for i in range(count)]
            pooled[side, v] = sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(len(g) - 1 for g in groups)
    scores = []
    for i in range(count):
        found = []
        for v in range(views):
            sides = []
            for side in (0, 1):
                group = phis[kept[:, i] == side, i, v]
                n, mean, square = len(group), group.mean(), ((group - group.mean()) ** 2).sum()
                s2 = {
                    "global": pooled[side, v],
                    "example": square / (n - 1),
                    "shrunk": (PRIOR * pooled[side, v] + square) / (PRIOR + n - 1),
                    "bayes": (PRIOR * pooled[side, v] + square) / (PRIOR + n - 1) * (1 + 1 / n),
                }[variance]
                sides.append((mean, s2, PRIOR + n - 1))
            if not online:
                found.append((target[i, v] - sides[0][0]) / math.sqrt(sides[0][1]))
            elif variance == "bayes":
                found.append(student(target[i, v], *sides[1]) - student(target[i, v], *sides[0]))
            else:
                found.append(normal(target[i, v], *sides[1][:2]) - normal(target[i, v], *sides[0][:2]))
        scores.append(float(np.mean(found)))
    return scores


def normal(x: float, mean: float, s2: float) -> float:
    return -math.log(2 * math.pi * s2) / 2 - (x - mean) ** 2 / (2 * s2)


def student(x: float, mean: float, s2: float, nu: float) -> float:
    constant = math.gamma((nu + 1) / 2) / (math.gamma(nu / 2) * math.sqrt(nu * math.pi * s2))
    return math.log(constant * (1 + (x - mean) ** 2 / (nu * s2)) ** (-(nu + 1) / 2))


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", [*VARIANCES, "auto"])
def test_the_scores_are_those_of_the_equations(variance: Variance, online: bool) -> None:
    phi, references, keep = drawn()
    found = lira_scores(phi, references, keep, variance=variance, online=online, prior=PRIOR)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.tolist(), literal(phi, references, keep, variance=variance, online=online))


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_attack_reads_the_log_odds_of_stored_logits(variance: Variance) -> None:
    toy = gaussian(40, models=8, views=3, spread=1.0)
    assert toy.evidence.references is not None
    p = [one.logits.double().softmax(-1) for one in (toy.evidence.target, *toy.evidence.references.answers)]
    true = [one.gather(2, toy.evidence.labels.view(-1, 1, 1).expand(-1, 3, 1))[..., 0] for one in p]
    phi = torch.stack([one.log() - (1 - one).log() for one in true])
    found = LiRA(variance=variance)(toy.evidence).scores
    torch.testing.assert_close(found, lira_scores(phi[0], phi[1:], toy.evidence.references.keep, variance=variance))


@pytest.mark.parametrize("variance", VARIANCES)
def test_offline_is_one_sided(variance: Variance) -> None:
    """An answer that is much less sure than any reference's does not look like a member; the density alone would say so."""
    _, references, keep = drawn(views=1)
    mean = gather(references[0], references, keep).mean[0]
    very_low, as_usual, very_high = (
        lira_scores(mean + move, references, keep, variance=variance, online=False) for move in (-50.0, 0.0, 50.0)
    )
    assert bool((very_low < as_usual - 10).all())
    assert bool((as_usual + 10 < very_high).all())


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_known_likelihood_ratio_is_attacked_within_a_percent_of_the_best(variance: Variance) -> None:
    toy = gaussian(4000, models=64, spread=3.0)
    best = toy.auc(toy.optimum)
    assert best > 0.9
    assert toy.auc(toy.evidence.target.logits.amax(-1)[:, 0]) < 0.7  # how easy an example is must be known
    for online in (True, False):
        assert toy.auc(LiRA(variance=variance, online=online)(toy.evidence).scores) > 0.99 * best


def test_where_some_examples_are_less_certain_the_prior_beats_both_of_its_limits() -> None:
    """Variances are drawn as the prior says. Without it there is each example's own; where it is all, the global one."""
    count, models = 6000, 8
    stream = torch.Generator().manual_seed(0)
    keep, member = balanced(models, count), balanced(1, count, seed=1)[0]
    scale = (PRIOR / torch.randn(count, int(PRIOR), generator=stream).square().sum(1, keepdim=True)).sqrt()

    def phi(kept: Tensor) -> Tensor:
        return (2.0 * kept[:, None] + scale * torch.randn(count, 1, generator=stream)).double()

    target, references = phi(member), torch.stack([phi(row) for row in keep])
    found = {one: auc(lira_scores(target, references, keep, variance=one), member) for one in VARIANCES}
    assert found["bayes"] > max(found["global"], found["example"]) + 0.01, found
    assert found["shrunk"] > max(found["global"], found["example"]), found


@pytest.mark.parametrize(("models", "same"), [(63, "global"), (64, "example")])
def test_auto_trusts_an_examples_own_variance_where_references_are_many(models: int, same: Variance) -> None:
    phi, references, keep = drawn(models)
    assert torch.equal(lira_scores(phi, references, keep, variance="auto"), lira_scores(phi, references, keep, variance=same))


@pytest.mark.parametrize("trained", [True, False])
def test_an_example_of_one_side_has_the_mean_gap_of_the_others(trained: bool) -> None:
    """All references were trained on it, or none."""
    phi, references, keep = drawn(views=1)
    keep[:, 0] = trained
    gap = torch.stack([references[keep[:, i], i].mean() - references[~keep[:, i], i].mean() for i in range(1, len(phi))]).mean()
    mean = references[:, 0].mean()
    inside, outside = (mean, mean - gap) if trained else (mean + gap, mean)
    sides = gather(phi.double(), references, keep)
    s2 = (sides.square.sum((1, 2)) / (sides.count - 1).clamp_min(0).sum((1, 2))).tolist()
    x = phi[0, 0].item()
    ratio = normal(x, inside.item(), s2[1]) - normal(x, outside.item(), s2[0])
    assert lira_scores(phi, references, keep, variance="global")[0].item() == pytest.approx(ratio)
    z = (x - outside.item()) / math.sqrt(s2[0])
    assert lira_scores(phi, references, keep, variance="global", online=False)[0].item() == pytest.approx(z)


def test_references_that_were_trained_on_none_serve_offline_alone() -> None:
    phi, references, keep = drawn()
    nobody = torch.zeros_like(keep)
    assert bool(lira_scores(phi, references, nobody, online=False).isfinite().all())
    with pytest.raises(DataError, match=r"found none, and 12 that lack one of the two; .* set online = false"):
        lira_scores(phi, references, nobody)
    with pytest.raises(DataError, match="12 that lack references that were not"):
        lira_scores(phi, references, ~nobody, online=False)


def test_a_spread_needs_two_references_on_one_side() -> None:
    keep = torch.tensor([[True, True, True], [False, False, False]])
    with pytest.raises(DataError, match="at least two references on the same side"):
        lira_scores(torch.zeros(3, 1), torch.zeros(2, 3, 1), keep)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("online", [True, False])
def test_references_of_an_odd_number_and_of_one_mind_give_finite_scores(variance: Variance, online: bool) -> None:
    keep = balanced(8, 20)[torch.arange(8) != 3]
    alike = torch.full((7, 20, 1), 40.0)
    assert bool(lira_scores(torch.full((20, 1), -40.0), alike, keep, variance=variance, online=online).isfinite().all())


def test_an_examples_own_variance_falls_back_on_the_others_where_one_reference_has_none() -> None:
    phi, references, keep = drawn(5, views=1)
    keep[:, 0] = torch.tensor([True, False, False, False, False])
    sides = gather(phi.double(), references, keep)
    pooled = (sides.square[1].sum() / (sides.count[1] - 1).sum()).item()
    own = (sides.square[0, 0] / 3).item()
    x = phi[0, 0].item()
    expected = normal(x, references[0, 0, 0].item(), pooled) - normal(x, references[1:, 0, 0].mean().item(), own)
    assert lira_scores(phi, references, keep, variance="example")[0].item() == pytest.approx(expected)


def test_a_small_spread_far_from_zero_keeps_its_digits() -> None:
    stream = torch.Generator().manual_seed(0)
    values = 1e6 + 1e-3 * torch.randn(33, 5, 1, generator=stream, dtype=torch.float64)
    sides = gather(values[0], values, torch.ones(33, 5, dtype=torch.bool))
    expected = np.var(values.numpy(), axis=0, ddof=0) * 33
    np.testing.assert_allclose(sides.square[1].numpy(), expected, rtol=1e-5)


def test_nothing_is_kept_of_a_reference() -> None:
    phi, references, keep = drawn()
    seen: list[weakref.ref[Tensor]] = []

    def one_at_a_time() -> Iterator[Tensor]:
        for number in range(len(keep)):
            assert all(one() is None for one in seen[:-1])
            made = references[number].clone()
            seen.append(weakref.ref(made))
            yield made

    assert torch.equal(lira_scores(phi, one_at_a_time(), keep), lira_scores(phi, references, keep))
    assert len(seen) == len(keep)


def test_a_missing_reference_is_an_error() -> None:
    phi, references, keep = drawn()
    with pytest.raises(ValueError, match="argument 2 is longer"):
        lira_scores(phi, references[:-1], keep)


@pytest.mark.parametrize("bad", [{"prior": 0.0}, {"prior": math.inf}, {"prior": math.nan}, {"variance": "pooled"}])
def test_what_it_refuses(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        LiRA(**bad)


def test_three_references_are_too_few() -> None:
    toy = gaussian(40, models=4)
    assert toy.evidence.references is not None
    evidence = Evidence(target=toy.evidence.target, labels=toy.evidence.labels, references=toy.evidence.references.first(3))
    with pytest.raises(ConfigError, match="LiRA needs at least 4 reference models, found 3"):
        LiRA()(evidence)
