# SPDX-License-Identifier: Apache-2.0
"""Many networks of one kind trained as one: what a GPU does with small networks, where a loop would wait for launches.

Their weights are stacked, and `torch.func` maps the forward pass over them; the sum of their losses has each model's own
gradient. On a CPU this is slower than a loop (see `sfumato.parallel` for what is faster there).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Pictures
from sfumato.data.loader import as_images, divide, shuffled
from sfumato.defenses.compose import Compose
from sfumato.errors import ConfigError, TrainingError
from sfumato.seeds import generator
from sfumato.settings import Train
from sfumato.target import Target
from sfumato.types import Watch


@dataclass(frozen=True)
class Network:
    """One of the networks.

    Attributes:
        target: as `assemble` made it, without a defense; trained in place.
        rows: (n,), int64: its pictures' places among all; n is the same for every network.
        seed: of its order of pictures.
    """

    target: Target
    rows: Tensor
    seed: int


def fit_together(
    networks: Sequence[Network], pictures: Pictures, settings: Train, *, watch: Watch | None = None
) -> list[tuple[EpochFacts, ...]]:
    """Train networks in place, as `fit` does one after another for the task of naming classes.

    The order of the pictures and their augmentation are those of `fit` for the same seed, so that the weights differ by rounding
    alone, whoever else is in the group.

    Args:
        networks: of one architecture, on one device, without defenses.
        pictures: what they are trained on parts of.
        settings: how to train, to its `stop` where it has one; `finetune` is 0, and precision "float32".
        watch: told of each step.

    Returns:
        What each epoch came to, for each network.

    Raises:
        ConfigError: a network has a defense or dropout, they train on different numbers of pictures, or the settings ask for what
            is not done here.
        RuntimeError: what the network does cannot be batched, or there is not memory enough.
        TrainingError: a loss stopped being finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(10, 1, 8, 8), torch.arange(10) % 2))
        >>> nets = [sf.whole(sf.build_model("lenet5", classes=2, shape=(1, 8, 8), seed=seed)) for seed in (0, 1)]
        >>> networks = [Network(Target(net, sf.Compose()), torch.arange(8), seed) for seed, net in enumerate(nets)]
        >>> len(fit_together(networks, data.part("private"), sf.Train(epochs=2))[0])
        2
    """
    _require(networks, settings)
    return _Group(networks, pictures, settings).run(watch)


def batches_well(target: Target, settings: Train) -> bool:
    """Return whether a target can be trained together with others of its kind."""
    return not _refusals(target, settings)


class _Group:
    """The stacked weights of the networks, and one optimizer for all."""

    def __init__(self, networks: Sequence[Network], pictures: Pictures, settings: Train) -> None:
        self.networks, self.settings = networks, settings
        self.device = networks[0].target.device
        self.pictures = pictures.to(self.device)
        self.labels = pictures.labels.to(self.device)
        self.rows = torch.stack([network.rows for network in networks])
        nets: list[nn.Module] = [network.target.split.train() for network in networks]
        self.base = copy.deepcopy(nets[0]).to("meta")  # its code alone counts
        self.parameters, self.buffers = stack_module_state(nets)
        self.optimizer = settings.optimizer.build(self.parameters.values())
        self.forward = vmap(self._loss)

    def run(self, watch: Watch | None) -> list[tuple[EpochFacts, ...]]:
        history = [self._epoch(number, watch) for number in range(self.settings.total)]
        with torch.no_grad():
            for place, network in enumerate(self.networks):
                own = {**dict(network.target.split.named_parameters()), **dict(network.target.split.named_buffers())}
                for name, stacked in {**self.parameters, **self.buffers}.items():
                    own[name].copy_(stacked[place])
                network.target.eval()
        return [tuple(epoch[place] for epoch in history) for place in range(len(self.networks))]

    def _epoch(self, number: int, watch: Watch | None) -> list[EpochFacts]:
        start, settings = time.perf_counter(), self.settings
        orders = [shuffled(self.rows.shape[1], generator(network.seed, "order", number)) for network in self.networks]
        order = torch.stack([rows[one] for rows, one in zip(self.rows, orders, strict=True)], 1)  # (n, K): batches are rows
        augment = [generator(network.seed, "augment", number, 0, device=self.device) for network in self.networks]
        parts = divide(order, settings.batch_size)
        losses, correct, rate = [], torch.zeros(len(self.networks), device=self.device), 0.0
        for index, part in enumerate(parts):
            rate = settings.learning_rate(number + (index + 1) / (len(parts) + 1))
            loss, hits = self._step(part.T.to(self.device), rate, augment)
            losses.append(loss)
            correct += hits
            if watch is not None:
                watch(number * len(parts) + index + 1, settings.total * len(parts))
        mean = torch.stack(losses).mean(0).tolist()
        bad = [place for place, value in enumerate(mean) if not math.isfinite(value)]
        if bad:
            raise TrainingError(f"the loss of network {bad[0]} is {mean[bad[0]]} in epoch {number}; lower the learning rate")
        shares, seconds = (correct / self.rows.shape[1]).tolist(), time.perf_counter() - start
        return [
            EpochFacts(number=number, loss=loss, accuracy=share, learning_rate=rate, seconds=seconds / len(mean))
            for loss, share in zip(mean, shares, strict=True)
        ]

    def _step(self, index: Tensor, rate: float, augment: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Make one step of every network; return their losses and numbers of right answers, (K,) each."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x = as_images(self.pictures.read(index.flatten()), self.device)
        x = x.view(*index.shape, *x.shape[1:])
        if not self.settings.augment.idle:
            x = torch.stack([self.settings.augment(own, stream) for own, stream in zip(x, augment, strict=True)])
        losses, hits = self.forward(self.parameters, self.buffers, x, self.labels[index])
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach(), hits

    def _loss(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = functional_call(self.base, (dict(parameters), dict(buffers)), (x,))
        return F.cross_entropy(logits.float(), y), (logits.detach().argmax(1) == y).sum()


def _refusals(target: Target, settings: Train) -> list[str]:
    """Say what of a target or of its settings is not done here."""
    found = []
    if not isinstance(target.defense, Compose) or len(target.defense):
        found.append(f"the defense {target.defense}")
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in target.split.modules()):
        found.append("dropout, which would draw otherwise in company")
    if settings.finetune:
        found.append(f"finetune = {settings.finetune}")
    if settings.precision != "float32":
        found.append(f"precision = {settings.precision!r}")
    return found


def _require(networks: Sequence[Network], settings: Train) -> None:
    sizes = {len(network.rows) for network in networks}
    if len(sizes) != 1:
        raise ConfigError(f"networks that train together need as many pictures each, got {sorted(sizes)}; train them one by one")
    refused = [reason for network in networks for reason in _refusals(network.target, settings)]
    if refused:
        raise ConfigError(f"networks that train together cannot have {refused[0]}; train them one by one")
