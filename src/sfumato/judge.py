# SPDX-License-Identifier: Apache-2.0
"""Who says whether a picture shows the class that it was made for: a classifier of another architecture than the target's.

An attack is measured by how well it does with somebody else: the target itself is sure of whatever was searched until it was
sure. So the audit trains an evaluator of its own on the private pictures, and always says how well that one names private
pictures that it did not see: below a gate, nothing is concluded from what it says of reconstructions.

Source: ho2024tldmi, appendix D.2 (attack accuracy, the penultimate layer as the embedding).
Equations: none.
Departures: see `sfumato.evaluator`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfumato.classifier import Resize, build_classifier, train_classifier
from sfumato.data.augment import Augment
from sfumato.data.base import Data, Pictures
from sfumato.data.loader import batches
from sfumato.errors import ConfigError, ModelError
from sfumato.evaluator import Evaluator
from sfumato.files import load_into, read_tensors
from sfumato.inversion_types import EvaluatorFacts
from sfumato.metrics.identity import class_interval, named_within
from sfumato.models.embedding import captured, last_linear
from sfumato.models.resolve import resolve
from sfumato.modules import device_of, eval_mode
from sfumato.seeds import ambient, generator
from sfumato.settings import Optimizer, Train
from sfumato.target import BATCH, Target
from sfumato.types import Images, Logits, Watch


class Judgment(NamedTuple):
    """What a judge makes of pictures, on the CPU: logits (N, K), embedding (N, E), and in the user's own, (N, F), or None."""

    logits: Logits
    embedding: Tensor
    face: Tensor | None


@dataclass(frozen=True)
class Judge:
    """An evaluator at work.

    Attributes:
        evaluator: what it is.
        network: from x (N, C, H, W) in [0, 1] to logits.
        shape: (C, H, W) of the pictures.
        face: from x to an embedding of the user's own, or None.
    """

    evaluator: Evaluator
    network: nn.Module
    shape: tuple[int, int, int]
    face: nn.Module | None = None

    def __call__(self, x: Images) -> Judgment:
        """Look at pictures.

        Args:
            x: (N, C, H, W), [0, 1], on any device, N at least 1.
        """
        return self._look(x.split(BATCH))

    def read(self, pictures: Pictures) -> Judgment:
        """Look at stored pictures, at least one."""
        device = device_of(self.network)
        return self._look(x for x, _ in batches(pictures.to(device), size=BATCH, device=device))

    def facts(self, data: Data) -> EvaluatorFacts:
        """Measure how well it names private pictures that it was not trained on, those of part `test`."""
        held = data.part("test")
        named = named_within(self.read(held).logits, held.labels)
        return EvaluatorFacts(
            model=self.evaluator.model,
            accuracy=class_interval(named, held.labels, generator(0, "evaluator")),
            gate=self.evaluator.gate,
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
        )

    @cached_property
    def _last(self) -> nn.Linear:
        return last_linear(self.network, torch.zeros(1, *self.shape, device=device_of(self.network)))

    @torch.no_grad()
    def _look(self, parts: Iterable[Images]) -> Judgment:
        device, found = device_of(self.network), []
        with eval_mode(self.network), captured(self._last) as given:
            for some in parts:
                x = some.to(device)
                logits = self.network(x)
                found.append((logits.cpu(), given[0].cpu(), self._embed(x)))
        logits, embedding, faces = zip(*found, strict=True)
        return Judgment(torch.cat(logits), torch.cat(embedding), None if self.face is None else torch.cat(faces))

    def _embed(self, x: Images) -> Tensor | None:
        """Embed pictures by the user's own network."""
        if self.face is None:
            return None
        with eval_mode(self.face):
            embedding = self.face(x)
        if not isinstance(embedding, Tensor) or embedding.ndim != 2 or len(embedding) != len(x):
            found = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise ModelError(
                f"{self.evaluator.face} must embed {len(x)} pictures as ({len(x)}, E), found {found}; return one vector a picture"
            )
        return embedding.cpu()


def prepare_judge(
    evaluator: Evaluator,
    data: Data,
    target: nn.Module,
    *,
    known_as: str | None = None,
    device: torch.device,
    watch: Watch | None = None,
) -> Judge:
    """Make an evaluator ready.

    Args:
        evaluator: what it is.
        data: the pictures; `private` is trained on.
        target: who is attacked, whose architecture must be another.
        known_as: name of the target's model, where it is known.
        device: where it is trained and asked.
        watch: told of its training.

    Raises:
        ConfigError: the evaluator is of the target's own architecture, or has options that its model does not take.
        ModelError: the model cannot take such pictures, or has no embedding.
        WeightsError: weights are not those of the model.
        TrainingError: the loss stopped being finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.partition(sf.load_data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2)))
        >>> target = sf.build_model("cnn4", classes=2, shape=(1, 8, 8))
        >>> judge = prepare_judge(Evaluator(model="lenet5", epochs=1), data, target, device=torch.device("cpu"))
        >>> judge(torch.zeros(3, 1, 8, 8)).logits.shape, judge.facts(data).trusted
        (torch.Size([3, 2]), False)
    """
    judge = assemble_judge(evaluator, data, target, known_as=known_as, device=device)
    if evaluator.weights is None:
        teach_judge(judge, data, watch=watch)
    return judge


def assemble_judge(
    evaluator: Evaluator, data: Data, target: nn.Module, *, known_as: str | None = None, device: torch.device
) -> Judge:
    """Make an evaluator's networks, with the weights that they are given or yet to be trained; raises as `prepare_judge` does."""
    network = build_classifier(
        evaluator.model,
        classes=len(data.classes),
        shape=data.shape,
        options=evaluator.options,
        size=evaluator.size,
        weights=evaluator.weights,
    )
    if known_as == evaluator.model or _shapes(network) == _shapes(target):
        raise ConfigError(
            f"the evaluator must be of another architecture than the target, found {evaluator.model} for both; name another "
            "model for it, such as vgg11 or resnet18"
        )
    face = None if evaluator.face is None else _face(evaluator.face, evaluator, data).to(device).eval()
    judge = Judge(evaluator, network.to(device).eval(), data.shape, face)
    _ = judge._last  # a network without an embedding is refused before it is trained
    return judge


def teach_judge(judge: Judge, data: Data, *, watch: Watch | None = None) -> None:
    """Train an evaluator's classifier in place on part `private`."""
    evaluator = judge.evaluator
    settings = Train(
        epochs=evaluator.epochs,
        batch_size=evaluator.batch_size,
        optimizer=Optimizer(name="adam", learning_rate=evaluator.learning_rate, weight_decay=0),
        augment=Augment(crop=0, flip=evaluator.flip, rotation=0.0),
    )
    train_classifier(judge.network, data.part("private"), settings, name=data.name, watch=watch)


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of a model's weights in order, without its defense's: one architecture, whatever its names."""
    body = model.split if isinstance(model, Target) else model
    return [tuple(parameter.shape) for parameter in body.parameters()]


def _face(name: str, evaluator: Evaluator, data: Data) -> nn.Module:
    """Make the user's own embedding."""
    channels, height, width = data.shape
    size = (evaluator.face_size or height, evaluator.face_size or width)
    with ambient(0, "face"):
        network = resolve(name, classes=len(data.classes), shape=(channels, *size))
    if evaluator.face_weights is not None:
        load_into(network, read_tensors(evaluator.face_weights)[0], source=evaluator.face_weights)
    return nn.Sequential(Resize(size), network)
