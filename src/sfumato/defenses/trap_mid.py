# SPDX-License-Identifier: Apache-2.0
"""Trap-MID: faint patterns that the model takes for its classes, so that an attack finds the patterns and not the faces.

Each class has a trigger. Blended into a picture of anyone it makes the model name that class, and the triggers move until a
network can no longer tell pictures with them from pictures without.

Source: liu2024trapmid, Section 4 and Algorithm 1, and its release, whose numbers are the defaults here.
Equations: (1 - beta) E CE(f(T(x)), y) + beta E CE(f(T(P_k(x))), k) with k uniform over the classes -> TrapMID.penalty;
    P_k(x) = (1 - alpha) x + alpha trigger_k -> TrapMID.triggered; a step of the triggers along the sign of the gradient of
    CE(f(T(P_k(x))), k) + BCE(D(P_k(x)), 1), then into [0, 1] -> TrapMID.before_step
Departures: the penalty is the second term over 1 - beta, so that the task loss stays what it is and can be another defense's: the
loss is the paper's over 1 - beta. x has been through the training's own augmentation, which is T for the pictures without
triggers; for those with, T is `augment`, which shifts where the paper crops and resizes. They pass through the model after the
others, where the release has one batch of both: only the statistics of batch normalization notice. D is a copy of the model with
one more layer on its logits, where the release replaces the last layer; it learns by Adam, there by SGD. k is drawn for each
picture, there dealt out evenly over an epoch. The last epoch counts, there the best one on the test set.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.data.augment import Augment
from sfumato.data.base import Data
from sfumato.defenses.adversary import Adversarial, InnerAdversary
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes
from sfumato.defenses.posteriors import Protect, answers
from sfumato.errors import ConfigError
from sfumato.split import Split
from sfumato.types import Step

_MOVED = Augment(crop=4, flip=True, rotation=30.0)


class TrapMID(Adversarial):
    """Lay a trapdoor for each class.

    Triggers and discriminator are in checkpoints of the training and nowhere in a deployed target: whoever has the triggers can
    make the model name any class, and can look past the trapdoors. In a run of several processes each has its own.

    Args:
        alpha: share of the trigger in a picture, (0, 1).
        beta: weight of the trapdoors in the loss, (0, 1); the task has the rest.
        trigger_step: by how much a pixel of a trigger moves in a step, (0, 1]; 0 leaves the triggers as they are drawn, without
            discriminator.
        augment: moves pictures with triggers, so that these are found wherever they are.
        learning_rate: of the discriminator's Adam.

    Raises:
        ConfigError: an argument is out of its range; when it is prepared, the data is not for classification.

    Example:
        >>> TrapMID(beta=0.1)
        TrapMID(alpha=0.02, beta=0.1, trigger_step=0.01, augment=Augment(crop=4, flip=True, rotation=30.0), learning_rate=0.001)
    """

    name = "trap_mid"
    surface = "weights"

    def __init__(
        self,
        alpha: float = 0.02,
        beta: float = 0.2,
        *,
        trigger_step: float = 0.01,
        augment: Augment = _MOVED,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not (0 < alpha < 1 and 0 < beta < 1):
            raise ConfigError(f"alpha and beta must be in (0, 1), got {alpha} and {beta}; 0.02 and 0.2 are the paper's")
        if not 0 <= trigger_step <= 1:
            raise ConfigError(f"trigger_step must be in [0, 1], in units of a pixel, got {trigger_step}; 0.01 is the release's")
        self.alpha, self.beta, self.trigger_step = alpha, beta, trigger_step
        self.augment, self.learning_rate = augment, learning_rate
        self.discriminator = InnerAdversary(self._network, learning_rate)
        self._protect: Protect = self.protect
        self._like: tuple[nn.Module, ...] = ()  # in a tuple it is no part of this module
        self._triggers: Tensor | None = None
        self._classes = torch.empty(0, dtype=torch.int64)

    @property
    def adversaries(self) -> Mapping[str, InnerAdversary]:
        """The network that tells pictures with triggers from pictures without."""
        return {"discriminator.": self.discriminator}

    def join(self, whole: Defense) -> None:
        """Learn what protects the features: pictures with triggers pass through it too."""
        self._protect = whole.protect

    def prepare(self, model: Split, data: Data) -> None:
        """Refuse data whose task has a loss of its own."""
        require_classes(data, self.name)

    def begin(self, data: Data) -> None:
        """Forget an earlier run."""
        self.forget()

    def triggered(self, x: Tensor, classes: Tensor) -> Tensor:
        """Blend triggers into pictures.

        Args:
            x: (N, C, H, W), [0, 1].
            classes: whose triggers, (N,), int64.

        Returns:
            (N, C, H, W), [0, 1]; with gradient into the triggers where they have one.

        Raises:
            ConfigError: there are no triggers, since no training goes on.
        """
        if self._triggers is None:
            raise ConfigError("there are no triggers: they are drawn in the first step of a training and dropped after the last")
        return (1 - self.alpha) * x + self.alpha * self._triggers[classes].to(x.dtype)

    def before_step(self, step: Step) -> None:
        """Draw whose triggers the batch gets, and move these; draw the triggers themselves first where there are none."""
        drawn, classes = step.generator, step.logits.shape[1]
        if self._triggers is None:
            self._triggers = torch.rand(classes, *step.x.shape[1:], generator=drawn, device=step.x.device)
        self._classes = torch.randint(classes, (len(step.x),), generator=drawn, device=step.x.device)
        if self.trigger_step:
            self._move(step)

    def penalty(self, step: Step) -> Tensor:
        """Return the cross-entropy of pictures with triggers and the classes of these, a mean over the batch, weighted."""
        assert isinstance(step.model, Split)  # noqa: S101 -- the loop trains no other
        x = self.augment(self.triggered(step.x, self._classes), step.generator)
        logits = step.model.tail(self._protect(step.model.head(x), step.generator))
        return self.beta / (1 - self.beta) * F.cross_entropy(logits.float(), self._classes)

    def memory(self) -> dict[str, Tensor]:
        """Return the triggers, and the discriminator with what its training must remember."""
        return super().memory() | ({} if self._triggers is None else {"triggers": self._triggers})

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: D102
        super().recall(memory)
        self._triggers = memory.get("triggers")

    def forget(self) -> None:
        """Drop the triggers and the discriminator."""
        super().forget()
        self._triggers, self._like = None, ()
        self._classes = self._classes[:0]

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"alpha={self.alpha}, beta={self.beta}, trigger_step={self.trigger_step}, augment={self.augment}, "
            f"learning_rate={self.learning_rate}"
        )

    def _move(self, step: Step) -> None:
        """Make one step of the discriminator, then one of the triggers that the batch got."""
        assert isinstance(step.model, Split)  # noqa: S101 -- the loop trains no other
        assert self._triggers is not None  # noqa: S101 -- `before_step` draws them
        triggers = self._triggers = self._triggers.detach().requires_grad_()
        x = self.triggered(step.x, self._classes)
        seen = self._seen(x, step)
        logits = answers(step.model, self._protect, self.augment(x, step.generator))
        (slope,) = torch.autograd.grad(seen + F.cross_entropy(logits, self._classes), triggers)
        self._triggers = (triggers.detach() - self.trigger_step * slope.sign()).clamp_(0, 1)

    def _seen(self, x: Tensor, step: Step) -> Tensor:
        """Make one step of the discriminator; return how well it then sees triggers, with gradient into the pictures x."""
        self._like = (step.model,)
        with torch.autocast(x.device.type, enabled=False):
            self.discriminator.meet(step.x, step.logits)
            without, among = self.discriminator(torch.cat([step.x, x.detach()])).split(len(x))
            self.discriminator.learn((F.softplus(-without).mean() + F.softplus(among).mean()) / 2)
            return F.softplus(-self.discriminator.frozen(x)).mean()  # softplus(-logit): the BCE with a label of 1

    def _network(self, x: Tensor, logits: Tensor) -> nn.Module:
        """Return a copy of the model that answers with one number, the logit of a picture without trigger."""
        (model,) = self._like
        judge = nn.Sequential(copy.deepcopy(model), nn.Linear(logits.shape[1], 1))
        return judge.train().requires_grad_(True)  # all of it learns, whatever another defense froze in the model
