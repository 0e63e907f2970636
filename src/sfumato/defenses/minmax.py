# SPDX-License-Identifier: Apache-2.0
"""Min-Max: a network learns to tell members from others by the model's answers, and the model learns to leave it nothing to see.

Source: nasr2018adversarial, Sections 3 and 4 and Algorithm 1, and its release; wang2021mcmia, Eq. (10) and (11).
Equations: max over h of G = (mean log h over D + mean log(1 - h) over D') / 2, Eq. (11) of wang2021mcmia -> MinMax._attack;
    min over the model of L + gamma * mean log h over a batch of D, the part of G that it has, Algorithm 1 -> MinMax.penalty
Departures: the release trains the adversary down the squared error of h in place of G, and the classifier down gamma times
mean h - 1/2 (`gain="linear"`). It gives the adversary raw logits, with which others could not reproduce it, since their scale
grows; here log-probabilities, and the adversary's gradient is clipped. Batches of the adversary are drawn with replacement. It
sees answers in eval mode, as deployed; the penalty is on those of the training step. Releases that take the test set for D'
evaluate on what the defense has seen: D' here is a part of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.arguments import require_choice
from sfumato.data.base import Data, Pictures
from sfumato.data.loader import as_images
from sfumato.defenses.adversary import Adversarial, InnerAdversary
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes, require_reference
from sfumato.defenses.posteriors import Protect, answers
from sfumato.errors import ConfigError
from sfumato.models.inference import InferenceNetwork, Inputs
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.types import Epoch, Step

Gain = Literal["log", "linear"]
"""What the model lowers on its batch of members: "log": mean log h, the paper's; "linear": mean h - 1/2, the release's."""


class MinMax(Adversarial):
    """Train against a membership inference network of one's own.

    It compares the members, the part `private` of the data, with others that no audit asks about, the part `reference`. After
    `warmup` plain epochs the adversary trains alone, then `attack_steps` times for each step of the model. A fine-tuning begins
    with an adversary that trains alone too.

    Args:
        gamma: weight of the gain in the model's loss. The release has 3 on Purchase100, 1 on Texas100 and CIFAR-100; others
            have 6.
        gain: "log" or "linear".
        attack_steps: updates of the adversary for each of the model, each with a batch of members and one of others. The release
            has 52 to 2 on Purchase100 and Texas100, which is 26, and 1 on CIFAR-100; MCMIA's authors do not say.
        warmup: epochs before the adversary plays.
        passes: over the members that the adversary trains alone, before its first epoch.
        batch_size: members, and others, in a batch of the adversary.
        inputs: what the adversary is given of an answer: "log_softmax", "sorted" or "logits".
        learning_rate: of the adversary's Adam.
        clip: longest gradient of the adversary; inf does not clip.

    Raises:
        ConfigError: a value is out of its range; when it is prepared, the data has no part `reference`, or is not for
            classification; when a run begins, it ends before the warm-up does.

    Example:
        >>> MinMax()
        MinMax(gamma=3.0, gain='log', attack_steps=1, warmup=1, passes=5, batch_size=128, inputs='log_softmax', \
learning_rate=0.001, clip=1.0)
    """

    name = "minmax"
    surface = "predictions"

    def __init__(
        self,
        gamma: float = 3.0,
        *,
        gain: Gain = "log",
        attack_steps: int = 1,
        warmup: int = 1,
        passes: int = 5,
        batch_size: int = 128,
        inputs: Inputs = "log_softmax",
        learning_rate: float = 1e-3,
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice("gain", gain, get_args(Gain))
        require_choice("inputs", inputs, get_args(Inputs))
        if not (0 < gamma < math.inf and clip > 0):
            raise ConfigError(f"gamma must be > 0 and finite and clip > 0, got {gamma} and {clip}; 3.0 and 1.0 are the defaults")
        if min(attack_steps, batch_size) < 1 or min(warmup, passes) < 0:
            raise ConfigError(
                f"attack_steps and batch_size must be at least 1, warmup and passes at least 0, got {attack_steps}, "
                f"{batch_size}, {warmup} and {passes}"
            )
        self.gamma, self.gain, self.inputs, self.clip = gamma, gain, inputs, clip
        self.attack_steps, self.warmup, self.passes, self.batch_size = attack_steps, warmup, passes, batch_size
        self.learning_rate = learning_rate
        self.adversary = InnerAdversary(self._network, learning_rate)
        self._protect: Protect = self.protect
        self._sides: tuple[Pictures, ...] = ()

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The inference network."""
        return {"": self.adversary}

    def join(self, whole: Defense) -> None:
        """Learn what protects the features: the adversary sees the answers to those."""
        self._protect = whole.protect

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse data without others to compare the members with."""
        require_classes(data, self.name)
        require_reference(data, self.name)

    def begin(self, data: Data) -> None:
        """Find members and others."""
        self._sides = (data.part("private"), data.part("reference"))

    def begin_epoch(self, epoch: Epoch) -> None:
        """Train the adversary alone, before the first epoch that it plays in."""
        if epoch.number == 0 and self.warmup >= epoch.total:
            raise ConfigError(f"minmax plays from epoch {self.warmup} on, but the run has {epoch.total}; lower warmup")
        if epoch.number >= self.warmup and self.adversary.fresh:
            for _ in range(self.passes * math.ceil(len(self._sides[0]) / self.batch_size)):
                self._attack(epoch.model)

    def before_step(self, step: Step) -> None:
        """Train the adversary on batches of its own."""
        for _ in range(self.attack_steps if step.epoch >= self.warmup else 0):
            self._attack(step.model)

    def penalty(self, step: Step) -> Tensor | None:  # noqa: D102
        if step.epoch < self.warmup:
            return None
        with torch.autocast(step.x.device.type, enabled=False):
            logit = self.adversary.frozen(step.logits, _one_hot(step.y, step.logits))
            gain = F.logsigmoid(logit).mean() if self.gain == "log" else logit.sigmoid().mean() - 0.5
            return self.gamma * gain

    def forget(self) -> None:
        """Drop the adversary, and the pictures."""
        super().forget()
        self._sides = ()

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"gamma={self.gamma}, gain={self.gain!r}, attack_steps={self.attack_steps}, warmup={self.warmup}, "
            f"passes={self.passes}, batch_size={self.batch_size}, inputs={self.inputs!r}, learning_rate={self.learning_rate}, "
            f"clip={self.clip}"
        )

    def _attack(self, model: nn.Module) -> None:
        """Make one step of the adversary up its gain on a batch of members and as many others."""
        device = device_of(model)
        self._sides = tuple(side.to(device) for side in self._sides)
        (x, y), (others, labels) = (_drawn(side, self.batch_size, device) for side in self._sides)
        assert isinstance(model, Split)  # noqa: S101 -- the loop trains no other
        with torch.no_grad():
            logits = answers(model, self._protect, torch.cat([x, others]))
        told = _one_hot(torch.cat([y, labels]), logits)
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            self.adversary.meet(logits, told)
            member, other = self.adversary(logits, told).split(self.batch_size)
            gain = (F.logsigmoid(member).mean() + F.logsigmoid(-other).mean()) / 2  # Eq. (11)
            self.adversary.learn(-gain, clip=self.clip)

    def _network(self, logits: Tensor, label: Tensor) -> InferenceNetwork:
        return InferenceNetwork(label.shape[1], inputs=self.inputs)


def _drawn(pictures: Pictures, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw pictures from the ambient stream, as x, float32 (count, C, H, W), and y, int64 (count,), on a device."""
    index = torch.randint(len(pictures), (count,))
    return as_images(pictures.read(index), device), pictures.labels[index].to(device)


def _one_hot(y: Tensor, logits: Tensor) -> Tensor:
    """Return labels as rows of zeros and a one, as wide as logits."""
    return F.one_hot(y, logits.shape[1]).float()
