# SPDX-License-Identifier: Apache-2.0
"""What a prior is: a generator of pictures like the public ones, with the critic that it was trained against.

An adversary who looks for a picture of a class among all pictures finds noise that the target takes for one. A prior leaves it
only those that look like a picture of its kind: the search goes through the prior's latents.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sfumato.errors import ModelError
from sfumato.types import Images, Labels

PriorKind = Literal["gan", "inversion", "style", "conditional"]
"""What attacks ask for: a plain GAN; one whose discriminator learned the target's soft labels (KEDMI); a generator with a mapping
and a synthesis (PPA, MIRROR, VMI); one that is told a class and learned from the target's labels (PLG)."""

FOR_TARGET: frozenset[PriorKind] = frozenset({"inversion", "conditional"})
"""Kinds that ask the target while they learn, so that each target has a prior of its own."""


@runtime_checkable
class Style(Protocol):
    """A generator in two steps, as StyleGAN has them: z is mapped to a style w, of which a picture is made.

    Attributes:
        w_mean: the mean style, (D,).
    """

    w_mean: Tensor

    @property
    def layers(self) -> int:
        """How many layers of the synthesis take a style of their own."""

    def mapping(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Return the styles of latents, (N, D): ``w_mean + psi * (w - w_mean)``; psi below 1 truncates."""

    def activations(self, w: Tensor, stop: int, start: int = 0, activations: Tensor | None = None) -> Tensor:
        """Return what the layers of the synthesis before `stop` make of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            stop: how many layers there are before; 0 gives the constant input.
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave, (N, ...).
        """

    def synthesis(self, w: Tensor, start: int = 0, activations: Tensor | None = None) -> Images:
        """Make pictures in [0, 1] of styles.

        Args:
            w: (N, D), the same in every layer, or (N, layers, D).
            start: the layer to begin with; above 0 it begins with `activations`.
            activations: what the layers before gave, as `activations` returns it.
        """


class Prior(nn.Module):
    """A generator of pictures, with the critic that it was trained against.

    Args:
        kind: of prior.
        generator: from latents (N, latent), and for "conditional" labels (N,), to pictures (N, C, H, W) in [0, 1].
        critic: what told made pictures from true ones, or None where nobody kept it. Of "gan" it returns scores (N,); of
            "inversion" features (N, F) and logits (N, K).
        latent: length of a latent; latents are drawn from N(0, I).
        image_shape: (C, H, W).
    """

    def __init__(
        self, kind: PriorKind, generator: nn.Module, critic: nn.Module | None, *, latent: int, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.kind, self.latent, self.image_shape = kind, latent, image_shape
        self.generator, self.critic = generator, critic

    @property
    def style(self) -> Style:
        """The generator as one in two steps.

        Raises:
            ModelError: it is none.
        """
        if not isinstance(self.generator, Style):
            raise ModelError(f"expected a prior with mapping and synthesis, found one of kind '{self.kind}'; train a style prior")
        return self.generator

    def draw(self, count: int, stream: torch.Generator) -> Tensor:
        """Draw latents.

        Args:
            count: how many.
            stream: of random numbers, on the CPU, so that every device gets the same.

        Returns:
            (count, latent), float32, on the prior's device.
        """
        return torch.randn(count, self.latent, generator=stream).to(next(self.parameters()).device)

    def forward(self, latent: Tensor, labels: Labels | None = None) -> Images:
        """Make pictures.

        Args:
            latent: (N, latent).
            labels: (N,), the class of each; of kind "conditional" only.
        """
        x: Tensor = self.generator(latent) if labels is None else self.generator(latent, labels)
        return x
