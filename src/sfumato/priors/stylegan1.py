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

from torch import Tensor, nn

from sfumato.errors import WeightsError
from sfumato.files import load_into, read_tensors
from sfumato.models.stylegan1 import StyleGan1
from sfumato.priors.base import Prior
from sfumato.priors.stylegan import Form, unloaded

_SECOND = re.compile(r"synthesis\.layer(\d*[13579])\.weight")
_FORM = Form("StyleGAN", StyleGan1, "mapping.dense", "synthesis.layer1", lambda side: f"synthesis.output{side.bit_length() - 3}")
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
    channels = _channels(tensors)
    made = unloaded(_FORM, tensors, channels, source=source, image_shape=image_shape, crop=crop)
    # The layers to smaller pictures, which growing needed, are left behind.
    last = str(len(channels) - 1)
    kept = {name: value for name, value in tensors.items() if not (found := _PIXELS.fullmatch(name)) or found[1] == last}
    network = made.generator.get_submodule("network")
    load_into(network, kept, source=source)
    _require_grown(network, source)
    return made


def _channels(tensors: Mapping[str, Tensor]) -> dict[int, int]:
    """Return the channels of each size, which the second of its two layers has."""
    return {4 << int(found[1]) // 2: len(value) for name, value in tensors.items() if (found := _SECOND.fullmatch(name))}


def _require_grown(network: nn.Module, source: str | Path) -> None:
    """Raise where a generator was saved before it made pictures of its last size."""
    left = float(network.get_buffer("synthesis.lod"))
    if left != 0:
        raise WeightsError(
            f"expected in {source} a StyleGAN that has grown to its full size, found one with {left:g} doublings to go "
            "(synthesis.lod); take a file from the end of its training"
        )
