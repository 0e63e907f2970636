# SPDX-License-Identifier: Apache-2.0
"""The weights of StyleGAN2 and StyleGAN2-ADA that a user converted once to safetensors, as a prior of kind "style".

The published files are pickles, which run what is in them. None is read here: docs/priors.md has the few lines that a user runs
in NVIDIA's own repository, where such a file is at home.

Source: karras2020ada (the names and shapes of its weights).
Departures: those of `sfumato.models.stylegan2`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sfumato.errors import ConfigError, WeightsError
from sfumato.files import load_into, read_tensors
from sfumato.models.stylegan2 import StyleGan2
from sfumato.priors.base import Prior

_SIZE = re.compile(r"synthesis\.b(\d+)\.conv1\.weight")


def is_stylegan2(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of StyleGAN2's generator.

    Example:
        >>> is_stylegan2({"synthesis.b4.const": Tensor()}), is_stylegan2({"generator.start": Tensor()})
        (True, False)
    """
    return "synthesis.b4.const" in tensors


def load_stylegan2(path: str | Path, *, image_shape: tuple[int, int, int] | None = None, crop: int | None = None) -> Prior:
    """Read the weights of StyleGAN2, of any size and any number of channels.

    Args:
        path: a safetensors file with the state dict of the generator, "G_ema".
        image_shape: (C, H, W) of the pictures to make, square; None is the generator's own.
        crop: side of the middle of its pictures that is kept before they are resized; None keeps all. PPA keeps 800 of 1,024.

    Returns:
        A prior of kind "style" without a critic, in eval mode.

    Raises:
        WeightsError: the file is damaged, or its weights are not those of such a generator.
        ConfigError: the generator makes pictures of other channels, or fewer pixels than `crop`.
    """
    return stylegan2_prior(read_tensors(path)[0], source=path, image_shape=image_shape, crop=crop)


def stylegan2_prior(
    tensors: Mapping[str, Tensor],
    *,
    source: str | Path,
    image_shape: tuple[int, int, int] | None = None,
    crop: int | None = None,
) -> Prior:
    """Make a prior of the weights of StyleGAN2; `load_stylegan2` says more.

    Args:
        tensors: by the names of NVIDIA's code.
        source: where they come from, for messages.
        image_shape: as there.
        crop: as there.
    """
    if "mapping.embed.weight" in tensors:
        raise WeightsError(f"{source} holds a StyleGAN2 that is told a class, expected one without classes; take another file")
    channels = {int(found[1]): len(value) for name, value in tensors.items() if (found := _SIZE.fullmatch(name))}
    made = unloaded(_FORM, tensors, channels, source=source, image_shape=image_shape, crop=crop)
    load_into(made.generator.get_submodule("network"), tensors, source=source)
    return made


@dataclass(frozen=True)
class Form:
    """What the weights of a published generator are called.

    Args:
        name: of the generator.
        make: makes it, untrained.
        dense: the layers of its mapping, without their numbers.
        second: the second layer of the smallest size.
        pixels: returns the layer that makes pictures of a size.
    """

    name: str
    make: Callable[..., nn.Module]
    dense: str
    second: str
    pixels: Callable[[int], str]


_FORM = Form("StyleGAN2", StyleGan2, "mapping.fc", "synthesis.b4.conv1", "synthesis.b{}.torgb".format)


def unloaded(
    form: Form,
    tensors: Mapping[str, Tensor],
    channels: Mapping[int, int],
    *,
    source: str | Path,
    image_shape: tuple[int, int, int] | None,
    crop: int | None,
) -> Prior:
    """Make a prior of the sizes that weights have, without the weights.

    Args:
        form: what they are called.
        tensors: the weights, by name.
        channels: of each size of the synthesis.
        source: where they come from, for messages.
        image_shape: (C, H, W) of the pictures to make; None is the generator's own.
        crop: side of the middle of its pictures that is kept; None keeps all.

    Raises:
        WeightsError: the weights are not those of such a generator.
        ConfigError: see `require_size`.
    """
    first = tensors.get(f"{form.dense}0.weight")
    if not channels or sorted(channels) != [4 << place for place in range(len(channels))] or first is None or first.ndim != 2:
        raise WeightsError(
            f"expected in {source} the weights of {form.name}'s generator, {form.dense}0.weight and {form.second}.weight and "
            f"so on, found sizes {sorted(channels)}; docs/priors.md says how to convert them"
        )
    side = max(channels)
    pixels = tensors.get(f"{form.pixels(side)}.weight")
    colors = 3 if pixels is None else len(pixels)
    shape = image_shape or (colors, crop or side, crop or side)
    require_size(source, side, colors, shape, crop)
    styles, latent = first.shape
    dense = re.compile(re.escape(form.dense) + r"\d+\.weight")
    depth = sum(dense.fullmatch(name) is not None for name in tensors)
    made = form.make(channels, latent=latent, styles=styles, depth=depth, colors=colors, crop=crop, size=shape[1])
    return Prior("style", made, None, latent=latent, image_shape=shape).eval()


def require_size(source: str | Path, side: int, colors: int, shape: tuple[int, int, int], crop: int | None) -> None:
    """Raise unless a published generator's pictures can be brought to a shape.

    Args:
        source: where it comes from, for messages.
        side: of its pictures, in pixels.
        colors: channels of its pictures.
        shape: (C, H, W) of the pictures to make.
        crop: side of the middle that is kept; None keeps all.

    Raises:
        ConfigError: the shape is not square or has other channels, or `crop` is outside 1 to `side`.

    Example:
        >>> require_size("ffhq.safetensors", 1024, 3, (3, 224, 224), 800)
    """
    if shape[0] != colors or shape[1] != shape[2]:
        raise ConfigError(
            f"{source} makes square pictures of {colors} channels, but {shape} are asked for; take another generator"
        )
    if crop is not None and not 0 < crop <= side:
        raise ConfigError(f"crop must be 1 to {side}, the side of the pictures of {source}, got {crop}")
