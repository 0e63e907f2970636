# SPDX-License-Identifier: Apache-2.0
"""Certificates, calibrated on a linear head with Gaussian pictures: what is true is known in closed form there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from sfumato.analysis.certify import certify
from sfumato.analysis.dfil import dfil, fisher_certificate
from sfumato.analysis.entropy import (
    InformationBound,
    entropy_certificate,
    gaussian_entropy,
    information_bound,
    mse_floor,
)
from sfumato.data.base import Data
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError
from sfumato.seeds import ambient
from sfumato.target import Target

D = 12
SIGMA = 0.1


class LinearGaussian:
    """x ~ N(0, diag(variances)), z = W x + e."""

    def __init__(self, variances: Tensor, weight: Tensor) -> None:
        self.variances, self.weight = variances.double(), weight.double()

    def pictures(self, count: int) -> Tensor:
        stream = torch.Generator().manual_seed(1)
        return torch.randn(count, len(self.variances), generator=stream, dtype=torch.float64) * self.variances.sqrt()

    @property
    def posterior(self) -> Tensor:
        """Cov(x|z): the same for every z."""
        return torch.linalg.inv(torch.diag(1 / self.variances) + self.weight.T @ self.weight / SIGMA**2)

    @property
    def least_error(self) -> float:
        """The mean squared error of the best adversary there is."""
        return self.posterior.trace().item() / len(self.variances)

    @property
    def information(self) -> float:
        prior = self.variances.log().sum().item()
        return 0.5 * (prior - torch.linalg.slogdet(self.posterior)[1].item())

    @property
    def entropy(self) -> float:
        return 0.5 * (2 * math.pi * math.e * self.variances).log().sum().item()

    def floor(self, count: int = 12000) -> tuple[float, float]:
        """The floor of Theorem 1 and the bound on the information, both as they are measured."""
        bound = bounded(self.pictures(count) @ self.weight.T)
        return mse_floor(self.entropy - bound.nats, len(self.variances)), bound.nats


def bounded(z: Tensor, *, noise_std: float = SIGMA, classes: int = 1) -> InformationBound:
    """The bound, from two thirds of the features and on the others."""
    with ambient(0, "test"):
        return information_bound(z[len(z) // 3 :], z[: len(z) // 3], noise_std=noise_std, classes=classes)


def orthogonal() -> Tensor:
    return torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q


TOYS = {
    "isotropic": LinearGaussian(torch.full((D,), 0.04), orthogonal()),
    "anisotropic": LinearGaussian(torch.logspace(-3, -1, D), orthogonal()),
    "narrow": LinearGaussian(torch.full((D,), 0.04), orthogonal()[:4]),
    "uneven": LinearGaussian(torch.full((D,), 0.04), torch.diag(torch.logspace(-1, 1, D)).double() @ orthogonal()),
}


@pytest.mark.parametrize("name", TOYS)
def test_the_floor_is_under_the_error_of_the_best_adversary(name: str) -> None:
    toy = TOYS[name]
    floor, nats = toy.floor()
    assert nats == pytest.approx(toy.information, rel=0.05)
    assert floor < 1.02 * toy.least_error
    if name == "isotropic":  # all eigenvalues of Cov(x|z) are the same, and Theorem 1 is tight
        assert floor == pytest.approx(toy.least_error, rel=0.05)


def test_the_best_adversary_has_the_error_that_is_said() -> None:
    """The closed form itself, against the posterior mean of drawn pictures."""
    toy = TOYS["anisotropic"]
    x = toy.pictures(20000)
    z = x @ toy.weight.T + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    x_hat = z @ toy.weight @ toy.posterior.T / SIGMA**2
    assert (x_hat - x).square().mean().item() == pytest.approx(toy.least_error, rel=0.03)


def test_few_pictures_raise_the_bound_and_never_lower_it() -> None:
    """Eq. 3 of a covariance with more dimensions than pictures is far too low; the held-out code length is not."""
    toy = LinearGaussian(torch.full((60,), 0.04), torch.eye(60))
    bound = bounded(toy.pictures(90))
    assert bound.in_sample < 0.8 * toy.information
    assert bound.nats > toy.information


def test_clusters_shorten_the_code() -> None:
    stream = torch.Generator().manual_seed(0)
    z = 10 * torch.randn(3, 4, generator=stream)[torch.arange(3000) % 3] + 0.1 * torch.randn(3000, 4, generator=stream)
    bound = bounded(z[torch.randperm(3000, generator=stream)], noise_std=0.1, classes=3)
    assert bound.components >= 3
    assert bound.nats == pytest.approx(math.log(3) + 4 * 0.5 * math.log(2), rel=0.1)


def test_wide_features_get_diagonal_covariances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.analysis.entropy.LARGEST", 4)
    toy = TOYS["anisotropic"]
    assert toy.floor()[1] > toy.information


def test_pictures_unlike_those_of_the_training_cost_more() -> None:
    """What a defense squeezes on its training pictures counts by what it does to others."""
    stream = torch.Generator().manual_seed(0)
    seen, others = (torch.randn(1000, 4, generator=stream) * spread for spread in (0.01, 0.5))
    with ambient(0, "test"):
        same, unlike = (information_bound(seen[:500], rows, noise_std=0.1, classes=1).nats for rows in (seen[500:], others))
    assert same < 0.1
    assert unlike > 4 * 0.5 * math.log(1 + 0.25 / 0.01)


def test_noise_that_hides_everything_leaves_nothing_and_not_less() -> None:
    stream = torch.Generator().manual_seed(0)
    assert 0 <= bounded(torch.rand(600, 3, generator=stream), noise_std=50.0).nats < 0.2


def test_the_entropy_of_a_gaussian_is_estimated_and_never_above_that_of_noise() -> None:
    toy = TOYS["anisotropic"]
    assert gaussian_entropy(0.5 + 0.1 * toy.pictures(6000)) == pytest.approx(toy.entropy + D * math.log(0.1), abs=0.2)
    assert gaussian_entropy((torch.rand(500, 4) > 0.5).float()) == 0.0


def test_pictures_too_large_to_estimate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.analysis.entropy.WIDEST", 3)
    with pytest.raises(ConfigError, match="takes pictures of at most 3 numbers, found 4; give a number"):
        gaussian_entropy(torch.rand(5, 4))


@pytest.mark.parametrize("entropy", [5.0, float("nan"), float("inf"), -float("inf")])
def test_an_entropy_that_pictures_cannot_have_is_refused(entropy: float, small_split: sf.Split, blobs: Data) -> None:
    with pytest.raises(ConfigError, match="entropy_of_x is the differential entropy of pictures"):
        certify(Target(small_split, Compose(sf.Noise(sigma=0.1))), blobs, entropy_of_x=entropy)
    with pytest.raises(ConfigError, match="entropy_of_x is the differential entropy of pictures"):
        sf.audit(small_split, blobs, entropy_of_x=entropy)


@pytest.mark.parametrize("name", TOYS)
def test_dfil_is_a_floor_for_the_unbiased(name: str) -> None:
    toy = TOYS[name]
    x = toy.pictures(40)
    with ambient(0, "test"):
        leakage = dfil(lambda x: x @ toy.weight.T, x, noise_std=SIGMA, probes=400)
    gram = toy.weight.T @ toy.weight
    assert leakage.mean().item() == pytest.approx(gram.trace().item() / (D * SIGMA**2), rel=0.03)
    floor = fisher_certificate(leakage, noise_std=SIGMA, blind=1.0).floor
    assert floor is not None
    if name != "narrow":  # otherwise no adversary is unbiased
        unbiased = SIGMA**2 * torch.linalg.inv(gram).trace().item() / D  # x_hat = W^-1 z
        assert floor < 1.05 * unbiased
        if name != "uneven":  # W is orthogonal, and the bound is tight
            assert floor == pytest.approx(unbiased, rel=0.05)


def test_dfil_is_that_of_the_jacobian_of_a_network() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten())
    x = torch.rand(3, 1, 6, 6)
    with ambient(0, "test"):
        estimate = dfil(net, x, noise_std=0.2, probes=2000)
    for row, found in zip(x, estimate, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: net(one[None])[0], row).flatten(1)  # type: ignore[no-untyped-call]
        assert found.item() == pytest.approx(jacobian.square().sum().item() / (36 * 0.04), rel=0.05)


def test_a_floor_above_the_error_of_the_mean_picture_is_not_claimed() -> None:
    nothing = dfil(lambda x: 0 * x, torch.rand(2, 3), noise_std=0.1)
    assert fisher_certificate(nothing, noise_std=0.1, blind=0.08).floor is None
    little = fisher_certificate(torch.full((4,), 10.0), noise_std=0.1, blind=0.08)
    assert little.floor is None
    assert "0.1, is more than that of the mean picture, 0.08" in little.statement
    assert fisher_certificate(torch.full((4,), 10.0), noise_std=0.1, blind=0.12).floor == pytest.approx(0.1)


@pytest.mark.parametrize("given", [None, -250.0, "estimate"])
def test_a_target_is_certified(given: float | str | None, small_split: sf.Split, blobs: Data) -> None:
    target = Target(small_split, Compose(sf.Noise(sigma=0.1)))
    entropy, fisher = certify(target, blobs, entropy_of_x=given)  # type: ignore[arg-type]
    x = blobs.part("test").read(torch.arange(len(blobs.part("test")))) / 255
    assert fisher.values["blind_mse"] == pytest.approx(x.double().var(0, correction=0).mean().item(), rel=1e-4)
    assert entropy.values["dimensions"] == 64
    assert entropy.values["information_bits"] == pytest.approx(entropy.values["information_nats"] / math.log(2))
    if given is None:
        assert entropy.floor is None
        assert "serves to compare" in entropy.statement
    else:
        assert entropy.floor == pytest.approx(mse_floor(entropy.values["conditional_entropy_nats"], 64))
        assert any(("as given" if given == -250.0 else "may lie too high") in sentence for sentence in entropy.assumptions)
    assert certify(target, blobs, entropy_of_x=given) == (entropy, fisher)  # type: ignore[arg-type]


def test_a_floor_above_the_mean_picture_shows_that_the_entropy_is_wrong() -> None:
    found = entropy_certificate(InformationBound(1.0, 0.1, 0.9, 1), dimensions=64, noise_std=0.1, blind=0.05, entropy_of_x=-1.0)
    assert found.floor is None
    assert "an entropy of -1 nats cannot be theirs" in found.statement


@pytest.mark.parametrize(
    "parts", [[], [sf.Dropout(p=0.2), sf.Noise(sigma=0.1)], [sf.Noise(sigma=0.1, distribution="laplace")]], ids=str
)
def test_what_has_no_bound_gets_no_certificate(parts: list[sf.Defense], small_split: sf.Split, blobs: Data) -> None:
    assert certify(Target(small_split, Compose(*parts)), blobs) == ()


def test_more_noise_says_less(small_split: sf.Split, blobs: Data) -> None:
    bits = [
        certify(Target(small_split, Compose(sf.Noise(sigma=sigma))), blobs)[0].values["information_bits"] for sigma in (0.1, 0.4)
    ]
    assert bits[1] < bits[0]


def test_bounds_without_noise_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs noise on z"):
        information_bound(torch.rand(10, 2), torch.rand(5, 2), noise_std=0.0, classes=2)
    with pytest.raises(ConfigError, match="needs noise on z"):
        dfil(lambda x: x, torch.rand(2, 2), noise_std=0.0)
    for fitted, coded in ((torch.rand(3, 2), torch.rand(5, 2)), (torch.rand(8, 2), torch.full((5, 2), float("nan")))):
        with pytest.raises(ConfigError, match="finite features of at least 4 training and 2 other pictures, found"):
            information_bound(fitted, coded, noise_std=0.1, classes=2)


def test_entropy_is_said_in_bits() -> None:
    said = entropy_certificate(InformationBound(8 * math.log(2), 0.1, 0.9, 1), dimensions=2, noise_std=1.0, blind=0.05)
    assert said.statement.startswith("On average a release says at most 8 bits about its picture, 4 for each of its 2 numbers")
