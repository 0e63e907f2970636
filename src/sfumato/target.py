# SPDX-License-Identifier: Apache-2.0
"""The target as deployed, its defenses included, and the view of it that an attack receives.

An attack never holds a target. It holds a view that has only the methods of its access level, counts its queries, and always
answers through the defense: the adaptive adversary is the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import repeat
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sfumato.data.base import Pictures
from sfumato.data.loader import as_images, batches
from sfumato.data.near import near_duplicates
from sfumato.models.embedding import captured, last_linear
from sfumato.models.mirror import LayerShape, mirror_layers
from sfumato.modules import device_of, eval_mode
from sfumato.split import Split
from sfumato.types import Access, Features, Images

BATCH = 256
"""Pictures sent through a target at once."""
KEPT = 4 << 30
"""Bytes of features that a recording keeps; more are computed again at each draw."""


@runtime_checkable
class Protection(Protocol):
    """What a target needs of a defense in deployment."""

    @property
    def stochastic(self) -> bool:
        """Whether `protect` draws random numbers."""

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that `protect` adds to each element of z."""

    @property
    def gaussian(self) -> bool:
        """Whether all that `protect` does is to add isotropic Gaussian noise, or nothing at all."""

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Change the features that are sent."""

    def release(self, logits: Tensor) -> Tensor:
        """Change the answer that is given."""


class Target(nn.Module):
    """A split model with its defense, as deployed.

    Args:
        split: head and tail.
        defense: a module that is also a `Protection`, such as `Compose()` for none.
        sticky: whether the device repeats what it drew for a picture when the same bytes come again, until it is started anew.

    Whoever owns a sticky device may start it again and again: for an adversary the releases of a series repeat, and the next pass
    over its own pictures is drawn anew.
    """

    def __init__(self, split: Split, defense: nn.Module, *, sticky: bool = False) -> None:
        super().__init__()
        self.split = split
        self.defense = defense
        self.sticky = sticky

    @property
    def protection(self) -> Protection:
        """The defense, as what it does in deployment."""
        assert isinstance(self.defense, Protection)  # noqa: S101 -- nn.Module registration hides the protocol from the type checker
        return self.defense

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU where there are none."""
        return device_of(self)

    def features(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what the device sends.

        Args:
            x: pictures in [0, 1], (N, C, H, W).
            generator: the stream of the defense's random numbers; None draws from PyTorch's ambient stream.

        Returns:
            Protected features, (N, ...).
        """
        return self.protection.protect(self.split.head(x), generator)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the answer that the user gets: protected logits, (N, K)."""
        return self.protection.release(self.split.tail(self.features(x, generator)))

    def view(self, access: Access, generator: torch.Generator) -> View:
        """Return what an attack of an access level may see.

        Args:
            access: the level.
            generator: the stream of the defense's random numbers, on the target's device.
        """
        return _VIEWS[access](self, generator)


class View:
    """What every adversary has: a count of its queries.

    Args:
        target: the defended target.
        generator: the stream of the defense's random numbers, on the target's device.

    Attributes:
        queries: pictures that the adversary sent through the target so far.
        device: where the target computes.
    """

    def __init__(self, target: Target, generator: torch.Generator) -> None:
        self._target = target
        self._generator = generator
        self.queries = 0

    @property
    def device(self) -> torch.device:
        """Where the target computes."""
        return self._target.device

    @torch.no_grad()
    def _answer(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        with eval_mode(self._target):
            answer: Tensor = self._target(x.to(self.device), self._generator)
        return answer


class LabelsView(View):
    """An adversary that gets the label of a picture. The levels are an order, and so is this chain of classes."""

    def labels(self, x: Images) -> Tensor:
        """Return the predicted class of each picture, (N,), int64."""
        return self._answer(x).argmax(1)


class LogitsView(LabelsView):
    """An adversary that gets the logits too."""

    def logits(self, x: Images) -> Tensor:
        """Return the released logits of each picture, (N, K)."""
        return self._answer(x)


class FeaturesView(LogitsView):
    """An adversary that gets the features that cross the cut, and knows the architecture of the head but not its weights."""

    @property
    def deterministic(self) -> bool:
        """Whether the same picture always gives the same features."""
        return not self._target.protection.stochastic

    @property
    def sticky(self) -> bool:
        """Whether the device answers alike when a picture is sent again, byte for byte."""
        return self._target.sticky

    @torch.no_grad()
    def features(self, x: Images) -> Features:
        """Return the released features of each picture, (N, ...), the defense's noise included."""
        self.queries += len(x)
        with eval_mode(self._target):
            return self._target.features(x.to(self.device), self._generator)

    def record(self, pictures: Pictures, releases: int = 1, *, gray_levels: int = 0) -> Recording:
        """Query the target with pictures of the adversary's own and keep what it releases.

        Args:
            pictures: the adversary's pictures.
            releases: how often each is asked about at every draw; their mean is drawn.
            gray_levels: 0 sends the picture itself; above, near-duplicates of it, every pixel within so many levels of 255.
        """
        return Recording(self, pictures, releases, gray_levels=gray_levels)

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[LayerShape, ...]:
        """Return the kinds and shapes of the head's layers: what an adversary knows who knows the architecture.

        Args:
            image_shape: (C, H, W) of x.
        """
        return mirror_layers(self._target.split.head, torch.zeros(1, *image_shape, device=self.device))


class Classified(NamedTuple):
    """What a target makes of pictures, with gradient to them: logits (N, K), and what its last linear layer was given, (N, E)."""

    logits: Tensor
    embedding: Tensor


class WeightsView(FeaturesView):
    """An adversary that has the weights: it can differentiate through the head, and through the whole."""

    def __init__(self, target: Target, generator: torch.Generator) -> None:
        super().__init__(target, generator)
        self._last: nn.Linear | None = None

    def head(self, x: Images) -> Features:
        """Return the clean features of pictures, (N, ...), with gradient to x. No query: who has the weights computes alone."""
        with eval_mode(self._target):
            z: Tensor = self._target.split.head(x)
        return z

    @property
    def gaussian(self) -> bool:
        """Whether the defense does nothing to features, or nothing but add isotropic Gaussian noise."""
        return self._target.protection.gaussian

    def protect(self, z: Features) -> Features:
        """Return clean features as the target might release them: a fresh draw of the defense, with gradient to z. No query."""
        with eval_mode(self._target):
            return self._target.protection.protect(z, self._generator)

    def classify(self, x: Images) -> Classified:
        """Return what the target makes of pictures, with gradient to x. No query: who has the weights computes alone.

        Features are protected as they are in deployment, with a fresh draw where that is random. What is only done to the answer
        that a user gets does not hinder an adversary who has the weights, and is left out.

        Args:
            x: (N, C, H, W), [0, 1].

        Raises:
            ModelError: the logits do not come from a linear layer on one vector a picture, so that there is no embedding.
        """
        target = self._target
        with eval_mode(target):
            if self._last is None:
                self._last = last_linear(target.split, x[:1].detach())
            with captured(self._last) as given:
                logits: Tensor = target.split.tail(target.protection.protect(target.split.head(x), self._generator))
            return Classified(logits, given[0])


class Recording:
    """The releases of an adversary's own pictures, computed once where that is the same.

    A deterministic target releases the same features however often it is asked, so one query for each picture is enough. A noisy
    one releases fresh features at every draw: what the head computed is kept and the defense applied anew, which is what asking
    again would give, without running the head again; each draw counts as a query. Of a sticky device one release of a series is
    all of them. Near-duplicates are other pictures every time, which the head must see.

    Args:
        view: where to ask.
        pictures: what to ask about.
        releases: how often to ask a noisy target about each picture at every draw; the answers are averaged.
        gray_levels: above 0, ask about near-duplicates of the pictures instead, every pixel within so many levels of 255.

    Attributes:
        feature_shape: of z for one picture.
    """

    def __init__(self, view: FeaturesView, pictures: Pictures, releases: int = 1, *, gray_levels: int = 0) -> None:
        self._view = view
        self._pictures = pictures
        self._gray_levels = gray_levels
        self._once = view.deterministic and not gray_levels
        self._releases = releases if gray_levels or not (view.deterministic or view.sticky) else 1
        first = self._head(torch.arange(1))
        self.feature_shape = tuple(first.shape[1:])
        fits = first.nbytes * len(pictures) <= KEPT and not gray_levels
        every = torch.arange(len(pictures))
        self._kept = torch.cat([self._head(index) for index in every.split(BATCH)]) if fits else None
        if self._once:
            view.queries += len(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    @torch.no_grad()
    def draw(self, index: Tensor) -> Features:
        """Return one release of each picture at `index`, (n,) int64, or the mean of several."""
        view, releases = self._view, self._releases
        if not self._once:
            view.queries += releases * len(index)
        near = self._gray_levels > 0
        clean = (self._head(index) for _ in range(releases)) if near else repeat(self._clean(index), releases)
        draws = (view._target.protection.protect(z, view._generator) for z in clean)
        return reduce(torch.add, draws) / releases

    def pairs(self, index: Tensor) -> tuple[Features, Images]:
        """Return what `draw` does for the pictures at `index`, and the pictures, on the device of the target."""
        z = self.draw(index)
        return z, as_images(self._pictures.read(index), z.device)

    def _clean(self, index: Tensor) -> Tensor:
        return self._head(index) if self._kept is None else self._kept[index.to(self._kept.device)]

    @torch.no_grad()
    def _head(self, index: Tensor) -> Tensor:
        target, pixels = self._view._target, self._pictures.read(index)
        if self._gray_levels:
            pixels = near_duplicates(pixels, self._gray_levels, self._view._generator)
        with eval_mode(target):
            z: Tensor = target.split.head(as_images(pixels, self._view.device))
        return z


def released(target: Target, pictures: Pictures, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a target as deployed over pictures.

    Args:
        target: the target; its mode is left as it is found.
        pictures: what the users send.
        generator: the stream of the defense's random numbers, on the target's device.

    Yields:
        For each batch the released features and the released logits of the same pass.
    """
    for x, _ in batches(pictures, size=BATCH, device=target.device):
        with torch.no_grad(), eval_mode(target):  # not around the yield: the caller has modes of its own
            z = target.features(x, generator)
            logits = target.protection.release(target.split.tail(z.clone()))  # a tail may work in place
        yield z, logits


_VIEWS: dict[Access, type[View]] = {
    "labels": LabelsView,
    "logits": LogitsView,
    "features": FeaturesView,
    "weights": WeightsView,
}
