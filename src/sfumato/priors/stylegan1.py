# SPDX-License-Identifier: Apache-2.0
"""The weights of the first StyleGAN that a user converted once to safetensors, as a prior of kind "style".

NVIDIA publishes them as pickles, GenForce as files of PyTorch, which are pickles too. None is read here: docs/priors.md has the
few lines that a user runs in GenForce's own repository.

Source: karras2019stylegan.
Departures: those of `sfumato.models.stylegan1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sfumato.errors import WeightsError
from sfumato.files import load_into, read_tensors
from sfumato.models.stylegan1 import StyleGan1
from sfumato.priors.base import Prior
from sfumato.priors.stylegan import require_size

_SECOND = re.compile(r"synthesis\.layer(\d*[13579])\.weight")
_PIXELS = re.compile(r"synthesis\.output(\d+)\.(?:weight|bias)")


def is_stylegan1(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of GenForce's first StyleGAN.

    Example:
        >>> is_stylegan1({"synthesis.layer0.const": Tensor()}), is_stylegan1({"synthesis.b4.const": Tensor()})
        (True, False)
    """
    return "synthesis.layer0.const" in tensors


def load_stylegan1(path: str | Path, *, image_shape: tuple[int, int, int] | None = None, crop: int | None = None) -> Prior:
    """Read the weights of the first StyleGAN, of any size and any number of channels.

    Args:
        path: a safetensors file with the state dict of GenForce's generator, "generator_smooth".
        image_shape: (C, H, W) of the pictures to make, square; None is the generator's own.
        crop: side of the middle of its pictures that is kept before they are resized; None keeps all.

    Returns:
        A prior of kind "style" without a critic, in eval mode.

    Raises:
        WeightsError: the file is damaged, or its weights are not those of such a generator, fully grown.
        ConfigError: the generator makes pictures of other channels, or fewer pixels than `crop`.
    """
    return stylegan1_prior(read_tensors(path)[0], source=path, image_shape=image_shape, crop=crop)


def stylegan1_prior(
    tensors: Mapping[str, Tensor],
    *,
    source: str | Path,
    image_shape: tuple[int, int, int] | None = None,
    crop: int | None = None,
) -> Prior:
    """Make a prior of the weights of the first StyleGAN; `load_stylegan1` says more.

    Args:
        tensors: by the names of GenForce's code.
        source: where they come from, for messages.
        image_shape: as there.
        crop: as there.
    """
    if "mapping.label_weight" in tensors:
        raise WeightsError(f"{source} holds a StyleGAN that is told a class, expected one without classes; take another file")
    channels, first = _channels(tensors), tensors.get("mapping.dense0.weight")
    if not channels or sorted(channels) != [4 << place for place in range(len(channels))] or first is None or first.ndim != 2:
        raise WeightsError(
            f"expected in {source} the weights of StyleGAN's generator, mapping.dense0.weight and synthesis.layer1.weight and "
            f"so on, found sizes {sorted(channels)}; docs/priors.md says how to convert them"
        )
    side, last = max(channels), str(len(channels) - 1)
    pixels = tensors.get(f"synthesis.output{last}.weight")
    colors = 3 if pixels is None else len(pixels)
    shape = image_shape or (colors, crop or side, crop or side)
    require_size(source, side, colors, shape, crop)
    made = StyleGan1(
        channels,
        latent=first.shape[1],
        styles=first.shape[0],
        depth=sum(re.fullmatch(r"mapping\.dense\d+\.weight", name) is not None for name in tensors),
        colors=colors,
        crop=crop,
        size=shape[1],
    )
    # The layers to smaller pictures, which growing needed, are left behind.
    kept = {name: value for name, value in tensors.items() if not (found := _PIXELS.fullmatch(name)) or found[1] == last}
    load_into(made.network, kept, source=source)
    _require_grown(made, source)
    return Prior("style", made, None, latent=first.shape[1], image_shape=shape).eval()


def _channels(tensors: Mapping[str, Tensor]) -> dict[int, int]:
    """Return the channels of each size, which the second of its two layers has."""
    return {4 << int(found[1]) // 2: len(value) for name, value in tensors.items() if (found := _SECOND.fullmatch(name))}


def _require_grown(made: StyleGan1, source: str | Path) -> None:
    """Raise where a generator was saved before it made pictures of its last size."""
    left = float(made.network.get_buffer("synthesis.lod"))
    if left != 0:
        raise WeightsError(
            f"expected in {source} a StyleGAN that has grown to its full size, found one with {left:g} doublings to go "
            "(synthesis.lod); take a file from the end of its training"
        )
