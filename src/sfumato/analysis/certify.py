# SPDX-License-Identifier: Apache-2.0
"""The certificates of a target: what holds for every adversary, under assumptions that are said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from sfumato.analysis.dfil import dfil, fisher_certificate
from sfumato.analysis.entropy import entropy_certificate, gaussian_entropy, information_bound, require_entropy
from sfumato.data.base import Data, Pictures
from sfumato.data.loader import batches, shuffled
from sfumato.modules import eval_mode
from sfumato.seeds import ambient, generator
from sfumato.target import BATCH, Target
from sfumato.types import Certificate

EntropyOfX = float | Literal["estimate"] | None
"""H(x): given in nats for one picture, estimated, or left out."""
MEASURED = 5000
"""Pictures of a part that the bound on the information takes, at most."""
PROBED = 256
"""Pictures that dFIL is measured on, at most."""


def certify(target: Target, data: Data, *, entropy_of_x: EntropyOfX = None, seed: int = 0) -> tuple[Certificate, ...]:
    """Measure what one release of a target says at most.

    Args:
        target: as deployed.
        data: the pictures; the mixture is made of `private`, and everything is measured on `test`.
        entropy_of_x: H(x) in nats for one picture, at most 0; "estimate" takes that of a Gaussian, None leaves it out.
        seed: of everything random.

    Returns:
        The entropy and the Fisher certificate, or nothing where the release is not plain features with Gaussian noise added: no
        bound is known then.

    Raises:
        ConfigError: H(x) is one that pictures cannot have, or cannot be estimated.

    Example:
        >>> import sfumato as sf
        >>> from sfumato.defenses.compose import Compose
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> model = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> [found.name for found in certify(Target(sf.split(model, at="c1"), Compose(sf.Noise(sigma=0.1))), data)]
        ['entropy', 'fisher']
    """
    require_entropy(entropy_of_x)
    noise, head = target.protection.noise_std, target.split.head
    if noise == 0 or not target.protection.gaussian:
        return ()
    fitted, measured = (_some(data.part(name), name, seed) for name in ("private", "test"))
    with ambient(seed, "certify"), eval_mode(head):
        with torch.no_grad():
            z, others = (torch.cat([head(x) for x in _batches(part, target.device)]) for part in (fitted, measured))
        bound = information_bound(z, others, noise_std=noise, classes=len(data.classes))
        probed = measured.subset(torch.arange(min(PROBED, len(measured))))
        leakage = torch.cat([dfil(head, x, noise_std=noise) for x in _batches(probed, target.device)])
    blind = _blind(measured, target.device)
    estimated = entropy_of_x == "estimate"
    entropy = entropy_certificate(
        bound,
        dimensions=math.prod(data.shape),
        noise_std=noise,
        blind=blind,
        entropy_of_x=gaussian_entropy(torch.cat([*_batches(fitted, target.device)])) if estimated else entropy_of_x,  # type: ignore[arg-type]  # no other string gets here
        estimated=estimated,
    )
    return entropy, fisher_certificate(leakage, noise_std=noise, blind=blind)


def _some(pictures: Pictures, name: str, seed: int) -> Pictures:
    """Return a part in random order, cut to what is measured."""
    return pictures.subset(shuffled(len(pictures), generator(seed, "certified", name))[:MEASURED])


def _batches(pictures: Pictures, device: torch.device) -> Iterator[Tensor]:
    """Yield the pictures as images, batch by batch."""
    return (x for x, _ in batches(pictures, size=BATCH, device=device))


def _blind(pictures: Pictures, device: torch.device) -> float:
    """Return the mean squared error of the mean picture."""
    sums = [(x.double().sum(0), x.double().square().sum(0)) for x in _batches(pictures, device)]
    first, second = (torch.stack(parts).sum(0) / len(pictures) for parts in zip(*sums, strict=True))
    return (second - first.square()).mean().item()
