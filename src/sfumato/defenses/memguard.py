# SPDX-License-Identifier: Apache-2.0
"""MemGuard: noise on the answer that keeps the label and makes an adversary's classifier of members guess.

Source: jia2019memguard, Section 4 (Phase I finds the noise, Phase II adds it with a probability), and its released code.
Equations: |h'(s + r)| + c2 max(0, largest other - label) + c3 |q - p|_1, h' the logit of h, c2 = 10, c3 = 0.1, 1, ... 1e5
    -> _pull; p_noise = 0 where |h(s) - 0.5| <= |h(s + r) - 0.5|, else min(epsilon / |q - p|_1, 1) -> MemGuard.release
Departures: h learns from as many members as others in each epoch, drawn anew, by Adam; the release takes two parts of one size,
SGD at 0.001 and 400 epochs. h sorts the scores at every step of the search, not once at its start: noise may change their order.
The search at a c3 ends after twice the steps that the c3 before took, and ten; the release goes on to 300, in vain but for few.
The coin of Phase II is drawn from a hash of the answer, quantized, where the source hashes the picture, which a release does not
see. What comes out is the logarithm of the posteriors: the logits tell what the posteriors do not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.data.base import Data, Pictures
from sfumato.data.loader import batches
from sfumato.defenses.base import Defense
from sfumato.defenses.needs import require_classes, require_reference
from sfumato.defenses.posteriors import Protect, answers, fraction_of, keep_label
from sfumato.errors import ConfigError
from sfumato.modules import device_of
from sfumato.split import Split
from sfumato.target import BATCH
from sfumato.types import Epoch

_WIDTHS = (256, 128, 64)
_ROWS = 64
_LADDER = (0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5)
_LABEL_WEIGHT = 10.0
_STEP = 0.1
_SLACK, _MARGIN = 2, 10
_GUESS = 4e-5
"""A logit of h this small is a probability within 1e-5 of one half: there is nothing to mislead."""
_GRID = 0.01


class MemGuard(Defense):
    """Add noise to the posteriors that are released, so that a classifier of members cannot tell.

    The classifier h learns once training is over, from the posteriors of the members and of the part `reference`. It misleads no
    adversary who looks at labels alone, or who trains on answers with noise. List it after defenses that change the model when
    training is over.

    Args:
        epsilon: expected distortion of an answer at most, in L1 of the posteriors, >= 0; nothing reaches beyond 2.
        epochs: passes of h over the part `reference`, >= 1.
        learning_rate: of h's Adam.
        iterations: steps of the search for the noise at each weight of the distortion, >= 1.

    Attributes:
        network: h: sorted posteriors, (N, C), to a logit of membership, (N, 1).
        fitted: whether h has learned; until then answers are released without noise.

    Raises:
        ConfigError: an argument is out of its range; or, once the data is known, it has no part `reference`, or is not for
            classification.

    Example:
        >>> MemGuard(epsilon=0.5)
        MemGuard(epsilon=0.5, epochs=50, learning_rate=0.001, iterations=300)
    """

    name = "memguard"
    surface = "predictions"
    network: nn.Sequential
    fitted: Tensor

    def __init__(self, epsilon: float = 1.0, *, epochs: int = 50, learning_rate: float = 1e-3, iterations: int = 300) -> None:
        super().__init__()
        if not 0 <= epsilon < math.inf:
            raise ConfigError(f"epsilon must be >= 0 and finite, got {epsilon}; 0 adds no noise, 1.0 is the default")
        if epochs < 1 or iterations < 1:
            raise ConfigError(f"epochs and iterations must be at least 1, got {epochs} and {iterations}")
        if not 0 < learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be > 0 and finite, got {learning_rate}; 0.001 is the default")
        self.epsilon, self.epochs, self.learning_rate, self.iterations = epsilon, epochs, learning_rate, iterations
        self._sides: tuple[Pictures, Pictures] | None = None
        self._protect: Protect = self.protect

    def join(self, whole: Defense) -> None:
        """Learn what protects the features."""
        self._protect = whole.protect

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield nothing: h has an optimizer of its own."""
        yield from ()

    def prepare(self, model: Split, data: Data) -> None:
        """Make room for h."""
        require_classes(data, self.name)
        require_reference(data, self.name)
        widths = (len(data.classes), *_WIDTHS)
        hidden = [layer for wide, narrow in zip(widths, _WIDTHS, strict=False) for layer in (nn.Linear(wide, narrow), nn.ReLU())]
        network = nn.Sequential(*hidden, nn.Linear(_WIDTHS[-1], 1))
        device = device_of(model)
        # it takes no part in the training of the model, whose wrappers ask every parameter for a gradient
        self.network = network.to(device).requires_grad_(False)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool, device=device))

    def begin(self, data: Data) -> None:
        """Take the members and the others."""
        self._sides = (data.part("private"), data.part("reference"))

    def end_epoch(self, epoch: Epoch) -> None:
        """Teach h anew after the last epoch of a fine-tuning, after which nothing finishes."""
        assert isinstance(epoch.model, Split)  # noqa: S101 -- the loop trains no other
        if epoch.number + 1 == epoch.total and bool(self.fitted):
            self._teach(epoch.model)

    def finish(self, model: Split) -> None:
        """Teach h."""
        self._teach(model)

    def forget(self) -> None:  # noqa: D102
        self._sides = None

    def release(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the posteriors, with noise where the coin says so, (N, C), finite."""
        # The search needs gradients of its own, wherever it is asked for; and float64: posteriors near 1 differ in digits that
        # float32 has not, and the size of a batch must not change the path.
        with torch.inference_mode(False):
            answer = logits.detach().double().log_softmax(1)
            released = self._disturbed(answer) if bool(self.fitted) else answer
            return keep_label(released.to(logits.dtype), logits.detach())

    def extra_repr(self) -> str:  # noqa: D102
        return f"epsilon={self.epsilon}, epochs={self.epochs}, learning_rate={self.learning_rate}, iterations={self.iterations}"

    def _disturbed(self, answer: Tensor) -> Tensor:
        """Return log posteriors, (N, C), float64, with noise where the coin says so."""
        network = copy.deepcopy(self.network).double()
        noisy = mislead(network, answer, iterations=self.iterations)
        distortion = (noisy.exp() - answer.exp()).abs().sum(1)
        before, after = ((_guess(network, scores).sigmoid() - 0.5).abs() for scores in (answer, noisy))
        chance = (self.epsilon / distortion.clamp(min=torch.finfo(distortion.dtype).tiny)).clamp(max=1.0)
        coin = fraction_of((answer / _GRID).round().long())
        added = (after < before) & (coin < chance)
        return torch.where(added[:, None], noisy, answer)

    def _teach(self, model: Split) -> None:
        """Train h from new weights to tell members from others, as many of each."""
        assert self._sides is not None  # noqa: S101 -- `begin` took them
        members, others = (self._posteriors(model, side) for side in self._sides)
        count = min(len(members), len(others))
        member = torch.arange(2 * count, device=members.device) < count
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        optimizer = torch.optim.Adam(self.network.requires_grad_().parameters(), lr=self.learning_rate)
        for _ in range(self.epochs):
            rows = torch.cat([side[torch.randperm(len(side))[:count].to(side.device)] for side in (members, others)])
            for part in torch.randperm(2 * count).to(rows.device).split(_ROWS):
                with torch.enable_grad():
                    loss = F.binary_cross_entropy_with_logits(self.network(rows[part])[:, 0], member[part].float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.network.requires_grad_(False)
        self.fitted.fill_(True)

    def _posteriors(self, model: Split, pictures: Pictures) -> Tensor:
        """Return the posteriors of pictures, (N, C), float32, ascending in each row."""
        found = batches(pictures, size=BATCH, device=self.fitted.device)
        return torch.cat([answers(model, self._protect, x).float().softmax(1) for x, _ in found]).sort(1).values


def mislead(network: nn.Module, answer: Tensor, *, iterations: int) -> Tensor:
    """Return answers of the same labels on which a classifier of members guesses the other side, as near as they are found.

    Args:
        network: h, from sorted posteriors, (N, C), to a logit of membership, (N, 1), of the dtype of `answer`.
        answer: log posteriors, (N, C).
        iterations: steps of the search at each weight of the distortion.

    Returns:
        Log posteriors, (N, C): those of the largest weight at which the search went well, `answer` itself where it never did or
        where h guesses already.
    """
    found, start = answer.clone(), _guess(network, answer)
    going = (start.abs() > _GUESS).nonzero()[:, 0]
    limit = torch.full_like(going, iterations)
    for weight in _LADDER:
        if not len(going):
            break
        scores, steps = _cross(network, answer[going], start[going], weight, limit)
        crossed = steps >= 0
        going, limit = going[crossed], (_SLACK * steps[crossed] + _MARGIN).clamp(max=iterations)
        found[going] = scores[crossed]
    return found


def _cross(network: nn.Module, answer: Tensor, start: Tensor, weight: float, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Descend from each answer until h changes sides and the label is as it was.

    Returns:
        The scores, (N, C), and the steps to each, (N,), -1 where `limit` steps, (N,), did not lead there.
    """
    scores, label = answer.clone(), answer.argmax(1)
    going, steps = torch.arange(len(answer), device=answer.device), torch.full_like(label, -1)
    for step in range(int(limit.max()) + 1):
        guess, pull = _pull(network, scores[going], answer[going], label[going], weight)
        away = (guess * start[going] > 0) | (scores[going].argmax(1) != label[going])
        steps[going[~away]] = step
        away &= limit[going] > step
        going, pull = going[away], pull[away]
        if not len(going):
            break
        unit = pull / pull.norm(dim=1, keepdim=True).clamp(min=torch.finfo(pull.dtype).tiny)
        scores[going] = (scores[going] - _STEP * unit).log_softmax(1)
    return scores, steps


def _pull(network: nn.Module, scores: Tensor, answer: Tensor, label: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Return the logit of h for each answer, (N,), and the gradient of the loss of Phase I with respect to its scores, (N, C)."""
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        changed = scores.softmax(1)
        own = scores.gather(1, label[:, None])[:, 0]
        other = scores.scatter(1, label[:, None], -torch.inf).amax(1)
        # not exp: at the start the difference must be 0 to the last bit, or rounding would choose the way
        distortion = (changed - answer.softmax(1)).abs().sum(1)
        guess = _guess(network, scores)
        loss = guess.abs() + _LABEL_WEIGHT * (other - own).relu() + weight * distortion
        (pull,) = torch.autograd.grad(loss.sum(), scores)
    return guess.detach(), pull


def _guess(network: nn.Module, scores: Tensor) -> Tensor:
    """Return the logit of membership that h gives to each answer, (N,)."""
    logit: Tensor = network(scores.softmax(1).sort(1).values)
    return logit[:, 0]
