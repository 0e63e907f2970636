# SPDX-License-Identifier: Apache-2.0
"""What the errors of an image decoder look like: how large they are at each spatial frequency and in each mixture of colors.

Source: field1987relations, for pictures, whose power falls with frequency; here for the errors of a decoder.
Equations: e(w) = V F^-1 (a F w), w ~ N(0, 1), F the discrete Fourier transform, V the axes of the colors -> ErrorSpectrum.shaped;
    a^2 = E |F V^T e|^2, the mean over errors, over each frequency and over its neighbors -> ErrorSpectrum.of
Departures: none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ErrorSpectrum:
    """A Gaussian model of errors that are alike all over the picture.

    Attributes:
        amplitude: of each frequency, (C, H, W), at least 0.
        colors: the axes along which the colors of an error are independent, as columns, (C, C).
    """

    amplitude: Tensor
    colors: Tensor

    @classmethod
    def of(cls, errors: Tensor) -> ErrorSpectrum:
        """Learn the spectrum of errors.

        Args:
            errors: pictures less their reconstructions, (N, C, H, W).

        Example:
            >>> ErrorSpectrum.of(torch.ones(1, 1, 8, 8)).amplitude[0, 4, 4].item()
            0.0
        """
        colors = torch.linalg.eigh(torch.einsum("nchw,ndhw->cd", errors, errors)).eigenvectors
        waves = torch.fft.fft2(torch.einsum("nchw,cd->ndhw", errors, colors), norm="ortho")
        # A few errors say little about a single frequency. The plane of frequencies is a torus.
        power = F.pad(waves.abs().square().mean(0, keepdim=True), (1, 1, 1, 1), mode="circular")
        return cls(F.avg_pool2d(power, 3, stride=1)[0].sqrt(), colors)

    def shaped(self, white: Tensor) -> Tensor:
        """Return errors, (N, C, H, W), made of white noise of variance 1, (N, C, H, W)."""
        waves = torch.fft.fft2(white, norm="ortho") * self.amplitude
        return torch.einsum("ndhw,cd->nchw", torch.fft.ifft2(waves, norm="ortho").real, self.colors)
