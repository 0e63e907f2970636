# SPDX-License-Identifier: Apache-2.0
"""What a classifier that never saw a defense names in reconstructions: the attack accuracy of PATROL.

Source: ding2024patrol, section IV-A (fourth metric) and Table VIII.
Equations: none.
Departures: the paper asks a ResNet-50 of ImageNet whether it sees any of 13 kinds of vehicle, which is what `weights` and
`accepts` are for. It found 0 % under every defense, too coarse to compare them. So a recognizer may also learn to name an
attribute of the pictures, such as the driver, and is asked about the pictures as sent too: where it cannot name those, it proves
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato import registry
from sfumato.classifier import build_classifier, train_classifier
from sfumato.data.base import Data, Pictures
from sfumato.errors import ConfigError, nearest
from sfumato.metrics.interval import mean_interval
from sfumato.modules import eval_mode
from sfumato.settings import Optimizer, Train
from sfumato.target import BATCH
from sfumato.types import Images, Recognition, Watch

CLASS = "label"
"""The attribute that is the class of a picture, and no tag."""


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """A classifier that is asked what it sees in reconstructions.

    Without weights it is trained on the undefended pictures of part `train`, those that an adversary may have, to name an
    attribute of each. It does better on reconstructions of pictures that it was trained on than on those of inference time.

    Args:
        attribute: the tag of the pictures to name, such as "driver"; "label" is their class. With `accepts`, a word for reports.
        model: as a target's model is named. The default, without batch norm, loses least on pictures that are blurred.
        options: further arguments of the model.
        epochs: passes over the pictures.
        size: side in pixels that pictures are resized to, bilinear; None leaves them as they are.
        weights: a safetensors file with the weights of a trained classifier.
        classes: how many outputs the trained classifier has; None is as many as the attribute has values.
        accepts: its outputs of which any counts as right, whatever the picture; empty asks for the attribute.

    Raises:
        ConfigError: a value is out of its range, or arguments of a trained classifier come without weights.
        UnknownNameError: no model has that name.

    Example:
        >>> Recognizer(attribute="driver", epochs=5).model
        'lenet5'
    """

    attribute: str = CLASS
    model: str = "lenet5"
    options: Mapping[str, object] = field(default_factory=dict)
    epochs: int = 20
    size: int | None = None
    weights: Path | None = None
    classes: int | None = None
    accepts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if ":" not in self.model:
            registry.entry("models", self.model)
        if self.epochs < 1 or (self.size is not None and self.size < 1):
            raise ConfigError(f"epochs and size must be at least 1, got {self.epochs} and {self.size}")
        if self.weights is None and (self.classes is not None or self.accepts):
            raise ConfigError("classes and accepts are those of a trained classifier; give its weights, or leave them out")
        if self.accepts and not (self.classes and min(self.accepts) >= 0 and max(self.accepts) < self.classes):
            raise ConfigError(f"accepts must be outputs from 0 to classes - 1, got {self.accepts} and classes = {self.classes}")
        if len(set(self.accepts)) < len(self.accepts):
            raise ConfigError(f"accepts must be different outputs, got {self.accepts}")


@dataclass(frozen=True)
class Witness:
    """A classifier that says what it sees.

    Attributes:
        recognizer: what it is.
        network: from x (N, C, H, W) in [0, 1] to logits.
    """

    recognizer: Recognizer
    network: nn.Module

    def __call__(self, x_hat: Images, x: Images, pictures: Pictures, generator: torch.Generator) -> Recognition:
        """Say how much is recognized.

        Args:
            x_hat: reconstructions, (N, C, H, W), [0, 1].
            x: the pictures as sent, the same shape, on the same device.
            pictures: the same, with their tags.
            generator: of the intervals, on the CPU.
        """
        accepts, attribute = self.recognizer.accepts, self.recognizer.attribute
        if accepts:
            assert self.recognizer.classes is not None  # noqa: S101 -- `Recognizer` asks for it
            wanted, chance = torch.tensor(accepts)[:, None], len(accepts) / self.recognizer.classes
        else:
            values = attribute_of(pictures, attribute)
            wanted, chance = values[None], values.unique(return_counts=True)[1].max().item() / len(values)
        rebuilt, sent = ((self._names(images) == wanted).any(0).float() for images in (x_hat, x))
        return Recognition(
            of="class" if attribute == CLASS else attribute,
            accuracy=mean_interval(rebuilt, generator),
            chance=chance,
            on_real=mean_interval(sent, generator),
        )

    @torch.no_grad()
    def _names(self, x: Images) -> Tensor:
        """Return the output that is highest for each picture, (N,), int64, on the CPU."""
        with eval_mode(self.network):
            return torch.cat([self.network(some).argmax(1) for some in x.split(BATCH)]).cpu()


def prepare(recognizer: Recognizer, data: Data, *, device: torch.device, watch: Watch | None = None) -> Witness:
    """Make a recognizer's classifier ready.

    Args:
        recognizer: what it is.
        data: the pictures; part `train` is trained on.
        device: where it is trained and asked.
        watch: told of its training.

    Raises:
        ConfigError: the pictures have no such attribute, or one that cannot be learned.
        ModelError: the model cannot take such pictures.
        WeightsError: the weights are not those of the model.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
        >>> witness, test = prepare(sf.Recognizer(epochs=1), data, device=torch.device("cpu")), data.part("test")
        >>> x = test.read(torch.arange(len(test))) / 255
        >>> seen = witness(x, x, test, torch.Generator())
        >>> seen.of, seen.chance, seen.accuracy.value == seen.on_real.value
        ('class', 0.5, True)
    """
    witness = assemble(recognizer, data, device=device)
    if recognizer.weights is None:
        learn(witness, data, watch=watch)
    return witness


def assemble(recognizer: Recognizer, data: Data, *, device: torch.device) -> Witness:
    """Make a recognizer's classifier, with the weights that it is given or yet to be trained; raises what `prepare` does."""
    named = 0 if recognizer.accepts else _values(data, recognizer.attribute)
    network = build_classifier(
        recognizer.model,
        classes=recognizer.classes or named,
        shape=data.shape,
        options=recognizer.options,
        size=recognizer.size,
        weights=recognizer.weights,
    )
    return Witness(recognizer, network.to(device).eval())


def learn(witness: Witness, data: Data, *, watch: Watch | None = None) -> None:
    """Train a recognizer's classifier in place, with the loop that trains targets."""
    train = data.part("train")
    named = train.relabeled(attribute_of(train, witness.recognizer.attribute), {})
    adam = Optimizer(name="adam", learning_rate=2e-3, weight_decay=0)
    settings = Train(epochs=witness.recognizer.epochs, batch_size=32, optimizer=adam)
    train_classifier(witness.network, named, settings, name=data.name, watch=watch)


def attribute_of(pictures: Pictures, attribute: str) -> Tensor:
    """Return an attribute of each picture, (N,), int64, on the CPU.

    Raises:
        ConfigError: the pictures have no such tag.
    """
    if attribute == CLASS:
        return pictures.labels
    if attribute not in pictures.tags:
        known = [CLASS, *pictures.tags]
        raise ConfigError(f"the pictures have no tag '{attribute}'{nearest(attribute, known)}; known: {', '.join(known)}")
    return pictures.tags[attribute]


def _values(data: Data, attribute: str) -> int:
    """Return how many values an attribute can have, if every part has it and a classifier can name them."""
    values = {name: attribute_of(part, attribute) for name, part in data.parts.items()}["train"]
    count, least = len(values.unique()), int(values.min())
    if count < 2 or least < 0:
        raise ConfigError(
            f"'{attribute}' must have two values or more in part train, numbered from 0; found {count}, from {least} on; name "
            "another attribute, or number its values"
        )
    return int(values.max()) + 1
