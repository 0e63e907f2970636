# SPDX-License-Identifier: Apache-2.0
"""The adversary inside a defense: a network that attacks the model while it trains, with an optimizer of its own.

It is no module of the defense: the loop does not update it, no state dict holds it, and nothing of it is deployed. A defense that
has adversaries is an `Adversarial`, which keeps them in checkpoints and drops them at the end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sfumato.defenses.base import Defense
from sfumato.errors import ConfigError
from sfumato.files import under
from sfumato.models.inverter import ResidualDecoder, check_size
from sfumato.modules import eval_mode


class InnerAdversary:
    """A network and its Adam, built when they first meet a batch: until then other defenses may change the shape of z.

    In a run of several processes each has its own, trained on its share of the pictures; a checkpoint keeps that of the first.

    Args:
        build: makes the network for tensors like those that `meet` is given; takes no more of them than shapes.
        learning_rate: of Adam.

    Raises:
        ConfigError: the learning rate is not positive and finite.

    Example:
        >>> adversary = InnerAdversary(lambda z: nn.Linear(z.shape[1], 3), learning_rate=1e-3)
        >>> adversary.meet(torch.zeros(5, 2))
        >>> adversary(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(self, build: Callable[..., nn.Module], learning_rate: float) -> None:
        if not 0 < learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be > 0 and finite, got {learning_rate}; 0.001 is the papers'")
        self._build = build
        self._learning_rate = learning_rate
        self.forget()

    def forget(self) -> None:
        """Drop the network and what its training must remember."""
        self._met: tuple[nn.Module, torch.optim.Adam] | None = None
        self._recalled: Mapping[str, Tensor] = {}

    def meet(self, *examples: Tensor) -> None:
        """Build the network, unless it is there, on the device of the first example and from the ambient stream."""
        if self._met is not None:
            return
        recalled, device = self._recalled, examples[0].device
        # Weights that are about to be replaced must draw no random numbers: a run that resumes goes on to the same bits.
        with torch.device("meta" if recalled else "cpu"):
            network = self._build(*examples)
        if recalled:
            network.load_state_dict(under(recalled, "network."), assign=True)
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters(), lr=self._learning_rate)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in under(recalled, "optimizer.").items():
            place, key = name.split(".", 1)
            state.setdefault(int(place), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self._met, self._recalled = (network, optimizer), {}

    @property
    def fresh(self) -> bool:
        """Whether there is no network yet, and none to recall."""
        return self._met is None and not self._recalled

    def __call__(self, *z: Tensor) -> Tensor:
        """Return the network's answer in train mode, with gradient into its weights and into what it is given."""
        answer: Tensor = self._network(*(given.float() for given in z))
        return answer

    def frozen(self, *z: Tensor) -> Tensor:
        """Return the network's answer in eval mode, with gradient into what it is given alone."""
        network = self._network
        with eval_mode(network):
            weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
            answer: Tensor = functional_call(network, weights, tuple(given.float() for given in z))
        return answer

    def learn(self, loss: Tensor, *, clip: float = math.inf) -> None:
        """Make one step of Adam down a loss of the network's answers, by a gradient of at most a given length."""
        loss.backward()
        self.update(clip=clip)

    def update(self, divisor: float = 1.0, *, clip: float = math.inf) -> None:
        """Make one step of Adam with the gradients that a backward pass left in the weights, divided, and clear them.

        Args:
            divisor: what the gradients are divided by.
            clip: longest gradient of all weights together; a longer one is scaled down.
        """
        network, optimizer = self._required()
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(divisor)
        if clip < math.inf:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def memory(self) -> dict[str, Tensor]:
        """Return the weights and the state of Adam by name, for a checkpoint."""
        if self._met is None:
            return dict(self._recalled)
        network, optimizer = self._met
        state = optimizer.state_dict()["state"]
        return {f"network.{name}": value for name, value in network.state_dict().items()} | {
            f"optimizer.{place}.{name}": value for place, entry in state.items() for name, value in entry.items()
        }

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take back what `memory` returned; the network is built of it at the next `meet`."""
        self.forget()
        self._recalled = dict(memory)

    @property
    def _network(self) -> nn.Module:
        return self._required()[0]

    def _required(self) -> tuple[nn.Module, torch.optim.Adam]:
        assert self._met is not None  # noqa: S101 -- a defense calls `meet` before anything else
        return self._met


class DecoderAdversary(InnerAdversary):
    """An adversary that makes pictures of features: it meets z, (N, ...), and x, (N, C, H, W).

    Args:
        blocks: residual blocks of the decoder.
        channels: their width.
        learning_rate: of Adam.

    Raises:
        ConfigError: no decoder has such a size, or the learning rate is not positive and finite.

    Example:
        >>> adversary = DecoderAdversary(blocks=0, channels=4, learning_rate=1e-3)
        >>> adversary.meet(torch.zeros(5, 2), torch.zeros(5, 1, 8, 8))
        >>> adversary(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(self, *, blocks: int, channels: int, learning_rate: float) -> None:
        check_size(blocks, channels)
        super().__init__(partial(residual_decoder, blocks=blocks, channels=channels), learning_rate)
        self._arguments = f"blocks={blocks}, channels={channels}, learning_rate={learning_rate}"

    def extra_repr(self) -> str:
        """Return the arguments, for the `extra_repr` of a defense that takes the same."""
        return self._arguments


class Adversarial(Defense, ABC):
    """A defense with adversaries that live as long as the training.

    It overrides no other hook and takes no argument, so that a defense that also adds noise can derive from `AdditiveNoise` too.
    """

    @property
    @abstractmethod
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The adversaries, each under what its names begin with in a checkpoint."""

    def memory(self) -> dict[str, Tensor]:  # noqa: D102
        return {
            f"{prefix}{name}": value
            for prefix, adversary in self.adversaries.items()
            for name, value in adversary.memory().items()
        }

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        for prefix, adversary in self.adversaries.items():
            adversary.recall(under(memory, prefix))

    def forget(self) -> None:  # noqa: D102
        for adversary in self.adversaries.values():
            adversary.forget()


def residual_decoder(z: Tensor, x: Tensor, *, blocks: int, channels: int) -> ResidualDecoder:
    """Return an image decoder from features like z, (N, ...), to pictures like x, (N, C, H, W)."""
    _, colors, height, width = x.shape
    return ResidualDecoder(z.shape[1:], (colors, height, width), blocks=blocks, channels=channels)
