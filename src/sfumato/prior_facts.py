# SPDX-License-Identifier: Apache-2.0
"""How good a prior is: how much its pictures are like the public ones, and how far one gets with it without any search.

An attack accuracy says little where the prior is bad, and little of the search where picking the best of many random pictures
does as well. So both are measured before anything is searched.

Source: struppek2022ppa, section 3.2 (the initial selection, which is the ceiling here); heusel2017fid.
Equations: none.
Departures: distances are in the evaluator's embedding, not in an Inception network's; the selection looks at each picture once,
not at its mirror image too.
"""

from __future__ import annotations

import torch

from sfumato.court import Court
from sfumato.data.loader import shuffled
from sfumato.errors import ConfigError, ModelError
from sfumato.inversion_types import PriorFacts
from sfumato.metrics.frechet import frechet_distance
from sfumato.metrics.identity import named_within, share_interval
from sfumato.modules import eval_mode
from sfumato.priors.base import Prior
from sfumato.seeds import generator
from sfumato.target import BATCH
from sfumato.types import Images, Labels

SAMPLES = 2000
"""Pictures of a prior that are looked at."""


def prior_facts(
    prior: Prior,
    court: Court,
    classes: Labels,
    *,
    per_class: int = 5,
    samples: int = SAMPLES,
    steps: int = 0,
    source: str = "",
    seed: int = 0,
) -> PriorFacts:
    """Measure a prior.

    Args:
        prior: trained, on any device.
        court: who judges; its public pictures are what the prior should look like.
        classes: those that are attacked, (K,), int64.
        per_class: pictures that are selected for each.
        samples: how many pictures of the prior to select from.
        steps: of its training, to be told.
        source: a line for people, to be told.
        seed: of the draw.

    Returns:
        The Fréchet distance of the pictures to as many public ones, and the ceiling: the attack accuracy of the pictures that the
        target is surest of for each class.

    Raises:
        ConfigError: fewer samples than are selected for a class.
        ModelError: the prior makes pictures of another size than the target takes, or of another range.
    """
    if not 1 <= per_class <= samples:
        raise ConfigError(f"per_class must be from 1 to samples, got {per_class} and {samples}; select fewer, or draw more")
    x = _drawn(prior, court, samples, seed)
    seen, logits = court.judge(x), court.answers(x, seed, "prior", "view")
    surest = logits.log_softmax(1)[:, classes.cpu()].topk(per_class, dim=0).indices  # (per_class, K)
    labels = classes.cpu().repeat(per_class)
    named = named_within(seen.logits[surest.flatten()], labels)
    public = court.data.part("public")
    some = public.subset(shuffled(len(public), generator(seed, "prior", "public"))[:samples])
    return PriorFacts(
        kind=prior.kind,
        frechet=frechet_distance(seen.embedding, court.judge.read(some).embedding),
        ceiling=share_interval(named, labels, generator(seed, "bootstrap", "prior", prior.kind)),
        steps=steps,
        source=source,
    )


@torch.no_grad()
def _drawn(prior: Prior, court: Court, samples: int, seed: int) -> Images:
    """Draw pictures of a prior, (samples, C, H, W), on the CPU, of every class as many where it is told one."""
    if prior.image_shape != court.data.shape:
        raise ModelError(
            f"the prior makes pictures of {prior.image_shape} and the target takes {court.data.shape}; train the prior on public "
            "pictures of the target's size"
        )
    latents = prior.draw(samples, generator(seed, "prior", "latents"))
    told = torch.arange(samples, device=latents.device) % len(court.data.classes) if prior.kind == "conditional" else None
    with eval_mode(prior):
        x = torch.cat(
            [prior(latents[rows], None if told is None else told[rows]).cpu() for rows in torch.arange(samples).split(BATCH)]
        )
    if not bool(x.isfinite().all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise ModelError(
            f"a prior must make finite pictures in [0, 1], found {float(x.min()):.3g} to {float(x.max()):.3g}; where it makes "
            "them in [-1, 1], let it return (x + 1) / 2"
        )
    return x
