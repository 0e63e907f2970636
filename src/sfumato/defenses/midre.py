# SPDX-License-Identifier: Apache-2.0
"""MIDRE: the model never sees a whole face, since a rectangle of every training picture is erased.

An attack rebuilds whole faces, whose features then differ from those of the pictures that the model was trained on.

Source: tran2025midre, Section 3 and the training configuration of its release, whose numbers are the defaults here;
zhong2020erasing, Algorithm 1 (the rectangle).
Equations: none are numbered. Area s ~ U(area) H W, aspect r with log r ~ U(log aspect), height round(sqrt(s r)), width
round(sqrt(s / r)), a place where it fits -> MIDRE.perturb
Departures: a rectangle that is too long for the picture is cut to its side, where the releases draw again, ten times or more, and
then erase nothing. The release of tran2025midre erases after normalization and fills with ImageNet's mean in units of before it,
so that the patch is brighter than the mean; here x in [0, 1] is erased, in its own units. Gray pictures take the mean of the
three colors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.split import Split

_IMAGENET_MEAN = (0.485, 0.456, 0.406)


class MIDRE(Defense):
    """Erase one rectangle of each training picture, at a random place. The label stays; a deployed model sees whole pictures.

    Args:
        area: the least and the largest share of a picture that is erased, in (0, 1). The paper has others too, up to 0.8.
        aspect: the least and the largest height over width of the rectangle, positive; (1, 1) is a square.
        p: probability that a picture is erased at all, (0, 1].
        fill: what is put there, one number a channel, or one for all of them, [0, 1].

    Raises:
        ConfigError: an argument is out of its range; when it is prepared, the pictures have other channels than `fill`.

    Example:
        >>> midre = MIDRE()
        >>> x = midre.perturb(torch.zeros(1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> 0.09 < (x > 0).float().mean().item() < 0.41
        True
    """

    name = "midre"
    surface = "weights"

    def __init__(
        self,
        area: tuple[float, float] = (0.1, 0.4),
        *,
        aspect: tuple[float, float] = (1.0, 1.0),
        p: float = 1.0,
        fill: tuple[float, ...] = _IMAGENET_MEAN,
    ) -> None:
        super().__init__()
        if not 0 < area[0] <= area[1] < 1:
            raise ConfigError(
                f"area must be two shares of a picture in (0, 1), the lesser first, got {area}; (0.1, 0.4) is usual"
            )
        if not 0 < aspect[0] <= aspect[1] < math.inf:
            raise ConfigError(f"aspect must be two positive ratios, the lesser first, got {aspect}; (1.0, 1.0) is the paper's")
        if not 0 < p <= 1:
            raise ConfigError(f"p must be a probability in (0, 1], got {p}; 1.0 is the paper's, for no defense use Compose()")
        if not fill or not all(0 <= value <= 1 for value in fill):
            raise ConfigError(f"fill must be one number for each channel or one for all, in [0, 1], got {fill}")
        self.area, self.aspect, self.p, self.fill = area, aspect, p, fill

    @property
    def separable(self) -> bool:
        """Whether training sees each picture by itself: it does, erased without regard to any other."""
        return True

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse pictures that `fill` does not fit."""
        if data.shape[0] not in (1, len(self.fill)) and len(self.fill) != 1:
            raise ConfigError(
                f"fill must have one number for each of the {data.shape[0]} channels of {data.name}, or one for all, found "
                f"{len(self.fill)}: {self.fill}"
            )

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Erase a rectangle of each picture.

        Args:
            x: (N, C, H, W), float, [0, 1].
            generator: on the device of x; the same state gives the same rectangles.

        Returns:
            (N, C, H, W), [0, 1], dtype and device of x.
        """
        side = x.new_tensor(x.shape[-2:], dtype=torch.float32)[:, None]  # (2, 1): H, W
        luck = torch.rand(5, len(x), generator=generator, device=x.device)  # of each picture: area, aspect, place (2), whether
        area = (self.area[0] + (self.area[1] - self.area[0]) * luck[0]) * x.shape[-2] * x.shape[-1]
        low, high = (math.log(value) for value in self.aspect)
        aspect = (low + (high - low) * luck[1]).exp()
        length = torch.stack([area * aspect, area / aspect]).sqrt().round().minimum(side)  # (2, N): height, width
        first = (luck[2:4] * (side - length + 1)).floor().minimum(side - length)
        down, across = (_between(first[axis], length[axis], torch.arange(x.shape[axis - 2], device=x.device)) for axis in (0, 1))
        erased = down[:, :, None] & across[:, None, :] & (luck[4] < self.p)[:, None, None]
        return torch.where(erased[:, None], self._filling(x), x)

    def extra_repr(self) -> str:  # noqa: D102
        return f"area={self.area}, aspect={self.aspect}, p={self.p}, fill={self.fill}"

    def _filling(self, x: Tensor) -> Tensor:
        """Return what is put in the place of pixels, (C, 1, 1) or (1, 1, 1)."""
        filling = x.new_tensor(self.fill)
        return (filling.mean(0, keepdim=True) if x.shape[1] == 1 else filling)[:, None, None]


def _between(first: Tensor, length: Tensor, places: Tensor) -> Tensor:
    """Return which places lie in each of N spans, (N, places)."""
    return (places >= first[:, None]) & (places < (first + length)[:, None])
