# SPDX-License-Identifier: Apache-2.0
"""Reference models: trained as the target was, each on another half of the examples; their answers are all that attacks need.

Source: shokri2017membership, Section V (shadow models); carlini2022lira, Section V; yuan2022pruned and aerni2024evaluations (an
adversary who knows the defense trains its references with it).
Departures: none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato.attacks.predictions.base import Answers, Oracle, References
from sfumato.data.base import Data, Pictures
from sfumato.data.game import Game
from sfumato.data.loader import as_images, batches
from sfumato.data.views import check_views, view
from sfumato.errors import ConfigError, ModelError, WeightsError
from sfumato.files import read_tensors, write_tensors
from sfumato.modules import eval_mode
from sfumato.parallel import run_each
from sfumato.seeds import derive, generator
from sfumato.target import BATCH, LabelsView, Target
from sfumato.types import Watch

Training = Callable[[Data, int], Target]
"""How a target comes about: from data, of which `private` is trained on, and a seed to the trained target, defenses included."""

PERTURBATIONS = 10
"""Perturbed copies of an example behind its sensitivity, as yuan2022pruned has them."""
PERTURBATION = 1e-3
"""Their standard deviation, in units of x."""


@torch.no_grad()
def answer(target: Target, pictures: Pictures, *, views: int = 1, sensitivity: bool = False, seed: int = 0) -> Answers:
    """Ask a target as deployed about examples.

    Args:
        target: the target; in eval mode while it answers, and left as it is found.
        pictures: the N examples.
        views: how many views of each, see `sfumato.data.views`.
        sensitivity: ask about perturbed copies too.
        seed: of the defense's random numbers and of the perturbations, which are the same for every model.

    Returns:
        Its answers, on the CPU.

    Raises:
        ConfigError: the pictures have not so many views.
        ModelError: an answer is not finite.

    Example:
        >>> import sfumato as sf
        >>> data = sf.load_data((torch.rand(10, 1, 8, 8), torch.arange(10) % 2))
        >>> net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
        >>> answer(Target(sf.whole(net), sf.Compose()), data.part("private"), views=2).logits.shape
        torch.Size([8, 2, 2])
    """
    check_views(views, pictures.shape)
    # What is asked beside the views has streams of its own: asking more must not change what was answered.
    stream, moving, moves = (
        generator(seed, name, device=target.device) for name in ("answers", "moved answers", "perturbations")
    )
    logits, moved = [], []
    with eval_mode(target):
        for x, _ in batches(pictures.to(target.device), size=BATCH, device=target.device):
            asked = torch.stack([target(view(x, number), stream) for number in range(views)], 1).float()
            logits.append(asked.cpu())
            if sensitivity:
                moved.append(_sensitivity(target, x, asked[:, 0].softmax(-1), moving, moves).cpu())
    return _finite(Answers(torch.cat(logits), torch.cat(moved) if sensitivity else None), target)


def _finite(answers: Answers, target: Target) -> Answers:
    """Return answers, all of which are finite.

    Raises:
        ModelError: one is not.
    """
    if bad := int((~answers.logits.isfinite()).flatten(1).any(1).sum()):
        raise ModelError(
            f"{target.split.name} must answer with finite logits, found {bad} of {len(answers.logits)} examples with others; was "
            "its training finite, and are the examples as it expects them?"
        )
    return answers


def _sensitivity(target: Target, x: Tensor, posteriors: Tensor, stream: torch.Generator, moves: torch.Generator) -> Tensor:
    """Return the mean change of each posterior over perturbed copies of x, by their standard deviation, (n, C)."""
    total = torch.zeros_like(posteriors)
    for _ in range(PERTURBATIONS):
        noise = torch.randn(x.shape, generator=moves, device=x.device) * PERTURBATION
        total += (target(x + noise, stream).float().softmax(-1) - posteriors).abs()
    return total / (PERTURBATIONS * PERTURBATION)


def oracle(target: Target, pictures: Pictures, *, classes: int, seed: int = 0) -> Oracle:
    """Return a target that answers with labels about changed pictures.

    Args:
        target: the target as deployed.
        pictures: the N examples.
        classes: how many.
        seed: of the defense's random numbers.
    """
    seen = target.view("labels", generator(seed, "oracle", device=target.device))
    assert isinstance(seen, LabelsView)  # noqa: S101 -- every view is one
    resident = pictures.to(target.device)
    return Oracle(
        labels=lambda x: seen.labels(x).cpu(),
        read=lambda index: as_images(resident.read(index), target.device),
        classes=classes,
        box=_box(resident),
    )


def _box(pictures: Pictures) -> tuple[float, float] | tuple[Tensor, Tensor]:
    """Return between what x lies: 0 and 1 of pictures, the extremes of each feature of a table, or of floats of any range."""
    if not pictures.read(torch.arange(1)).is_floating_point():
        return 0.0, 1.0
    every = pictures.read(torch.arange(len(pictures)))
    return every.amin(0), every.amax(0)


def train_references(
    training: Training,
    game: Game,
    *,
    count: int = 16,
    views: int = 1,
    sensitivity: bool = False,
    seed: int = 0,
    workers: int = 0,
    watch: Watch | None = None,
) -> References:
    """Train reference models and ask them about the examples of a game. On the CPU several train at once.

    Args:
        training: how the target came about; called with the data of each reference and a seed of its own.
        game: the examples, and which of them each reference is trained on.
        count: how many, even; 2 or more.
        views: how many views of each example they are asked about.
        sensitivity: whether they are asked about perturbed copies too.
        seed: of the references.
        workers: processes that train at once on the CPU; 0 is one for each core, or a single one where there is a GPU, which they
            would share.
        watch: told of the progress.

    Returns:
        Their answers. Nothing is stored on the way: a recipe resumes, and adds to the references that are there.

    Raises:
        ConfigError: count is odd or negative, or the pictures have not so many views.

    Example:
        >>> import sfumato as sf
        >>> data = sf.play(sf.load_data((torch.rand(50, 1, 8, 8), torch.arange(50) % 2)))
        >>> def training(data: Data, seed: int) -> Target:
        ...     net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8), seed=seed)
        ...     return sf.harden(sf.whole(net), data, epochs=1, seed=seed)
        >>> len(train_references(training, Game(data), count=2, workers=1))
        2
    """
    keep = game.keep(count)
    check_views(views, game.pool.shape)
    ask = partial(answer, views=views, sensitivity=sensitivity, seed=seed)

    def job(place: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        found = ask(training(game.trained_on(keep[place]), reference_seed(seed, place)), game.pool)
        return found.logits.numpy(), None if found.sensitivity is None else found.sensitivity.numpy()

    together = workers or (1 if torch.cuda.is_available() else 0)
    answers = run_each([partial(job, place) for place in range(count)], workers=together, told=watch)
    return References(tuple(Answers(torch.from_numpy(a), None if b is None else torch.from_numpy(b)) for a, b in answers), keep)


def reference_seed(seed: int, place: int) -> int:
    """Return the seed of a reference model, of 31 bits.

    Example:
        >>> reference_seed(0, 0) == reference_seed(0, 1)
        False
    """
    return derive(seed, "reference", place) >> 32


def save_references(references: References, game: Game, path: str | Path) -> Path:
    """Write what reference models answered, as one safetensors file.

    Args:
        references: the answers.
        game: whose examples they are about.
        path: the file.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written; what was there stays.
    """
    tensors = {"logits": torch.stack([one.logits for one in references.answers]), "keep": references.keep}
    moved = [one.sensitivity for one in references.answers if one.sensitivity is not None]
    if moved:
        tensors["sensitivity"] = torch.stack(moved)
    return write_tensors(path, tensors, {"pool": game.pool.fingerprint, "adaptive": str(references.adaptive)})


def load_references(path: str | Path, game: Game) -> References:
    """Read what `save_references` wrote.

    Args:
        path: the file.
        game: whose examples they must be about.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
        ConfigError: the answers are about the examples of another game.
    """
    tensors, facts = read_tensors(path)
    if not {"logits", "keep"} <= set(tensors) or "pool" not in facts:
        raise WeightsError(f"expected the answers of reference models in {path}, found {', '.join(tensors) or 'nothing'}")
    keep = tensors["keep"]
    if facts["pool"] != game.pool.fingerprint or not torch.equal(keep, game.keep(len(keep))):
        raise ConfigError(
            f"{path} has the answers of reference models of another recipe: about examples {facts['pool'][:16]}, expected "
            f"{game.pool.fingerprint[:16]}, or trained on other halves of them; train those of this game"
        )
    moved = tensors.get("sensitivity")
    answers = tuple(Answers(logits, None if moved is None else moved[place]) for place, logits in enumerate(tensors["logits"]))
    return References(answers, keep, adaptive=facts.get("adaptive") == "True")
