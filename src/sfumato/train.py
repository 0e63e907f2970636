# SPDX-License-Identifier: Apache-2.0
"""The one training loop. It owns the optimizer, the data, the device and the checkpoints, and calls the hooks of the defenses.

A run is a function of its seed: each epoch takes its own named streams, so a run that resumes after any epoch continues to the
same bits as one that was never interrupted (on the CPU, with one number of threads; CUDA adds in an order of its own).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sfumato import checkpoint as checkpoints
from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Data
from sfumato.data.loader import batches, divide, shuffled
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import TrainingError
from sfumato.models.resolve import check_model
from sfumato.modules import device_of, eval_mode
from sfumato.seeds import ambient, generator
from sfumato.settings import Train
from sfumato.split import Split
from sfumato.target import BATCH, Target
from sfumato.types import Epoch, Step, Watch

_CHECK_EVERY = 50


def harden(
    target: Split | Target,
    data: Data,
    *,
    defenses: Sequence[Defense] = (),
    epochs: int | None = None,
    train: Train | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Target:
    """Train a split model with defenses; without any, just train it.

    Args:
        target: what to train, from the weights that it has. It is copied, not changed.
        data: the pictures; the `private` part is trained on.
        defenses: what to add, in the order in which they see the features.
        epochs: passes over the pictures; as `train` says where None.
        train: how to train; `Train()` where None.
        seed: of everything random.
        watch: told of each step.

    Returns:
        The trained target as deployed, in eval mode, on the device of `target`.

    Raises:
        ConflictError: the defenses cannot be composed.
        ModelError: pictures, model and classes do not fit together.
        TrainingError: the loss stopped being finite.

    Example:
        >>> import torch, sfumato as sf
        >>> data = sf.load_data((torch.rand(20, 1, 8, 8), torch.arange(20) % 2))
        >>> model = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> hardened = sf.harden(sf.split(model, at="c1"), data, defenses=[sf.Noise(sigma=0.1)], epochs=1)
        >>> hardened.defense
        Compose(Noise(sigma=0.1, distribution='gaussian'))
    """
    settings = train or Train()
    assembled = assemble(target, data, defenses, seed=seed)
    fit(assembled, data, settings if epochs is None else replace(settings, epochs=epochs), seed=seed, watch=watch)
    return assembled


def assemble(target: Split | Target, data: Data, defenses: Sequence[Defense], *, seed: int) -> Target:
    """Return a copy of a target with defenses added and prepared, ready to be trained or to take weights.

    Args:
        target: a split model, or a target that has defenses already.
        data: the pictures.
        defenses: what to add; they are copied.
        seed: of the weights that defenses add.

    Raises:
        ConflictError: the defenses cannot be composed.
        ModelError: the model does not take the pictures, or has another number of outputs than the data has classes.
    """
    target, added = copy.deepcopy(target), copy.deepcopy(tuple(defenses))
    split, present = (target.split, [target.defense]) if isinstance(target, Target) else (target, [])
    defense = Compose(*(part for part in present if isinstance(part, Defense)), *added)
    made = Target(split, defense.to(target.device if isinstance(target, Target) else device_of(split)))
    defense.join(defense)
    check_model(split, classes=len(data.classes), shape=data.shape, name=split.name)
    with torch.no_grad(), ambient(seed, "prepare"):
        for part in added:
            part.prepare(split, data)
    return made.eval()


def fit(
    target: Target,
    data: Data,
    settings: Train,
    *,
    seed: int,
    checkpoint: Path | None = None,
    definition: str | None = None,
    watch: Watch | None = None,
) -> tuple[EpochFacts, ...]:
    """Train an assembled target in place.

    Args:
        target: as `assemble` made it.
        data: the pictures; the `private` part is trained on.
        settings: how to train.
        seed: of everything random.
        checkpoint: a file to write after each epoch and to go on from where it is there; None keeps nothing.
        definition: what defines the run, to refuse the checkpoint of another; settings, seed and pictures where None.
        watch: told of each step.

    Returns:
        What each epoch came to.

    Raises:
        TrainingError: the loss stopped being finite; the epoch, the step and the last checkpoint are named.
        WeightsError: the checkpoint is not one of this run.
    """
    run = _Run(target, data, settings, seed)
    definition = definition or f"{settings!r}, seed {seed}, pictures {data.part('private').fingerprint}"
    history: list[EpochFacts] = []
    with torch.no_grad():
        run.defense.begin(data)
    if checkpoint is not None and checkpoint.exists():
        history, memory = checkpoints.load(checkpoint, target, run.optimizer, definition=definition)
        run.defense.recall({name: value.to(target.device) for name, value in memory.items()})
    for number in range(len(history), settings.epochs):
        try:
            history.append(run.epoch(number, watch))
        except _NotFiniteError as error:
            kept = (
                f"the last good checkpoint is {checkpoint}"
                if checkpoint is not None and history
                else "there is no checkpoint yet"
            )
            raise TrainingError(f"{error}; {kept}; lower the learning rate or the weight of a penalty") from None
        if checkpoint is not None and run.accelerator.is_main_process:
            checkpoints.save(checkpoint, target, run.optimizer, history, memory=run.defense.memory(), definition=definition)
    with torch.no_grad():
        run.defense.finish(target.split)
    target.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return tuple(history)


class _NotFiniteError(Exception):
    """The loss stopped being finite; says where."""


class _Forward(nn.Module):
    """The forward pass of training: one call, as data-parallel wrappers need it."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        z = self.target.split.head(x)
        protected = self.target.protection.protect(z, stream)
        return z, protected, self.target.split.tail(protected)


class _Run:
    """What a training run holds between its steps."""

    def __init__(self, target: Target, data: Data, settings: Train, seed: int) -> None:
        assert isinstance(target.defense, Compose)  # noqa: S101 -- `assemble` makes no other
        self.target, self.defense, self.settings, self.seed = target, target.defense, settings, seed
        self.device = target.device
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        target.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.pictures = data.part("private").to(self.device)
        self.accelerator = _accelerator(self.device)
        learned = [*target.split.parameters(), *self.defense.learned()]
        self.optimizer = settings.optimizer.build(learned)
        self.forward = self.accelerator.prepare_model(_Forward(target), device_placement=False)
        self.steps = len(divide(self._share(torch.arange(len(self.pictures))), settings.batch_size))

    def epoch(self, number: int, watch: Watch | None) -> EpochFacts:
        """Train for one epoch."""
        start, seed, rank = time.perf_counter(), self.seed, self.accelerator.process_index
        self.target.train()
        record = Epoch(number=number, total=self.settings.epochs, model=self.target.split, batches=self._clean_batches)
        augment = generator(seed, "augment", number, rank, device=self.device)
        protect = generator(seed, "protect", number, rank, device=self.device)
        order = self._share(shuffled(len(self.pictures), generator(seed, "order", number)))
        losses: list[Tensor] = []
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        with ambient(seed, "epoch", number, rank):
            with torch.no_grad():
                self.defense.begin_epoch(record)
            for x, y in self._batches(order, augment):
                loss, hits = self._updates(x, y, number, len(losses), protect)
                losses.append(loss)
                correct += hits
                if len(losses) % _CHECK_EVERY == 0:
                    self._require_finite(losses[-_CHECK_EVERY:], number, len(losses) - _CHECK_EVERY)
                if watch is not None:
                    watch(number * self.steps + len(losses), self.settings.epochs * self.steps)
            checked = len(losses) - len(losses) % _CHECK_EVERY
            self._require_finite(losses[checked:], number, checked)
            if not all(bool(parameter.isfinite().all()) for parameter in self.target.parameters()):
                raise _NotFiniteError(f"a weight is not finite after epoch {number}")
            with torch.no_grad():
                self.defense.end_epoch(record)
        return EpochFacts(
            number=number,
            loss=torch.stack(losses).mean().item(),
            accuracy=correct.item() / len(order),
            learning_rate=self._rate(number, len(losses) - 1),
            seconds=time.perf_counter() - start,
        )

    def _updates(self, x: Tensor, y: Tensor, number: int, index: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make the updates of one batch; return the last loss and the number of right answers."""
        rate = self._rate(number, index)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for phase in self.defense.updates:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                z, protected, logits = self.forward(x, stream)
                step = Step(
                    x=x, y=y, z=z, protected=protected, logits=logits, model=self.target.split, epoch=number,
                    index=number * self.steps + index, learning_rate=rate, generator=stream, phase=phase,
                )  # fmt: skip
                self.defense.before_step(step)
                loss = self._loss(step)
            self.optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            self.optimizer.step()
            with torch.no_grad():
                self.defense.after_step(step)
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def _loss(self, step: Step) -> Tensor:
        """Return task loss and penalties."""
        task = self.defense.criterion(step) if self.defense.owns_criterion else F.cross_entropy(step.logits.float(), step.y)
        penalty = self.defense.penalty(step)
        return task if penalty is None else task + penalty

    def _share(self, order: Tensor) -> Tensor:
        """Return this process's part of an order; all parts are of one length, or the processes would wait for each other."""
        processes = self.accelerator.num_processes
        return order[: len(order) - len(order) % processes][self.accelerator.process_index :: processes]

    def _rate(self, number: int, index: int) -> float:
        """Return the learning rate of a step; the first of a warm-up is not zero."""
        return self.settings.learning_rate(number + (index + 1) / (self.steps + 1))

    def _batches(self, order: Tensor, stream: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        settings = self.settings
        found = batches(
            self.pictures, size=settings.batch_size, device=self.device, order=order, augment=settings.augment, generator=stream
        )
        for x, y in found:
            yield x.contiguous(memory_format=self.layout), y

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
            raise _NotFiniteError(f"the loss is {losses[int(bad[0])].item()} at epoch {number}, step {step} of {self.steps}")


def _accelerator(device: torch.device) -> Accelerator:
    """Return the accelerator of one run; a second run in the same process may be on another device."""
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=device.type == "cpu")
