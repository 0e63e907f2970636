# SPDX-License-Identifier: Apache-2.0
"""How a prior is trained: the `[prior]` table of a recipe, the constants of the papers, and what a CPU does in minutes.

Source: zhang2020secret (gan), chen2021kedmi (inversion), yuan2023plg (conditional), with the constants of their releases; steps
as in TL-DMI. The style generator is our own; its constants follow karras2020stylegan2 where they can at this size.
Departures: steps count updates of the generator, where the releases count epochs: 120 epochs of 30,000 pictures in batches of 64,
with one update of the generator in five, are 11,250 steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sfumato.arguments import construct, require_choice
from sfumato.errors import ConfigError
from sfumato.priors.base import PriorKind

Loss = Literal["wgan-gp", "hinge", "logistic"]
"""What generator and critic play for: the Wasserstein distance with a penalty on the gradient between pictures, the hinge loss or
the logistic loss; the last two with a penalty on the gradient at true pictures."""

LOSSES: tuple[Loss, ...] = ("wgan-gp", "hinge", "logistic")


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """How a prior is trained, with the constants of GMI's GAN as defaults.

    Args:
        width: channels of the last layer of the generator and of the first of the critic.
        latent: length of a latent.
        steps: updates of the generator.
        batch_size: pictures an update.
        critic_steps: updates of the critic for one of the generator.
        generator_rate: learning rate of the generator, with Adam.
        critic_rate: that of the critic.
        betas: of Adam.
        loss: one of `LOSSES`; "inversion" has a loss of its own.
        penalty: weight of the penalty on the critic's gradient ("gan", "style"); 0 leaves it out, which "wgan-gp" cannot.
        penalty_every: updates of the critic from one that has the penalty, so many times as heavy, to the next.
        average: share of the averaged generator that is kept at each update, [0, 1); 0 does not average.
        flip: mirror every other picture.
        kernels: of the minibatch discrimination ("inversion").
        dims: likewise.
        std: of its initial weights.
        entropy: weight of the entropy of the discriminator's answers, summed over a batch ("inversion").
        top: public pictures that stand for each class, those that the target is surest of ("conditional").
        margin: weight of the target's own opinion of made pictures ("conditional").

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> PriorSettings(width=32).steps
        11250
    """

    width: int = 64
    latent: int = 100
    steps: int = 11_250
    batch_size: int = 64
    critic_steps: int = 5
    generator_rate: float = 2e-4
    critic_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    loss: Loss = "wgan-gp"
    penalty: float = 10.0
    penalty_every: int = 1
    average: float = 0.0
    flip: bool = True
    kernels: int = 64
    dims: int = 50
    std: float = 1.0
    entropy: float = 1e-4
    top: int = 30
    margin: float = 0.2

    def __post_init__(self) -> None:
        require_choice("loss", self.loss, LOSSES)
        counts = ("width", "latent", "steps", "critic_steps", "penalty_every", "kernels", "dims", "top")
        wrong = [f"{name} must be at least 1, got {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        if self.batch_size < 2:
            wrong.append(f"batch_size must be at least 2, got {self.batch_size}: batch norm cannot train on one picture")
        for name in ("generator_rate", "critic_rate", "std"):
            if not 0 < getattr(self, name) < math.inf:
                wrong.append(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("penalty", "entropy", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                wrong.append(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        for name, values in (("betas", self.betas), ("average", (self.average,))):
            if not all(0 <= value < 1 for value in values):
                wrong.append(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.loss == "wgan-gp" and not self.penalty:
            wrong.append('penalty must be > 0 with loss = "wgan-gp", which bounds the critic by nothing else; 10 is the paper\'s')
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True)
class PriorPlan:
    """How an audit comes by a prior.

    Args:
        settings: how it is trained.
        weights: the file of a prior that is there already, which is taken in place of training one.
        crop: side of the middle of a StyleGAN2's pictures that is kept before they are resized to the target's; None keeps all.
    """

    settings: PriorSettings
    weights: Path | None = None
    crop: int | None = None


FULL: Mapping[PriorKind, PriorSettings] = {
    "gan": PriorSettings(),
    "inversion": PriorSettings(),
    "style": PriorSettings(
        latent=64,
        steps=30_000,
        critic_steps=1,
        generator_rate=1e-3,
        critic_rate=1e-3,
        betas=(0.0, 0.99),
        loss="logistic",
        penalty=1.0,
        penalty_every=16,
        average=0.999,
    ),
    "conditional": PriorSettings(latent=128, steps=30_000, betas=(0.0, 0.9), loss="hinge", penalty=0.0),
}
"""Of each kind the paper's constants, and our own for "style"; they ask for a GPU."""

_QUICK: Mapping[str, Any] = {"batch_size": 32, "critic_steps": 1, "generator_rate": 1e-3, "critic_rate": 1e-3}
SMOKE: Mapping[PriorKind, PriorSettings] = {
    "gan": PriorSettings(**_QUICK, width=32, steps=2000, loss="hinge", penalty=0.0),
    "inversion": PriorSettings(**_QUICK, width=32, steps=1800, kernels=16, dims=8, std=0.05),
    "style": PriorSettings(
        **_QUICK, width=16, latent=64, steps=2000, betas=(0.0, 0.99), loss="logistic", penalty=1.0, penalty_every=4
    ),
    "conditional": PriorSettings(**_QUICK, width=16, latent=64, steps=1500, betas=(0.0, 0.9), loss="hinge", penalty=0.0, top=30),
}
"""Of each kind what makes a usable prior of pictures of 32x32 in about four minutes on one core."""


SCALES: Mapping[str, Mapping[PriorKind, PriorSettings]] = {"full": FULL, "smoke": SMOKE}
"""Both by the names that recipes and commands have for them."""


def prior_settings(
    kind: PriorKind, table: Mapping[str, object] | None = None, *, base: Mapping[PriorKind, PriorSettings] = FULL
) -> PriorSettings:
    """Return how a prior of a kind is trained.

    Args:
        kind: of prior.
        table: what is said otherwise, as the `[prior]` table of a recipe has it.
        base: what holds where nothing is said.

    Raises:
        ConfigError: a key is unknown, or a value of another type or out of its range; all are named.

    Example:
        >>> prior_settings("style", {"steps": 100}).latent
        64
    """
    changed = {**{name: value for name, value in asdict(base[kind]).items()}, **(table or {})}
    made, problems = construct(PriorSettings, changed, where="prior")
    if problems:
        raise ConfigError("; ".join(problems))
    assert isinstance(made, PriorSettings)  # noqa: S101 -- construct returns problems or an object
    return made
