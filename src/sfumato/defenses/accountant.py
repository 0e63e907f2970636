# SPDX-License-Identifier: Apache-2.0
"""What training with noise spends of a privacy budget, and how much noise a budget needs.

Source: mironov2019sampled; yousefpour2021opacus.
Equations: epsilon of the sampled Gaussian mechanism by its Renyi divergences, mironov2019sampled, Section 3.3 -> spent
Departures: none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from sfumato.errors import ConfigError


@dataclass(frozen=True)
class Guarantee:
    """What differential privacy promises of a trained model.

    For two training sets of which one has a picture more than the other, whatever may come of the training is at most
    exp(epsilon) times as likely with one as with the other, but for a probability of delta.

    Attributes:
        epsilon: at most; inf promises nothing.
        delta: (0, 1).
        noise_multiplier: standard deviation of the noise in units of the longest gradient.
        rate: probability of a picture to be in a step.
        steps: taken.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    rate: float
    steps: int


def require_opacus() -> None:
    """Raise unless Opacus is there.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import opacus  # noqa: F401
    except ImportError as error:
        raise ConfigError('dpsgd needs the extra: pip install "sfumato[dp]"') from error


@cache
def needed(epsilon: float, rate: float, steps: int, delta: float) -> float:
    """Return the least noise multiplier with which a run spends no more than epsilon, and no less than 0.01 below it.

    Args:
        epsilon: of the whole run.
        rate: probability of a picture to be in a step.
        steps: how many.
        delta: (0, 1).

    Raises:
        ConfigError: the extra is not installed, or no noise is enough for so little.

    Example:
        >>> round(needed(6.28, 256 / 10_000, 1562, 1e-5), 3)
        1.068
    """
    least = spent(1.0, 0.0, 1, delta)  # of a run that sees nobody
    if epsilon <= least:
        raise ConfigError(f"epsilon must be above {least:.4f}, the least that can be shown at delta={delta}, got {epsilon}")
    from opacus.accountants.utils import get_noise_multiplier

    with _untold():
        return float(get_noise_multiplier(target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps))


def spent(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    """Return the epsilon that a run has spent.

    Args:
        noise_multiplier: standard deviation of the noise in units of the longest gradient.
        rate: probability of a picture to be in a step.
        steps: how many.
        delta: (0, 1).

    Example:
        >>> round(spent(1.068, 256 / 10_000, 1562, 1e-5), 2)
        6.28
    """
    require_opacus()
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    with _untold():
        return float(accountant.get_epsilon(delta))


@contextmanager
def _untold() -> Iterator[None]:
    """Leave out the accountant's warning that its bound, which holds, could be tighter with another order of divergence."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        yield
