# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

import sfumato as sf
from sfumato.analysis.dependence import distance_correlation
from sfumato.errors import ConfigError
from steps import step_of


def test_the_penalty_is_the_weighted_correlation_of_picture_and_raw_features(small_split: sf.Split) -> None:
    both = sf.Compose(sf.Noise(sigma=5.0), sf.DistCorr(weight=0.7))
    step = step_of(small_split, both)
    penalty = both.penalty(step)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.7 * distance_correlation(step.x, step.z).item())
    assert penalty.item() != pytest.approx(0.7 * distance_correlation(step.x, step.protected).item(), abs=1e-3)


def test_training_lowers_the_correlation(small_split: sf.Split, blobs: sf.Data) -> None:
    x = blobs.part("test").read(torch.arange(24)) / 255
    found = [
        distance_correlation(x, sf.harden(small_split, blobs, defenses=defenses, epochs=3).features(x)).item()
        for defenses in ([], [sf.DistCorr(weight=5.0)])
    ]
    assert 1 - found[1] > 4 * (1 - found[0])  # few pictures of many pixels: the measure is near 1, whatever they are


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"weight must be >= 0, got .*; for no defense use Compose\(\)"):
        sf.DistCorr(weight=weight)
