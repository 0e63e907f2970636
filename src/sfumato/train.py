# SPDX-License-Identifier: Apache-2.0
"""The one training loop. It owns the optimizer, the data, the device and the checkpoints, and calls the hooks of the defenses.

A run is a function of its seed: each epoch takes its own named streams, so a run that resumes after any epoch continues to the
same bits as one that was never interrupted (on the CPU, with one number of threads; CUDA adds in an order of its own).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato import checkpoint as checkpoints
from sfumato.checkpoint import EpochFacts
from sfumato.data.base import Data
from sfumato.defenses.base import Defense
from sfumato.defenses.compose import Compose
from sfumato.errors import TrainingError
from sfumato.files import load_into, under
from sfumato.loop import NotFiniteError, Run
from sfumato.models.resolve import check_model
from sfumato.modules import device_of
from sfumato.seeds import ambient
from sfumato.settings import Train
from sfumato.split import Split, whole
from sfumato.target import Target
from sfumato.task import Task, task_for
from sfumato.types import Watch


def harden(
    target: Split | Target | nn.Module,
    data: Data,
    *,
    defenses: Sequence[Defense] = (),
    epochs: int | None = None,
    train: Train | None = None,
    task: Task | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Target:
    """Train a split model with defenses; without any, just train it.

    Args:
        target: what to train, from the weights that it has: a split model, or any module, which is left whole. It is copied, not
            changed.
        data: the pictures; the `private` part is trained on.
        defenses: what to add, in the order in which they see the features.
        epochs: passes over the pictures; as `train` says where None.
        train: how to train; `Train()` where None.
        task: what for, with arguments of your own; the task of the data with its defaults where None.
        seed: of everything random.
        watch: told of each step.

    Returns:
        The trained target as deployed, in eval mode, on the device of `target`.

    Raises:
        ConflictError: the defenses cannot be composed.
        ConfigError: the data is for another task, or the batches do not suit it.
        DataError: the pictures do not suit their task.
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
    settings = settings if epochs is None else replace(settings, epochs=epochs)
    fit(assembled, data, settings, task=task, seed=seed, watch=watch)
    return assembled


def assemble(target: Split | Target | nn.Module, data: Data, defenses: Sequence[Defense], *, seed: int) -> Target:
    """Return a copy of a target with defenses added and prepared, ready to be trained or to take weights.

    Args:
        target: a split model, a target that has defenses already, or a whole model.
        data: the pictures.
        defenses: what to add; they are copied.
        seed: of the weights that defenses add.

    Raises:
        ConflictError: the defenses cannot be composed.
        ModelError: the model does not take the pictures, or has another number of outputs than the data has classes.
    """
    target, added = copy.deepcopy(target), copy.deepcopy(tuple(defenses))
    target = target if isinstance(target, Split | Target) else whole(target)
    split, present = (target.split, [target.defense]) if isinstance(target, Target) else (target, [])
    defense = Compose(*(part for part in present if isinstance(part, Defense)), *added)
    made = Target(split, defense.to(target.device if isinstance(target, Target) else device_of(split)))
    defense.join(defense)
    check_model(split, classes=len(data.classes), shape=data.shape, name=split.name)
    with torch.no_grad(), ambient(seed, "prepare"):
        for part in added:
            part.prepare(split, data)
    return made.eval()


def restore(target: Target, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Load the weights of a finished run into a target.

    Args:
        target: as `assemble` made it; it gets the shapes that `finish` left.
        tensors: by the names of the finished target's state dict.
        source: where they come from, for the message.

    Raises:
        WeightsError: names or shapes are those of another model.
    """
    _reshape(target, tensors)
    load_into(target, tensors, source=source)


def fit(
    target: Target,
    data: Data,
    settings: Train,
    *,
    task: Task | None = None,
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
        task: what for; the task of the data with its defaults where None.
        seed: of everything random.
        checkpoint: a file to write after each epoch and to go on from where it is there; None keeps nothing.
        definition: what defines the run, to refuse the checkpoint of another; settings, task, seed and pictures where None.
        watch: told of each step.

    Returns:
        What each epoch came to, those of the fine-tuning last.

    Raises:
        ConfigError: the data is for another task, or the batches do not suit it.
        DataError: the pictures do not suit their task.
        ModelError: the model does not suit the task.
        TrainingError: the loss stopped being finite; the epoch, the step and the last checkpoint are named.
        WeightsError: the checkpoint is not one of this run.
    """
    task = task_for(data, task)
    task.check(data, settings.batch_size)
    definition = definition or f"{settings!r}, {task!r}, seed {seed}, pictures {data.part('private').fingerprint}"
    saved = checkpoints.load(checkpoint, definition=definition) if checkpoint is not None and checkpoint.exists() else None
    history = [] if saved is None else saved.history
    if saved is not None and len(history) > settings.epochs:
        _reshape(target, saved.weights)
    run = _begin(target, data, settings, task, seed)
    if saved is not None:
        saved.restore(target, run.optimizer)
        run.defense.recall({name: value.to(target.device) for name, value in saved.memory.items()})
    for number in range(len(history), settings.total):
        if number == settings.epochs:
            _finish(target, run.defense, seed)
            run = _begin(target, data, settings, task, seed)
        try:
            history.append(run.epoch(number, watch))
        except BaseException as error:
            run.defense.forget()  # what a defense holds of the model, such as hooks, would stay
            if not isinstance(error, NotFiniteError):
                raise
            kept = (
                f"the last good checkpoint is {checkpoint}"
                if checkpoint is not None and history
                else "there is no checkpoint yet"
            )
            raise TrainingError(f"{error}; {kept}; lower the learning rate or the weight of a penalty") from None
        if checkpoint is not None and run.accelerator.is_main_process:
            checkpoints.save(checkpoint, target, run.optimizer, history, memory=run.defense.memory(), definition=definition)
    if settings.finetune:
        run.defense.forget()
    else:
        _finish(target, run.defense, seed)
    target.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return tuple(history)


def _begin(target: Target, data: Data, settings: Train, task: Task, seed: int) -> Run:
    """Make a fresh optimizer, and let the defenses look at the data: what they remember fits the shapes of before `finish`."""
    run = Run(target, data, settings, task=task, seed=seed)
    with torch.no_grad():
        run.defense.begin(data)
    return run


def _finish(target: Target, defense: Defense, seed: int) -> None:
    """Let the defenses change the model, in eval mode: a run that resumes here comes from no epoch."""
    target.eval()
    with torch.no_grad(), ambient(seed, "finish"):
        defense.finish(target.split)
    defense.forget()


def _reshape(target: Target, weights: Mapping[str, Tensor]) -> None:
    """Give a prepared target the shapes of a finished one."""
    assert isinstance(target.defense, Compose)  # noqa: S101 -- `assemble` makes no other
    with torch.no_grad():
        target.defense.reshape(target.split, under(weights, "split."))
