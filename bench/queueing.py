# SPDX-License-Identifier: Apache-2.0
"""How long requests wait for a tail without micro-batching: M/G/k, simulated from measured times, beside what is measured.

Source: gross2008queueing, Section 5.1 (Pollaczek-Khinchine) for one server; the simulation is that of the library Ciw.
Equations: mean wait = rate E[S^2] / (2 (1 - rate E[S])) -> pollaczek_khinchine
"""

from __future__ import annotations

import ciw
import numpy as np
from numpy.typing import NDArray

_WARM = 0.1  # share of the customers that come while the queue is not yet what it will be


def waits(
    service: NDArray[np.float64], *, rate: float, servers: int = 1, customers: int = 20_000, seed: int = 0
) -> NDArray[np.float64]:
    """Simulate a queue with Poisson arrivals and service times drawn from measured ones.

    Args:
        service: seconds that requests took to be served, (N,).
        rate: requests for each second.
        servers: how many serve at once.
        customers: about how many are simulated.
        seed: of the simulation.

    Returns:
        Seconds that each customer waited before it was served, the first tenth left out.
    """
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=rate)],
        service_distributions=[ciw.dists.Empirical([float(one) for one in service])],
        number_of_servers=[servers],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(customers / rate)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    found = np.array([record.waiting_time for record in records])
    return found[int(_WARM * len(found)) :]


def pollaczek_khinchine(service: NDArray[np.float64], *, rate: float) -> float:
    """Return the mean wait in seconds for one server, exactly.

    Args:
        service: seconds that requests took to be served, (N,).
        rate: requests for each second, below what one server serves.
    """
    load = rate * float(service.mean())
    return rate * float((service**2).mean()) / (2 * (1 - load))
