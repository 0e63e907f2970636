# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import get_args

import pytest

from sfumato.errors import ConfigError
from sfumato.priors.base import PriorKind
from sfumato.priors.settings import FULL, SMOKE, PriorSettings, prior_settings


def test_every_kind_has_settings_and_the_papers_are_the_papers() -> None:
    assert set(FULL) == set(SMOKE) == set(get_args(PriorKind))
    gmi, plg = FULL["gan"], FULL["conditional"]
    assert (gmi.width, gmi.latent, gmi.batch_size, gmi.critic_steps, gmi.generator_rate, gmi.betas) == (
        64, 100, 64, 5, 2e-4, (0.5, 0.999),
    )  # fmt: skip
    assert (gmi.loss, gmi.penalty, gmi.steps) == ("wgan-gp", 10.0, 120 * 30_000 // (64 * 5))
    assert (plg.latent, plg.steps, plg.loss, plg.betas, plg.top, plg.margin) == (128, 30_000, "hinge", (0.0, 0.9), 30, 0.2)
    assert (FULL["inversion"].kernels, FULL["inversion"].dims, FULL["inversion"].entropy) == (64, 50, 1e-4)


def test_a_table_changes_what_it_names_and_nothing_else() -> None:
    made = prior_settings("style", {"steps": 7, "betas": [0.1, 0.2]})
    assert (made.steps, made.betas) == (7, (0.1, 0.2))
    assert made == PriorSettings(**{**vars(FULL["style"]), "steps": 7, "betas": (0.1, 0.2)})
    assert prior_settings("style", base=SMOKE) == SMOKE["style"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"widht": 3}, "did you mean 'width'"),
        ({"steps": "many"}, "steps: expected"),
        ({"loss": "wasserstein"}, "loss: expected"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch norm cannot train on one picture"),
        ({"generator_rate": 0.0}, "generator_rate must be > 0"),
        ({"betas": [0.5, 1.0]}, "betas must be in"),
        ({"average": 1.0}, "average must be in"),
        ({"margin": -1.0}, "margin must be >= 0"),
        ({"penalty": 0.0}, "penalty must be > 0 with loss"),
    ],
)
def test_what_is_wrong_is_said(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prior_settings("gan", table)


def test_all_that_is_out_of_range_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"width must be .*; batch_size .*; std must"):
        PriorSettings(width=0, batch_size=1, std=-1.0)
