# SPDX-License-Identifier: Apache-2.0
"""The one training loop of priors. It owns optimizers, random numbers, checkpoints and sample grids; a contest gives the losses.

A run is a function of its seed: every update draws from streams named by its number, so that a run that resumes continues to the
same bits as one that was never interrupted (on the CPU, with one number of threads, against a target that answers without
chance).
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.data.base import Pictures
from sfumato.errors import ConfigError, DataError, TrainingError
from sfumato.modules import eval_mode
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.conditional import ConditionalContest, conditional_prior, require_enough
from sfumato.priors.contest import Contest, Turn
from sfumato.priors.gan import GanContest, gan_prior
from sfumato.priors.inversion import InversionContest, inversion_prior
from sfumato.priors.samples import sample, write_grid
from sfumato.priors.settings import PriorSettings
from sfumato.priors.state import load_state, save_state
from sfumato.priors.style import StyleContest, style_prior
from sfumato.seeds import ambient
from sfumato.target import WeightsView
from sfumato.types import Images, Watch

PAUSE = 15.0
"""Seconds between two checkpoints."""
GRID = 500
"""Steps between two sample grids."""
_CHANNELS_LAST: frozenset[PriorKind] = frozenset({"style", "conditional"})  # 3x3 convolutions: a quarter faster so, on a CPU
_LOOK = 20  # steps between two looks at whether the losses are finite: each waits for the device


def new_prior(
    kind: PriorKind, image_shape: tuple[int, int, int], settings: PriorSettings, *, classes: int | None = None, seed: int = 0
) -> Prior:
    """Make an untrained prior.

    Args:
        kind: of prior.
        image_shape: (C, H, W) of its pictures, square.
        settings: its sizes.
        classes: of the target, for the kinds that learn from one.
        seed: of the weights.

    Raises:
        ConfigError: such pictures cannot be made, or classes are missing.

    Example:
        >>> new_prior("gan", (3, 32, 32), PriorSettings(width=8)).image_shape
        (3, 32, 32)
    """
    with ambient(seed, "prior", "weights"):
        if kind == "gan":
            return gan_prior(image_shape, settings)
        if kind == "style":
            return style_prior(image_shape, settings)
        if classes is None or classes < 2:
            raise ConfigError(f"a prior of kind '{kind}' learns from a target of 2 classes or more, got {classes}; give classes=")
        return (inversion_prior if kind == "inversion" else conditional_prior)(image_shape, settings, classes)


def train_prior(
    kind: PriorKind,
    public: Pictures,
    settings: PriorSettings,
    *,
    view: WeightsView | None = None,
    classes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    definition: str | None = None,
    samples: Path | None = None,
    watch: Watch | None = None,
) -> Prior:
    """Train a prior on public pictures.

    Args:
        kind: of prior.
        public: pictures of people whom the target does not know.
        settings: how.
        view: of the target, for the kinds that learn from one; on `device`.
        classes: of that target.
        seed: of everything random.
        device: where.
        checkpoint: a file to write every quarter of a minute and to go on from where it is there; None keeps nothing.
        definition: what defines the run, to refuse the checkpoint of another; kind, settings, seed and pictures where None.
        samples: a folder for sample grids, named by their steps; None writes none.
        watch: told of each step.

    Returns:
        The prior in eval mode, on `device`.

    Raises:
        ConfigError: pictures of this size cannot be made, or the kind needs a target and there is none.
        DataError: the pictures are fewer than a batch, or than stand for a class.
        TrainingError: a loss stopped being finite.
        WeightsError: the checkpoint is that of another run.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> public = from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2).part("train")
        >>> prior = train_prior("gan", public, PriorSettings(width=4, latent=8, steps=2, batch_size=4))
        >>> prior(prior.draw(3, torch.Generator())).shape
        torch.Size([3, 1, 8, 8])
    """
    if kind in FOR_TARGET and view is None:
        raise ConfigError(
            f"a prior of kind '{kind}' learns from the target, so that each target has its own; an audit of a recipe trains it, "
            "or give view="
        )
    require_trainable(kind, public, settings, classes=classes)
    device = torch.device(device)
    prior = new_prior(kind, public.shape, settings, classes=classes, seed=seed).to(device).train()
    if kind in _CHANNELS_LAST:
        prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    public = public.to(device)
    run = _Run(prior, _contest(prior, settings, view, public), settings, public=public, device=device, seed=seed)
    definition = definition or f"{kind}, {settings!r}, seed {seed}, pictures {public.fingerprint}"
    done = run.load(checkpoint, definition) if checkpoint is not None and checkpoint.exists() else 0
    saved = time.monotonic()
    for step in range(done, settings.steps):
        run.step(step)
        last = step + 1 == settings.steps
        due = checkpoint is not None and time.monotonic() - saved >= PAUSE
        if last or due or step % _LOOK == 0:
            run.require_finite(step, checkpoint)
        if checkpoint is not None and due and not last:
            run.save(checkpoint, step + 1, definition)
            saved = time.monotonic()
        if samples is not None and (last or (step + 1) % GRID == 0):
            write_grid(samples / f"step-{step + 1:06d}.png", run.sample(classes))
        if watch is not None:
            watch(step + 1, settings.steps)
    return run.finish()


def require_trainable(kind: PriorKind, public: Pictures, settings: PriorSettings, *, classes: int | None = None) -> None:
    """Raise where a prior cannot be trained, before anything is.

    Args:
        kind: of prior.
        public: pictures of people whom the target does not know.
        settings: how it is to be trained.
        classes: of the target, for the kinds that learn from one.

    Raises:
        ConfigError: pictures of this size cannot be made, or the kind learns from a target and there is none.
        DataError: the pictures are fewer than a batch, or than stand for a class.

    Example:
        >>> from sfumato.data.tensors import from_tensors
        >>> public = from_tensors(torch.rand(20, 1, 8, 8), torch.arange(20) % 2).part("train")
        >>> require_trainable("gan", public, PriorSettings(width=4))
        Traceback (most recent call last):
        sfumato.errors.DataError: a batch is 64 public pictures, got only 16; lower batch_size, or give more pictures
    """
    if len(public) < settings.batch_size:
        raise DataError(
            f"a batch is {settings.batch_size} public pictures, got only {len(public)}; lower batch_size, or give more pictures"
        )
    if kind == "conditional":
        require_enough(public, settings.top)
    new_prior(kind, public.shape, settings, classes=classes)


def _contest(prior: Prior, settings: PriorSettings, view: WeightsView | None, public: Pictures) -> Contest:
    """Return what a prior's networks learn for."""
    if view is None or prior.kind not in FOR_TARGET:
        return (StyleContest if prior.kind == "style" else GanContest)(prior, settings)
    if prior.kind == "inversion":
        return InversionContest(prior, settings, view)
    return ConditionalContest(prior, settings, view, public)


class _Run:
    """A training run: networks, optimizers, and the averaged generator."""

    def __init__(
        self, prior: Prior, contest: Contest, settings: PriorSettings, *, public: Pictures, device: torch.device, seed: int
    ) -> None:
        self.prior, self.contest, self.settings = prior, contest, settings
        self.public, self.device, self.seed = public, device, seed
        self.generator_optimizer = torch.optim.Adam(contest.generator.parameters(), settings.generator_rate, settings.betas)
        self.critic_optimizer = torch.optim.Adam(contest.critic.parameters(), settings.critic_rate, settings.betas)
        self.made = copy.deepcopy(contest.generator) if settings.average else contest.generator
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"prior": self.prior, **({"made": self.made} if self.settings.average else {})}

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"generator_optimizer": self.generator_optimizer, "critic_optimizer": self.critic_optimizer}

    def load(self, path: Path, definition: str) -> int:
        """Go on from a checkpoint; return the steps done."""
        return load_state(path, self._modules, self._optimizers, definition=definition)

    def save(self, path: Path, steps: int, definition: str) -> None:
        """Write a checkpoint."""
        save_state(path, self._modules, self._optimizers, steps=steps, definition=definition)

    def step(self, step: int) -> None:
        """Update the critic a few times and the generator once."""
        with ambient(self.seed, "prior", "step", step):
            for update in range(self.settings.critic_steps):
                self._update(self.contest.critic_loss(self._turn(step, update)), self.critic_optimizer, self.contest.critic)
            self._update(self.contest.generator_loss(self._turn(step, -1)), self.generator_optimizer, self.contest.generator)
        if self.settings.average:
            _average(self.made, self.contest.generator, self.settings.average)

    def _turn(self, step: int, update: int) -> Turn:
        return Turn(self.public, self.settings, self.device, self.seed, step, update)

    def _update(self, loss: Tensor, optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=list(network.parameters()))
        optimizer.step()
        self.finite &= loss.detach().isfinite()

    def sample(self, classes: int | None) -> Images:
        """Make the pictures of a grid."""
        prior = self.prior
        shown = Prior(prior.kind, self.made, None, latent=prior.latent, image_shape=prior.image_shape)
        return sample(shown, classes=classes if prior.kind == "conditional" else None)

    def require_finite(self, step: int, checkpoint: Path | None) -> None:
        """Raise unless every loss so far was finite."""
        if not bool(self.finite):
            kept = f"the last good checkpoint is {checkpoint}" if checkpoint and checkpoint.exists() else "there is no checkpoint"
            raise TrainingError(
                f"a loss of the prior stopped being finite by step {step + 1} of {self.settings.steps}; {kept}; lower "
                "generator_rate and critic_rate"
            )

    def finish(self) -> Prior:
        """Return the trained prior."""
        self.prior.generator = self.made
        self.prior.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        with torch.no_grad(), eval_mode(self.prior):
            self.contest.finish(self.seed)
        return self.prior.eval()


@torch.no_grad()
def _average(kept: nn.Module, now: nn.Module, share: float) -> None:
    """Move averaged weights, and the statistics that go with them, towards the present ones."""
    latest = now.state_dict()
    for name, value in kept.state_dict().items():
        if value.is_floating_point():
            value.lerp_(latest[name], 1 - share)
        else:
            value.copy_(latest[name])  # a count of batches
