# SPDX-License-Identifier: Apache-2.0
"""How much of a picture one release can say at most, and the error that this leaves to every adversary.

Source: xia2025cem, Theorems 1 and 2.
Equations: Theorem 1 -> mse_floor; Theorem 2, Eq. (3) -> information_bound.
Departures: Eq. 3 takes the covariances of the pictures that they were fitted to, and is too low where a component has few of
them, or where the head was trained on them. Here the mixture is fitted to training pictures and its code length taken on others:

    H(z) <= E[-log pi_j N(z; mu_j, Sigma_j + Sigma_p)]  for any choice of j, pi, mu and Sigma,

which holds whether or not the features are a mixture of Gaussians, and is Eq. 3 where both are the same pictures. Eq. 3 to the
letter is given beside it. Of one component, one for each class and three for each class, that with the shortest code on a quarter
of the training pictures is taken.
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

LARGEST = 1 << 26
"""Numbers in the covariances of a mixture up to which these are full; beyond, diagonals are taken, which gives a larger bound."""
WIDEST = 4096
"""Numbers in a picture up to which its entropy is estimated."""


@dataclass(frozen=True)
class InformationBound:
    """A bound on I(x; z).

    Attributes:
        nats: for one picture, at least 0: the mean over the pictures that were coded and two standard errors.
        error: the standard error of the mean.
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


def information_bound(fitted: Tensor, coded: Tensor, *, noise_std: float, classes: int) -> InformationBound:
    """Bound what one release says about its picture. Draws from the ambient stream.

    Args:
        fitted: clean features to make the mixture of, in random order, (N, ...), N >= 4.
        coded: clean features of pictures like those that users send, (M, ...), M >= 2.
        noise_std: of the Gaussian noise that is added to each element, in units of z, > 0.
        classes: of the data, to choose how many components are tried.

    Raises:
        ConfigError: there is no noise, too few pictures, or features that are not finite.

    Example:
        >>> stream = torch.Generator().manual_seed(0)
        >>> z = torch.randn(8000, 2, generator=stream)  # I = log(1 + 1 / 0.25) for two dimensions
        >>> abs(information_bound(z[:4000], z[4000:], noise_std=0.5, classes=1).nats - math.log(5)) < 0.1
        True
    """
    rows, others = fitted.flatten(1).double(), coded.flatten(1).double()
    if not noise_std > 0:
        raise ConfigError("a bound on the information needs noise on z: without it z says all; add Noise(sigma=0.025)")
    if len(rows) < 4 or len(others) < 2 or not bool(rows.isfinite().all() and others.isfinite().all()):
        raise ConfigError(
            "a bound on the information needs finite features of at least 4 training and 2 other pictures, found "
            f"{len(rows)} and {len(others)}; see whether the head gives finite features"
        )
    quarter = len(rows) // 4
    tried = [_Code(rows[quarter:], noise_std, k) for k in sorted({1, classes, 3 * classes}) if 2 * k <= len(rows) - quarter]
    code = min(tried, key=lambda one: one.information(rows[:quarter]).mean().item())
    found = code.information(others)
    error = found.std().item() / math.sqrt(len(found))
    return InformationBound(max(0.0, found.mean().item() + 2 * error), error, code.in_sample, code.components)


class _Code:
    """A mixture by which features are coded.

    Args:
        rows: clean features to make it of, (N, D), float64.
        noise_std: of the release.
        components: of the mixture.
    """

    def __init__(self, rows: Tensor, noise_std: float, components: int) -> None:
        self.components, self.noise_std = components, noise_std
        diagonal = components * rows.shape[1] ** 2 > LARGEST
        means, component = lloyd(rows, seed_means(rows, components), iterations=20)
        moments = Moments(means, diagonal=diagonal)
        moments.add(rows, component)
        literal = moments.mixture("diagonal" if diagonal else "full")
        self.in_sample = information(literal, noise_std**2).item()
        self.mixture = literal if diagonal else moments.shrunk(literal)

    def information(self, rows: Tensor) -> Tensor:
        """Return the code length of one release of each of these rows over that of its own noise, nats, (n,).

        The noise as it was drawn has the mean of its entropy and varies with the code, so that the difference varies little.
        """
        drawn = torch.randn_like(rows)
        noise = 0.5 * (drawn.square().sum(1) + rows.shape[1] * math.log(2 * math.pi * self.noise_std**2))
        return _code_length(self.mixture, rows + self.noise_std * drawn, self.noise_std**2) - noise


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
        x: pictures, (N, ...), [0, 1].

    Returns:
        Nats for one picture, at most 0: no picture in [0, 1]^d has more.

    Raises:
        ConfigError: a picture has more numbers than a covariance can be made of here.

    Example:
        >>> x = 0.5 + 0.01 * torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
        >>> round(gaussian_entropy(x), 1)  # log(2 pi e 0.0001) / 2
        -3.2
    """
    rows = x.flatten(1).double()
    if rows.shape[1] > WIDEST:
        raise ConfigError(
            f'entropy_of_x = "estimate" takes pictures of at most {WIDEST:,} numbers, found {rows.shape[1]:,}; give a number'
        )
    moments = Moments(rows.mean(0, keepdim=True))
    moments.add(rows, torch.zeros(len(rows), dtype=torch.int64, device=rows.device))
    values = moments.mixture("shrunk").values[0]
    return min(0.0, 0.5 * (2 * math.pi * math.e * values).log().sum().item())


def require_entropy(entropy_of_x: object) -> None:
    """Raise unless H(x) is left out, to be estimated, or one that pictures in [0, 1] can have.

    Raises:
        ConfigError: it is something else.
    """
    if entropy_of_x is None or entropy_of_x == "estimate":
        return
    if not isinstance(entropy_of_x, int | float) or not -math.inf < entropy_of_x <= 0:
        raise ConfigError(
            f"entropy_of_x is the differential entropy of pictures in [0, 1], in nats, and at most 0, got {entropy_of_x}; from "
            'bits of d pixels of 8 bits it is bits * ln(2) - d * ln(256); "estimate" takes that of a Gaussian'
        )


def entropy_certificate(
    bound: InformationBound,
    *,
    dimensions: int,
    noise_std: float,
    blind: float,
    entropy_of_x: float | None = None,
    estimated: bool = False,
) -> Certificate:
    """State a bound on the information for people, and as a floor on the error where H(x) is known.

    Args:
        bound: on I(x; z).
        dimensions: d of x.
        noise_std: of the release.
        blind: error of the mean picture; no floor is above it.
        entropy_of_x: H(x) in nats for one picture in [0, 1]^d, at most 0; None leaves it out, and the certificate is relative.
        estimated: whether `entropy_of_x` is an estimate.
    """
    bits = bound.nats / math.log(2)
    values = {
        "information_nats": bound.nats,
        "information_bits": bits,
        "standard_error_nats": bound.error,
        "eq_3_in_sample_nats": bound.in_sample,
        "dimensions": float(dimensions),
        "components": float(bound.components),
        "noise_std": noise_std,
    }
    each = f"{bits / dimensions:.2g} for each of its {dimensions:,} numbers"
    statement = f"On average a release says at most {bits:.3g} bits about its picture, {each}"
    assumptions = [
        f"the release adds Gaussian noise with a standard deviation of {noise_std:g}, fresh and unknown to the adversary",
        "the adversary sees one release of the picture, and the picture is drawn like the test pictures, on which the bound is "
        "measured with two standard errors to spare",
    ]
    if entropy_of_x is None:
        relative = "; without the entropy of the pictures themselves this bounds no error, and serves to compare targets."
        return Certificate("entropy", statement + relative, None, values, tuple(assumptions))
    conditional = entropy_of_x - bound.nats
    floor = mse_floor(conditional, dimensions)
    values |= {"entropy_of_x_nats": entropy_of_x, "conditional_entropy_nats": conditional, "blind_mse": blind}
    assumptions.append(
        "the entropy of the pictures is that of a Gaussian with their covariance: real pictures have less, so that the floor may "
        "lie too high"
        if estimated
        else f"the entropy of the pictures is {entropy_of_x:,.0f} nats, as given"
    )
    if floor > blind:
        said = f"{statement}; an entropy of {entropy_of_x:,.0f} nats cannot be theirs: the mean picture gets under its floor."
        return Certificate("entropy", said, None, values, tuple(assumptions))
    claim = f"no adversary reaches a mean squared error under {floor:.3g}"
    said = f"{statement}; if they were Gaussian, {claim}: an estimate." if estimated else f"{statement}; {claim}."
    return Certificate("entropy", said, floor, values, tuple(assumptions))
