# SPDX-License-Identifier: Apache-2.0
"""A small style generator trained on public pictures: the prior of attacks that search styles, where there is no StyleGAN.

Source: karras2020stylegan2, section 2 (networks) and appendix B (loss, penalty now and then, averaged weights);
karras2019stylegan, appendix B (the mean style, of 10,000 latents).
Equations: `sfumato.priors.losses`, (logistic) and (r1).
Departures: those of `sfumato.models.style`; no mixing of styles, no path-length penalty.
"""

from __future__ import annotations

from sfumato.models.style import StyleCritic, StyleGenerator
from sfumato.priors.base import Prior
from sfumato.priors.gan import GanContest
from sfumato.priors.settings import PriorSettings
from sfumato.seeds import generator

_DRAWS = 10_000  # latents whose styles give the mean


def style_prior(image_shape: tuple[int, int, int], settings: PriorSettings) -> Prior:
    """Make an untrained style generator and its critic; the weights come from PyTorch's ambient stream.

    Raises:
        ConfigError: such pictures cannot be made.

    Example:
        >>> style_prior((3, 32, 32), PriorSettings(width=8, latent=64)).style.layers
        4
    """
    made = StyleGenerator(image_shape, latent=settings.latent, width=settings.width)
    critic = StyleCritic(image_shape, width=settings.width)
    return Prior("style", made, critic, latent=settings.latent, image_shape=image_shape)


class StyleContest(GanContest):
    """As a plain GAN's, and the mean style at the end."""

    def finish(self, seed: int) -> None:
        """Measure the mean style, of 10,000 latents."""
        made = self.prior.generator  # the averaged one, where weights are averaged
        assert isinstance(made, StyleGenerator)  # noqa: S101 -- `style_prior` makes no other
        made.measure(self.prior.draw(_DRAWS, generator(seed, "prior", "styles")))
