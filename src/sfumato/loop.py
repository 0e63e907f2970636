# SPDX-License-Identifier: Apache-2.0
"""The epochs and steps of the training loop, from one optimizer's first step to its last."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Data
from sfumato.data.loader import batches, divide
from sfumato.defenses.compose import Compose
from sfumato.models.embedding import captured, last_linear
from sfumato.modules import eval_mode
from sfumato.seeds import ambient, generator
from sfumato.settings import Train
from sfumato.target import BATCH, Target
from sfumato.task import Task
from sfumato.types import Epoch, Plan, Step, Watch

_CHECK_EVERY = 50


class NotFiniteError(Exception):
    """The loss stopped being finite; says where."""


class _Forward(nn.Module):
    """The forward pass of training: one call, as data-parallel wrappers need it."""

    def __init__(self, target: Target, last: nn.Linear | None) -> None:
        super().__init__()
        self.target, self.last = target, last

    def forward(self, x: Tensor, stream: torch.Generator) -> dict[str, Tensor]:
        z = self.target.split.head(x)
        protected = self.target.protection.protect(z, stream)
        if self.last is None:
            return {"z": z, "protected": protected, "logits": self.target.split.tail(protected)}
        with captured(self.last) as given:
            logits = self.target.split.tail(protected)
        return {"z": z, "protected": protected, "logits": logits, "embedding": given[0]}


class Run:
    """What a training run holds between its steps, until the shapes of its target change.

    Args:
        target: as `assemble` made it, or as `finish` left it.
        data: the pictures; the `private` part is trained on.
        settings: how to train.
        task: what for.
        seed: of everything random.

    Raises:
        ModelError: the task asks for embeddings, and the logits come from something else than a linear layer.
    """

    def __init__(self, target: Target, data: Data, settings: Train, *, task: Task, seed: int) -> None:
        assert isinstance(target.defense, Compose)  # noqa: S101 -- `assemble` makes no other
        self.target, self.defense, self.settings, self.task, self.seed = target, target.defense, settings, task, seed
        self.device = target.device
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        target.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.pictures = data.part("private").to(self.device)
        self.accelerator = _accelerator(self.device)
        learned = [*target.split.parameters(), *self.defense.learned()]
        self.optimizer = settings.optimizer.build(learned)
        last = last_linear(target.split, torch.zeros(2, *data.shape, device=self.device)) if task.embeds else None
        self.forward = self.accelerator.prepare_model(_Forward(target, last), device_placement=False)
        self.steps = len(divide(self._order(0), settings.batch_size))
        self.plan = Plan(len(self.pictures), self.steps, settings.epochs + settings.finetune)
        if self.defense.owns_gradient:
            self.optimizer = self.defense.optimize(self.optimizer, target.split, self.plan)

    def epoch(self, number: int, watch: Watch | None) -> EpochFacts:
        """Train for one epoch.

        Args:
            number: of the epoch; those of the fine-tuning go on.
            watch: told of each step.

        Raises:
            NotFiniteError: the loss or a weight stopped being finite.
        """
        start, seed, rank = time.perf_counter(), self.seed, self.accelerator.process_index
        self.target.train()
        settings = self.settings
        total = settings.epochs if number < settings.epochs else settings.epochs + settings.finetune
        record = Epoch(number=number, total=total, model=self.target.split, batches=self._clean_batches)
        augment = generator(seed, "augment", number, rank, device=self.device)
        perturb = generator(seed, "perturb", number, rank, device=self.device)
        protect = generator(seed, "protect", number, rank, device=self.device)
        drawn = self._drawn(number)
        losses: list[Tensor] = []
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        with ambient(seed, "epoch", number, rank):
            with torch.no_grad():
                self.defense.begin_epoch(record)
            for x, y in self._batches(drawn, augment, perturb):
                loss, hits = self._updates(x, y, number, len(losses), protect)
                losses.append(loss)
                correct += hits
                if len(losses) % _CHECK_EVERY == 0:
                    self._require_finite(losses[-_CHECK_EVERY:], number, len(losses) - _CHECK_EVERY)
                if watch is not None:
                    watch(number * self.steps + len(losses), settings.total * self.steps)
            checked = len(losses) - len(losses) % _CHECK_EVERY
            self._require_finite(losses[checked:], number, checked)
            if not all(bool(parameter.isfinite().all()) for parameter in self.target.parameters()):
                raise NotFiniteError(f"a weight is not finite after epoch {number}")
            with torch.no_grad():
                self.defense.end_epoch(record)
        return EpochFacts(
            number=number,
            loss=torch.stack(losses).mean().item(),
            accuracy=correct.item() / max(1, sum(len(batch) for batch in drawn)),
            learning_rate=self._rate(number, len(losses) - 1),
            seconds=time.perf_counter() - start,
        )

    def _updates(self, x: Tensor, y: Tensor, number: int, index: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make the updates of one batch; return the last loss and the number of right answers."""
        rate = self._rate(number, index)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if not len(y):
            return self._step_of_nobody()
        for phase in self.defense.updates:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                step = Step(
                    x=x, y=y, **self.forward(x, stream), model=self.target.split, epoch=number,
                    index=number * self.steps + index, learning_rate=rate, generator=stream, phase=phase,
                )  # fmt: skip
                self.defense.before_step(step)
                loss = self._loss(step)
            self.optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            self.optimizer.step()
            with torch.no_grad():
                self.defense.after_step(step)
        return loss.detach(), (step.logits.detach().argmax(1) == y).sum()

    def _step_of_nobody(self) -> tuple[Tensor, Tensor]:
        """Make the step of a batch that was drawn empty: an optimizer that replaces the gradient has one for it."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.step()
        return torch.zeros((), device=self.device), torch.zeros((), dtype=torch.int64, device=self.device)

    def _loss(self, step: Step) -> Tensor:
        """Return task loss and penalties."""
        task = self.defense.criterion(step) if self.defense.owns_criterion else self.task.loss(step)
        penalty = self.defense.penalty(step)
        return task if penalty is None else task + penalty

    def _order(self, number: int) -> Tensor:
        """Return this process's pictures of an epoch; all have as many, or the processes would wait for each other."""
        order = self.task.order(self.pictures, self.settings.batch_size, generator(self.seed, "order", number))
        processes, together = self.accelerator.num_processes, self.task.together
        groups = order[: len(order) - len(order) % (processes * together)].view(-1, together)
        return groups[self.accelerator.process_index :: processes].flatten()

    def _drawn(self, number: int) -> tuple[Tensor, ...]:
        """Return the pictures of each step of an epoch."""
        if self.defense.owns_gradient:
            return self.defense.sample(self.plan, generator(self.seed, "order", number))
        return divide(self._order(number), self.settings.batch_size)

    def _rate(self, number: int, index: int) -> float:
        """Return the learning rate of a step; the first of a warm-up is not zero."""
        return self.settings.learning_rate(number + (index + 1) / (self.steps + 1))

    def _batches(
        self, drawn: tuple[Tensor, ...], stream: torch.Generator, perturbing: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x and y of each step, augmented and perturbed."""
        settings = self.settings
        found = batches(
            self.pictures, size=settings.batch_size, device=self.device, order=drawn, augment=settings.augment, generator=stream
        )
        for x, y in found:
            with torch.no_grad():  # not around the yield, which trains
                perturbed = self.defense.perturb(x, perturbing)
            yield perturbed.contiguous(memory_format=self.layout), y

    def _clean_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield x, z and y of the training pictures, not augmented, head in eval mode."""
        for x, y in batches(self.pictures, size=BATCH, device=self.device):
            with torch.no_grad(), eval_mode(self.target.split.head):  # not around the yield: a method may train in its loop
                z = self.target.split.head(x)
            yield x, z, y

    def _require_finite(self, losses: Sequence[Tensor], number: int, first: int) -> None:
        """Raise at the first loss that is not finite. Looked at now and then only: reading a loss waits for the device."""
        if not losses:
            return
        bad = (~torch.stack(list(losses)).isfinite()).nonzero()
        if len(bad):
            step = first + int(bad[0])
            raise NotFiniteError(f"the loss is {losses[int(bad[0])].item()} at epoch {number}, step {step} of {self.steps}")


def _accelerator(device: torch.device) -> Accelerator:
    """Return the accelerator of one run; a second run in the same process may be on another device."""
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=device.type == "cpu")
