# SPDX-License-Identifier: Apache-2.0
"""A prior to attack a target with: what learns from a target learns from this one, and what does not from the pictures alone."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.base import Data
from sfumato.priors.base import FOR_TARGET, Prior, PriorKind
from sfumato.priors.settings import PriorSettings
from sfumato.priors.train import train_prior
from sfumato.seeds import generator
from sfumato.target import Target, WeightsView
from sfumato.types import Watch


def train_for(
    target: Target,
    data: Data,
    kind: PriorKind,
    settings: PriorSettings,
    *,
    seed: int,
    checkpoint: Path | None = None,
    definition: str | None = None,
    samples: Path | None = None,
    watch: Watch | None = None,
) -> Prior:
    """Train a prior to attack a target with, on the target's device; kinds that learn from a target learn from this one.

    Args:
        target: as deployed.
        data: the pictures; `public` is learned from.
        kind: of prior.
        settings: how.
        seed: of everything random.
        checkpoint: as `train_prior` has it, like the others.
        definition: likewise.
        samples: likewise.
        watch: likewise.
    """
    view = target.view("weights", generator(seed, "view", "prior", kind, device=target.device))
    assert isinstance(view, WeightsView)  # noqa: S101 -- the view is made by that access
    own = kind in FOR_TARGET
    return train_prior(
        kind,
        data.part("public"),
        settings,
        view=view if own else None,
        classes=len(data.classes) if own else None,
        seed=seed,
        device=target.device,
        checkpoint=checkpoint,
        definition=definition,
        samples=samples,
        watch=watch,
    )
