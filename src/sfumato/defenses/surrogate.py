# SPDX-License-Identifier: Apache-2.0
"""PATROL's surrogate: an inversion network of the whole net, which the net learns to mislead.

Source: ding2024patrol, section III-B3 and section IV-A ("Surrogate Inversion Model").
Equations: L_adv = |x - f_adv(f_e(x))|_2, averaged over the batch, Eq. 8 -> distance
Departures: it inverts the last feature map of the whole net, the output of the head where that holds the last convolution (as in
the paper's main setting, four blocks at the edge). It learns from the pictures in their stored order, the head in eval mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sfumato.defenses.adversary import InnerAdversary
from sfumato.errors import ConfigError, CutError
from sfumato.graph import Trace
from sfumato.models.inverter import MirrorDecoder
from sfumato.models.mirror import mirror_layers
from sfumato.modules import probe
from sfumato.split import Split
from sfumato.types import Epoch


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How the surrogate is trained.

    Args:
        period: it is trained before every so many epochs.
        epochs: for how many passes over the pictures.
        batch_size: pictures a step; the paper's is that of the training, 512.
        learning_rate: of its Adam.

    Raises:
        ConfigError: period, epochs or batch_size is not positive.
    """

    period: int = 10
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.period < 1 or self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(
                f"period, epochs and batch_size must be at least 1, got {self.period}, {self.epochs} and {self.batch_size}; "
                "the paper has 10, 1 and 512"
            )


class Surrogate(InnerAdversary):
    """A `MirrorDecoder` of the last feature map of a net.

    Args:
        inversion: how it is trained.

    Raises:
        ConfigError: the learning rate is not positive and finite.
    """

    def __init__(self, inversion: Inversion) -> None:
        self._size = inversion.batch_size
        self._model: Split | None = None
        self._watched: RemovableHandle | None = None
        self._seen: Tensor | None = None
        super().__init__(self._mirror, inversion.learning_rate)

    def face(self, model: Split) -> None:
        """Find the last feature map of a model, unless it is found."""
        if self._model is not None:
            return
        self._model = model
        self._before, last = _until_last_map(model.tail)
        if last is not None:
            self._watched = last.register_forward_hook(self._watch)

    def forget(self) -> None:
        """Drop the network and stop looking at the model."""
        super().forget()
        if self._watched is not None:
            self._watched.remove()
        self._model = self._watched = self._seen = None

    def last_map(self, z: Tensor) -> Tensor:
        """Return the last feature map of the pass through the tail that just ended, or z where the head ends with it."""
        return z if self._seen is None else self._seen

    def learn_epoch(self, epoch: Epoch) -> None:
        """Train for one pass over the pictures."""
        model = self._faced
        for x, z, _ in epoch.batches():
            if self._watched is not None:
                probe(model.tail, z)
            seen = self.last_map(z)
            with torch.enable_grad():
                self.meet(seen, x)
                for part, pictures in zip(seen.split(self._size), x.split(self._size), strict=True):
                    self.learn(distance(self(part), pictures))

    @property
    def _faced(self) -> Split:
        assert self._model is not None  # noqa: S101 -- `face` goes before
        return self._model

    def _watch(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._seen = output

    def _mirror(self, z: Tensor, x: Tensor) -> nn.Module:
        path, seen = nn.Sequential(self._faced.head, *self._before), self._seen
        layers = mirror_layers(path, x)
        self._seen = seen  # the watched layer just ran for another picture
        _, colors, height, width = x.shape
        return MirrorDecoder(layers, (colors, height, width))


def distance(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return Eq. 8: the mean over pictures of the Euclidean distance of all pixels.

    Example:
        >>> distance(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor(2.)
    """
    distances: Tensor = (x_hat - x).flatten(1).norm(dim=1)
    return distances.mean()  # Eq. (8)


def _until_last_map(tail: nn.Module) -> tuple[list[nn.Module], nn.Module | None]:
    """Return what leads to the last feature map of a tail, and the module that gives it; nothing where it has no convolution.

    That is the first module at or after the last convolution whose output is all that goes on from there.
    """
    try:
        trace = Trace(tail)
    except CutError:
        return [], None
    modules = dict(tail.named_modules())
    places = [trace.order[node] for node in trace.graph.nodes if isinstance(modules.get(str(node.target)), nn.Conv2d)]
    clean = (node for node in trace.clean_nodes() if node.op == "call_module" and places and trace.order[node] >= places[-1])
    node = next(clean, None)
    return ([], None) if node is None else ([trace.halves(node)[0]], modules[str(node.target)])
