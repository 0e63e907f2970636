# SPDX-License-Identifier: Apache-2.0
"""The certificates of a target: what holds for every adversary, under assumptions that are said."""

from __future__ import annotations

from typing import Literal

import torch

from sfumato.analysis.dfil import dfil, fisher_certificate
from sfumato.analysis.entropy import entropy_certificate, gaussian_entropy, information_bound
from sfumato.data.base import Data, Pictures
from sfumato.data.loader import as_images, shuffled
from sfumato.modules import eval_mode
from sfumato.seeds import ambient, generator
from sfumato.target import BATCH, Target
from sfumato.types import Certificate

EntropyOfX = float | Literal["estimate"] | None
"""H(x): given in nats for one picture, estimated, or left out."""
MEASURED = 5000
"""Pictures that the bound on the information is measured on, at most."""
PROBED = 256
"""Pictures that dFIL is measured on, at most."""


def certify(target: Target, data: Data, *, entropy_of_x: EntropyOfX = None, seed: int = 0) -> tuple[Certificate, ...]:
    """Measure what one release of a target says at most.

    Args:
        target: as deployed.
        data: the pictures; the `private` part is measured.
        entropy_of_x: H(x) in nats for one picture; "estimate" takes that of a Gaussian, None leaves it out.
        seed: of everything random.

    Returns:
        The entropy and the Fisher certificate, or nothing where the release is not plain features with Gaussian noise added: no
        bound is known then.

    Example:
        >>> import sfumato as sf
        >>> from sfumato.defenses.compose import Compose
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> model = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> [found.name for found in certify(Target(sf.split(model, at="c1"), Compose(sf.Noise(sigma=0.1))), data)]
        ['entropy', 'fisher']
    """
    noise = target.protection.noise_std
    if noise == 0 or not target.protection.gaussian:
        return ()
    pictures = data.part("private")
    pictures = pictures.subset(shuffled(len(pictures), generator(seed, "certified"))[:MEASURED])
    head = target.split.head
    with ambient(seed, "certify"), eval_mode(head):
        with torch.no_grad():
            z = torch.cat([head(x) for x in _batches(pictures, target.device)])
        bound = information_bound(z, noise_std=noise, classes=len(data.classes))
        probed = pictures.subset(torch.arange(min(PROBED, len(pictures))))
        leakage = torch.cat([dfil(head, x, noise_std=noise) for x in _batches(probed, target.device)])
        images = torch.cat(_batches(pictures, target.device))
        given = gaussian_entropy(images) if entropy_of_x == "estimate" else entropy_of_x
        blind = images.double().var(0, correction=0).mean().item()
    dimensions = pictures.nbytes // len(pictures)
    entropy = entropy_certificate(
        bound, dimensions=dimensions, noise_std=noise, entropy_of_x=given, estimated=entropy_of_x == "estimate"
    )
    return entropy, fisher_certificate(leakage, noise_std=noise, blind=blind)


def _batches(pictures: Pictures, device: torch.device) -> list[torch.Tensor]:
    """Return the pictures as images, batch by batch."""
    every = torch.arange(len(pictures))
    return [as_images(pictures.read(index), device) for index in every.split(BATCH)]
