# SPDX-License-Identifier: Apache-2.0
"""From the reconstructions of an attack to numbers, and to pictures to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from sfumato.attacks.base import Attacked, FeatureAttack
from sfumato.data.base import REGION, Pictures
from sfumato.data.loader import as_images
from sfumato.metrics import image
from sfumato.metrics.interval import mean_interval, psnr_interval
from sfumato.recognize import Witness
from sfumato.seeds import generator
from sfumato.types import AttackResult, Exhibit, Findings, Images, Interval, Part, Reconstruction

SHOWN = 12
"""Pictures of each part that an audit keeps to look at."""


def measure(
    name: str,
    attack: FeatureAttack,
    attacked: Attacked,
    scored: Mapping[Part, Pictures],
    *,
    seed: int,
    hardware: str,
    witness: Witness | None = None,
) -> Findings:
    """Measure what an attack came to, and keep some of its pictures.

    Args:
        name: that it gets in the report.
        attack: the attack.
        attacked: what it came to.
        scored: the pictures that it was to recover.
        seed: of the attack, and of the intervals.
        hardware: the device it ran on.
        witness: says what it sees in the reconstructions; None asks nobody.
    """
    results, shown = [], []
    for part, reconstructions in attacked.reconstructions.items():
        for made in reconstructions:
            index = torch.arange(len(made.x_hat))
            sent = scored[part].subset(index)
            x = as_images(sent.read(index), made.x_hat.device)
            result = _result(made, x, attack, name=name, part=part, attacked=attacked, seed=seed)
            stream = generator(seed, "bootstrap", name, part, "recognized")
            told = None if witness is None else witness(made.x_hat, x, sent, stream)
            regions = _regions(made.x_hat, x, sent, generator(seed, "bootstrap", name, part, "regions"))
            results.append(dataclasses.replace(result, regions=regions, recognized=told))
            pixels = made.x_hat[:SHOWN].clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
            shown.append(Exhibit(part, pixels, name, made.selection, seed))
    return Findings(tuple(results), tuple(shown), hardware)


def _result(
    made: Reconstruction, x: Images, attack: FeatureAttack, *, name: str, part: Part, attacked: Attacked, seed: int
) -> AttackResult:
    """Measure the error of one reconstruction."""
    errors, distances = image.mse(made.x_hat, x), image.lpips(made.x_hat, x)
    stream = generator(seed, "bootstrap", name, part)
    return AttackResult(
        name=name,
        part=part,
        selection=made.selection,
        seed=seed,
        access=attack.access,
        pictures=len(x),
        mse=mean_interval(errors, stream),
        psnr=psnr_interval(errors, stream),
        psnr_mean=mean_interval(image.psnr(errors), stream),
        ssim=mean_interval(image.ssim(made.x_hat, x), stream),
        lpips=None if distances is None else mean_interval(distances, stream),
        seconds=attacked.seconds,
        queries=attacked.queries,
        settings=dataclasses.asdict(attack),
        releases=attack.releases,
        gray_levels=attack.gray_levels,
    )


def _regions(x_hat: Images, x: Images, sent: Pictures, stream: torch.Generator) -> dict[str, Interval]:
    """Measure the error inside and outside the private region, where the pictures say where that is."""
    if not all(side in sent.tags for side in REGION):
        return {}
    inside, outside = image.region_mse(x_hat, x, torch.stack([sent.tags[side] for side in REGION], 1))
    sides = {"inside": inside, "outside": outside}
    return {side: mean_interval(errors, stream) for side, errors in sides.items() if len(errors)}
