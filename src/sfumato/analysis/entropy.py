# SPDX-License-Identifier: Apache-2.0
"""How much of a picture one release can say at most, and the error that this leaves to every adversary.

Source: xia2025cem, Theorems 1 and 2.
Equations: Theorem 1 -> mse_floor; Theorem 2, Eq. (3) -> information_bound.
Departures: Eq. 3 takes the covariances of the pictures that they were fitted to, and is too low where a component has few of
them. Here the mixture is fitted to one half of the pictures and its code length taken on the other:

    H(z) <= E[-log pi_j N(z; mu_j, Sigma_j + Sigma_p)]  for any choice of j, pi, mu and Sigma,

which holds whether or not the features are a mixture of Gaussians, and is Eq. 3 where both halves are the same. Eq. 3 to the
letter is given beside it. Of one component, one for each class and three for each class, that with the shortest code is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.analysis.clusters import lloyd, seed_means
from sfumato.analysis.mixture import Mixture, Moments, information, nearest
from sfumato.errors import ConfigError
from sfumato.types import Certificate

WIDEST = 2048
"""Dimensions of z up to which covariances are full; beyond, their diagonals are taken, which gives a larger bound."""


@dataclass(frozen=True)
class InformationBound:
    """A bound on I(x; z).

    Attributes:
        nats: for one picture, on held-out pictures.
        error: standard error of `nats`.
        in_sample: Eq. 3 to the letter, nats.
        components: of the mixture.
    """

    nats: float
    error: float
    in_sample: float
    components: int


def mse_floor(conditional_entropy: float, dimensions: int) -> float:
    """Return the least mean squared error that Theorem 1 leaves to any adversary.

    Args:
        conditional_entropy: H(x|z) in nats for one picture, x in [0, 1]^d.
        dimensions: d, pixels times channels.

    Example:
        >>> round(mse_floor(0.5 * math.log(2 * math.pi * math.e * 0.01), 1), 6)  # x given z is Gaussian with variance 0.01
        0.01
    """
    return math.exp(2 * conditional_entropy / dimensions) / (2 * math.pi * math.e)  # Theorem 1


def information_bound(z: Tensor, *, noise_std: float, classes: int) -> InformationBound:
    """Bound what one release says about its picture. Draws from the ambient stream.

    Args:
        z: clean features of pictures in random order, (N, ...), N >= 4; half is fitted to, half is coded.
        noise_std: of the Gaussian noise that is added to each element, in units of z, > 0.
        classes: of the data, to choose how many components are tried.

    Raises:
        ConfigError: there is no noise, too few pictures, or features that are not finite.

    Example:
        >>> stream = torch.Generator().manual_seed(0)
        >>> z = torch.randn(4000, 2, generator=stream)  # I = log(1 + 1 / 0.25) for two dimensions
        >>> abs(information_bound(z, noise_std=0.5, classes=1).nats - math.log(5)) < 0.1
        True
    """
    rows = z.flatten(1).double()
    if not noise_std > 0:
        raise ConfigError("a bound on the information needs noise on z: without it z says all; add Noise(sigma=0.025)")
    if len(rows) < 4 or not bool(rows.isfinite().all()):
        raise ConfigError(f"a bound on the information needs at least 4 pictures with finite features, found {len(rows)}")
    fit, held = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    held = held + noise_std * torch.randn_like(held)
    bounds = [_bound(fit, held, noise_std, k) for k in sorted({1, classes, 3 * classes}) if k <= len(fit) // 2]
    return min(bounds, key=lambda bound: bound.nats)


def _bound(fit: Tensor, held: Tensor, noise_std: float, k: int) -> InformationBound:
    """Return the bound of a mixture of k components."""
    diagonal = fit.shape[1] > WIDEST
    means, component = lloyd(fit, seed_means(fit, k), iterations=20)
    moments = Moments(means, diagonal=diagonal)
    moments.add(fit, component)
    mixture = moments.mixture("diagonal" if diagonal else "shrunk")
    length = _code_length(mixture, held, noise_std**2) - 0.5 * fit.shape[1] * math.log(2 * math.pi * math.e * noise_std**2)
    error = length.std().item() / math.sqrt(len(length))
    literal = moments.mixture("diagonal" if diagonal else "full")
    return InformationBound(length.mean().item(), error, information(literal, noise_std**2).item(), k)


def _code_length(mixture: Mixture, z: Tensor, noise_variance: float) -> Tensor:
    """Return -log pi_j N(z; mu_j, Sigma_j + Sigma_p) of each row, j the component with the nearest mean that has any weight."""
    used = mixture.weights > 0
    places = used.nonzero()[:, 0]
    component = places[nearest(z, mixture.means[used])]
    lengths = torch.empty(len(z), dtype=z.dtype, device=z.device)
    for number in component.unique().tolist():
        rows = z[component == number] - mixture.means[number]
        rotated = rows if mixture.vectors is None else rows @ mixture.vectors[number]
        variance = mixture.values[number] + noise_variance
        density = (rotated.square() / variance).sum(1) + (2 * math.pi * variance).log().sum()
        lengths[component == number] = 0.5 * density - mixture.weights[number].log()
    return lengths


def gaussian_entropy(x: Tensor) -> float:
    """Estimate H(x) by that of a Gaussian with the covariance of x, shrunk; of all distributions it has the most.

    Args:
        x: (N, ...), float.

    Returns:
        Nats for one picture.

    Example:
        >>> x = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
        >>> round(gaussian_entropy(x), 1)  # log(2 pi e) / 2
        1.4
    """
    rows = x.flatten(1).double()
    moments = Moments(rows.mean(0, keepdim=True))
    moments.add(rows, torch.zeros(len(rows), dtype=torch.int64, device=rows.device))
    values = moments.mixture("shrunk").values[0]
    return 0.5 * (2 * math.pi * math.e * values).log().sum().item()


def entropy_certificate(
    bound: InformationBound, *, dimensions: int, noise_std: float, entropy_of_x: float | None = None, estimated: bool = False
) -> Certificate:
    """State a bound on the information for people, and as a floor on the error where H(x) is known.

    Args:
        bound: on I(x; z).
        dimensions: d of x.
        noise_std: of the release.
        entropy_of_x: H(x) in nats for one picture in [0, 1]^d; None leaves it out, and the certificate is relative.
        estimated: whether `entropy_of_x` is an estimate.
    """
    nats, bits = bound.nats, bound.nats / math.log(2)
    values = {
        "information_nats": nats,
        "information_bits": bits,
        "information_error_nats": bound.error,
        "information_in_sample_nats": bound.in_sample,
        "dimensions": float(dimensions),
        "components": float(bound.components),
        "noise_std": noise_std,
    }
    statement = f"One release says at most {bits:,.0f} bits about its picture, {bits / dimensions:.2f} for each of its numbers"
    assumptions = [
        f"the release adds Gaussian noise with a standard deviation of {noise_std:g}, fresh and unknown to the adversary",
        "the adversary sees one release of the picture, and the picture is drawn like those that were measured",
    ]
    if entropy_of_x is None:
        relative = "; without the entropy of the pictures themselves this bounds no error, and serves to compare targets."
        return Certificate("entropy", statement + relative, None, values, tuple(assumptions))
    conditional = entropy_of_x - nats
    floor = mse_floor(conditional, dimensions)
    values |= {"entropy_of_x_nats": entropy_of_x, "conditional_entropy_nats": conditional}
    assumptions.append(
        "the entropy of the pictures is that of a Gaussian with their covariance: real pictures have less, so that the floor may "
        "lie too high"
        if estimated
        else f"the entropy of the pictures is {entropy_of_x:,.0f} nats, as given"
    )
    return Certificate(
        "entropy", f"{statement}; no adversary reaches a mean squared error under {floor:.3g}.", floor, values, tuple(assumptions)
    )
