# SPDX-License-Identifier: Apache-2.0
"""Distributions of latents that a search can learn, one for each class and layer: a Gaussian, and a flow of affine couplings.

Their parameters are variables of a search, stacked with the classes in front, so that all classes are learned at once.

Source: wang2021vmi, section 3; dinh2017realnvp, section 3 (couplings).
Equations: Gaussian: z = m + L e, KL = (|m|^2 + |L|_F^2 - D) / 2 - sum log L_dd -> Gaussian
    coupling: (a, b) -> (a, b exp(s(a)) + t(a)), log det = sum s -> Flow
    KL(q | N(0, I)) by the draw: (|z|^2 - |e|^2) / 2 - log det -> Flow.divergence
Departures: L is lower triangular with a positive diagonal: on it stands exp of what is learned, below it 1 / D of that. Every
covariance has one such root, its determinant costs nothing, and steps of one size in all entries do not blow it up. The release
learns any square matrix, and gives its KL up to a constant and by draws. The flow has affine couplings with one hidden layer, and
reverses the entries between them, in place of Glow's additive ones with learned permutations; its log scales stay within +-2,
which takes the place of the release's float64. It starts as N(0, I).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALE = 2.0


class Family(Protocol):
    """A family of distributions of latents, (B, layers, D), with N(0, I) in it."""

    def start(self, layers: int, width: int, streams: Sequence[torch.Generator]) -> list[Tensor]:
        """Return the variables of N(0, I), or of what is so at first, (B, layers, ...) each.

        Args:
            layers: independent distributions of each class.
            width: length of a latent, D.
            streams: one of random numbers for each class, on the CPU.
        """

    def draw(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Make draws of noise.

        Args:
            variables: as `start` gives them.
            noise: of N(0, 1), (B, S, layers, D).

        Returns:
            (B, S, layers, D).
        """

    def divergence(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Return the KL divergence from N(0, I) of each class, summed over layers, (B,).

        Args:
            variables: as `start` gives them.
            noise: what it is estimated with where it has no closed form, (B, S, layers, D).
        """


@dataclass(frozen=True)
class Gaussian:
    """Gaussians with a full covariance.

    Example:
        >>> family = Gaussian()
        >>> variables = family.start(1, 3, [torch.Generator()])
        >>> family.divergence(variables, torch.zeros(1, 1, 1, 3))
        tensor([0.])
    """

    def start(self, layers: int, width: int, streams: Sequence[torch.Generator]) -> list[Tensor]:
        """Return means, (B, layers, D), and roots of covariances with the logarithm on the diagonal, (B, layers, D, D)."""
        return [torch.zeros(len(streams), layers, width), torch.zeros(len(streams), layers, width, width)]

    def draw(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Return ``m + L e``, (B, S, layers, D)."""
        mean, root = variables
        return mean[:, None] + torch.einsum("blij,bslj->bsli", _root(root), noise)

    def divergence(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Return the exact divergence, (B,)."""
        mean, root = variables
        size = mean.square().flatten(1).sum(1) + _root(root).square().flatten(1).sum(1) - mean[0].numel()
        return size / 2 - root.diagonal(dim1=-2, dim2=-1).flatten(1).sum(1)


def _root(free: Tensor) -> Tensor:
    """Return lower triangular matrices with a positive diagonal of any matrices, (..., D, D)."""
    below = free.tril(-1) / free.shape[-1]  # D entries move a draw together, so that each moves it D times less
    return below + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())


@dataclass(frozen=True)
class Flow:
    """Affine couplings, each of which moves one half of the entries by what the other half says.

    Args:
        couplings: how many; between two the entries are reversed.
        hidden: units of the hidden layer of each.

    Example:
        >>> family, noise = Flow(couplings=2, hidden=8), torch.randn(1, 5, 1, 4)
        >>> variables = family.start(1, 4, [torch.Generator()])
        >>> torch.equal(family.draw(variables, noise), noise)  # at first it is N(0, I); two reversals undo each other
        True
    """

    couplings: int = 6
    hidden: int = 64

    def start(self, layers: int, width: int, streams: Sequence[torch.Generator]) -> list[Tensor]:
        """Return weights and biases of the hidden and of the last layers, (B, layers, couplings, ...) each."""
        given, free = width // 2, width - width // 2
        size = (layers, self.couplings, self.hidden, given)
        first = torch.stack([torch.randn(size, generator=stream) for stream in streams]) / max(given, 1) ** 0.5
        bias = first.new_zeros(first.shape[:-1])
        # The last layer starts at 0, and with it every coupling as one that changes nothing.
        last = first.new_zeros(*first.shape[:3], 2 * free, self.hidden)
        return [first, bias, last, last.new_zeros(last.shape[:-1])]

    def draw(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Send noise through the couplings, (B, S, layers, D)."""
        return self._through(variables, noise)[0]

    def divergence(self, variables: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Return an unbiased estimate of the divergence, (B,)."""
        z, log_det = self._through(variables, noise)
        return ((z.square() - noise.square()).sum(-1) / 2 - log_det).sum(-1).mean(-1)

    def _through(self, variables: Sequence[Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return draws, and the logarithm of how much each stretches the volume, (B, S, layers)."""
        z, log_det, given = noise, noise.new_zeros(noise.shape[:-1]), noise.shape[-1] // 2
        for number in range(self.couplings):
            first, bias, last, shift = (one[:, :, number] for one in variables)
            a, b = z[..., :given], z[..., given:]
            inside = F.elu(torch.einsum("blhd,bsld->bslh", first, a) + bias[:, None])
            log_scale, move = (torch.einsum("bloh,bslh->bslo", last, inside) + shift[:, None]).chunk(2, -1)
            log_scale = _SCALE * torch.tanh(log_scale / _SCALE)
            z = torch.cat([a, b * log_scale.exp() + move], -1).flip(-1)
            log_det = log_det + log_scale.sum(-1)
        return z, log_det
