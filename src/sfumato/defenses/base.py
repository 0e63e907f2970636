# SPDX-License-Identifier: Apache-2.0
"""What a defense is: a module whose hooks the training loop and the deployed target call, the identity by default.

A method overrides one or two hooks. It never owns the loop, the optimizer, the data, the device or the printing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sfumato.data.base import Data
from sfumato.pruning.footprint import Footprint
from sfumato.split import Split
from sfumato.types import Certificate, Epoch, Plan, Step

_SEEING = ("begin", "begin_epoch", "end_epoch", "perturb", "before_step", "criterion", "penalty", "after_step", "finish")
"""The hooks in which a defense may depend on pictures while a model trains."""


class Defense(nn.Module):
    """A defense that does nothing: the identity in every hook.

    Attributes:
        name: key of the defense in a composition, in checkpoints and in reports.
        surface: what it protects: features need a model that is cut.
        compresses: whether it leaves fewer weights, of which an audit then tells how many, and what that saves.
    """

    name: ClassVar[str]
    surface: ClassVar[Literal["features", "predictions", "weights"]] = "features"
    compresses: ClassVar[bool] = False

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the updates that the method makes for each batch; a method without phases takes part in all of them."""
        return ()

    @property
    def stochastic(self) -> bool:
        """Whether `protect` draws random numbers."""
        return False

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that `protect` adds to each element of z, in units of z; 0 where it adds none."""
        return 0.0

    @property
    def gaussian(self) -> bool:
        """Whether all that `protect` does is to add isotropic Gaussian noise of `noise_std`, or nothing at all."""
        return type(self).protect is Defense.protect

    @property
    def owns_criterion(self) -> bool:
        """Whether the defense replaces the task loss; at most one part of a composition may."""
        return type(self).criterion is not Defense.criterion

    @property
    def owns_gradient(self) -> bool:
        """Whether the defense draws the batches and replaces their gradient; at most one part of a composition may."""
        return type(self).optimize is not Defense.optimize

    @property
    def builds(self) -> bool:
        """Whether `prepare` puts layers of its own into the model, which no pretraining has seen."""
        return False

    @property
    def separable(self) -> bool:
        """Whether training sees each picture by itself: the loss is a mean of terms of one picture, and nothing else sees any."""
        return all(getattr(type(self), hook) is getattr(Defense, hook) for hook in _SEEING)

    @property
    def least_batch(self) -> int:
        """How many pictures a batch must have for the defense to work."""
        return 1

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """What the defense promises of a finished model whoever attacks it."""
        return ()

    @property
    def saving(self) -> Footprint:
        """What `finish` takes off the head, at least; known once `prepare` has run."""
        return Footprint()

    def learned(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the loop's optimizer updates; one that updates its own leaves them out."""
        yield from self.parameters()

    def join(self, whole: Defense) -> None:
        """Learn of the whole defense that this one is part of, before `prepare`; raise where the two cannot work together.

        Args:
            whole: the composition, this defense included.
        """

    def prepare(self, model: Split, data: Data) -> None:
        """Change the model, once, before the optimizer exists. Run without gradient, and again before weights are loaded."""

    def optimize(self, optimizer: torch.optim.Optimizer, model: Split, plan: Plan) -> torch.optim.Optimizer:
        """Replace the optimizer by one that steps along other gradients.

        Called before a run's first epoch and before its first after `finish`, and only on a class that overrides it, as `sample`.

        Args:
            optimizer: of the loop. What is returned has its parameters and its state.
            model: under training.
            plan: of the run.
        """
        raise NotImplementedError(f"{type(self).__name__} does not replace the gradient")

    def sample(self, plan: Plan, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the pictures of each step of an epoch: `plan.steps` batches of any size, int64 (n,), on the generator's device."""
        raise NotImplementedError(f"{type(self).__name__} does not draw the batches")

    def begin(self, data: Data) -> None:
        """Look at the data and begin anew, before a run's first epoch and its first after `finish`. Run without gradient."""

    def begin_epoch(self, epoch: Epoch) -> None:
        """Look at the data before an epoch. Run without gradient."""

    def end_epoch(self, epoch: Epoch) -> None:
        """Look at the data after an epoch. Run without gradient."""

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Change the pictures of a batch, once and before the forward pass; never called in deployment. Run without gradient.

        Args:
            x: pictures, (N, C, H, W), float, [0, 1], augmented.
            generator: a stream of this hook alone, on the device of x.

        Returns:
            Pictures of the same shape, type and range: what `Step.x` is. The labels stay.
        """
        return x

    def before_step(self, step: Step) -> None:
        """Update what belongs to the defense itself, after the forward pass and before the penalty. Run with gradient."""

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Change the features that are sent, in training and in deployment. Run with gradient in training.

        Args:
            z: features leaving the head, (N, ...).
            generator: the stream to draw from, on the device of z; None is PyTorch's ambient stream.
        """
        return z

    def criterion(self, step: Step) -> Tensor:
        """Replace the task loss by a scalar. Run with gradient; called only on a class that overrides it."""
        raise NotImplementedError(f"{type(self).__name__} does not replace the task loss")

    def penalty(self, step: Step) -> Tensor | None:
        """Return a scalar to add to the loss, or None. Run with gradient."""

    def after_step(self, step: Step) -> None:
        """Change the model after the optimizer's step. Run without gradient."""

    def finish(self, model: Split) -> None:
        """Change the model, once, after training. Run without gradient."""

    def reshape(self, model: Split, weights: Mapping[str, Tensor]) -> None:
        """Give a prepared model the shapes that `finish` left, before the weights of a finished run are loaded into it.

        Args:
            model: as `prepare` left it.
            weights: the tensors of the finished model, by their names in `model`.
        """

    def release(self, logits: Tensor) -> Tensor:
        """Change the answer that a deployed target gives. Not called in training."""
        return logits

    def memory(self) -> dict[str, Tensor]:
        """Return what training must remember between epochs and a deployed target does not need, for a checkpoint."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take back what `memory` returned, after `prepare`, on the device of the target."""

    def forget(self) -> None:
        """Drop what `memory` returns, when training is over."""

    def describe(self) -> str:
        """Return the defense as a constructor call, for reports."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def __repr__(self) -> str:
        return self.describe()
