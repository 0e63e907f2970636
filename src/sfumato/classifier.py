# SPDX-License-Identifier: Apache-2.0
"""Networks of an audit's own, which look at pictures and protect nobody: made, loaded, and trained by the loop of the targets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from sfumato.data.base import Data, Pictures
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.files import load_into, read_tensors
from sfumato.models.resolve import build_model
from sfumato.settings import Train
from sfumato.split import Split
from sfumato.target import Target
from sfumato.train import fit
from sfumato.types import Images, Watch

_SEED = 0  # one network judges every audit of the same pictures, whatever their seeds


def build_classifier(
    model: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    options: Mapping[str, object] | None = None,
    size: int | None = None,
    weights: Path | None = None,
) -> nn.Module:
    """Make a network that takes pictures of any size.

    Args:
        model: as a target's model is named.
        classes: how many outputs it has.
        shape: (C, H, W) of the pictures.
        options: further arguments of the model.
        size: side in pixels that pictures are resized to, bilinear; None leaves them as they are.
        weights: a safetensors file with the weights of a trained network; None draws them.

    Returns:
        `resize` and `classifier`, from x (N, C, H, W) in [0, 1] to (N, classes).

    Raises:
        UnknownNameError: no model has that name.
        ConfigError: options that the model does not take.
        ModelError: the model cannot take such pictures.
        WeightsError: the weights are not those of the model.

    Example:
        >>> network = build_classifier("lenet5", classes=3, shape=(1, 8, 8), size=28)
        >>> network(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """
    taken = (shape[0], size or shape[1], size or shape[2])
    network = build_model(model, classes=classes, shape=taken, options=options, seed=_SEED)
    if weights is not None:
        _load(network, weights)
    return nn.Sequential(OrderedDict(resize=Resize(taken[1:]), classifier=network))


def train_classifier(
    network: nn.Module,
    pictures: Pictures,
    settings: Train,
    *,
    criterion: Defense | None = None,
    name: str = "pictures",
    watch: Watch | None = None,
) -> None:
    """Train a network in place to name the labels of pictures, with the loop that trains targets.

    Args:
        network: from x to logits, on any device.
        pictures: with labels from 0.
        settings: how to train.
        criterion: replaces the task loss.
        name: of the pictures, for messages.
        watch: told of each step.

    Raises:
        TrainingError: the loss stopped being finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> network = build_classifier("lenet5", classes=2, shape=(1, 8, 8))
        >>> train_classifier(network, data.part("train"), Train(epochs=1, batch_size=8))
        >>> network.training
        False
    """
    classes = tuple(str(value) for value in range(int(pictures.labels.max()) + 1))
    lesson = Data(name=name, classes=classes, parts={"train": pictures, "private": pictures})
    defense = Compose() if criterion is None else Compose(criterion)
    fit(Target(Split(network, nn.Identity()), defense), lesson, settings, seed=_SEED, watch=watch)


class Resize(nn.Module):
    """Resize pictures to a height and a width, bilinear.

    Args:
        size: (H, W).

    Example:
        >>> Resize((4, 4))(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 4, 4])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Images) -> Images:
        """Return x, (N, C, H, W), in the new size; in its own it stays as it is."""
        if x.shape[-2:] == torch.Size(self.size):
            return x
        return F.interpolate(x, self.size, mode="bilinear", antialias=True)


def _load(network: nn.Module, weights: Path) -> None:
    """Load the weights of a trained network."""
    tensors = read_tensors(weights)[0]
    backbone = getattr(network, "backbone", None)
    # A file of timm's own knows nothing of the normalization that is put before its model.
    bare = isinstance(backbone, nn.Module) and not any(name.startswith("backbone.") for name in tensors)
    load_into(backbone if bare else network, tensors, source=weights)  # type: ignore[arg-type]
