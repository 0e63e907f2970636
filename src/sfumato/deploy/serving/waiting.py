# SPDX-License-Identifier: Apache-2.0
"""The requests that wait for a tail, bounded in pictures and in bytes: what finds no room is refused at once and never waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.generic]


class QueueFullError(Exception):
    """There is no room for a request.

    Args:
        wait: seconds after which there should be some.
    """

    def __init__(self, wait: float) -> None:
        super().__init__(f"the queue is full for {wait:.3f} s")
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How requests are put together, and how many wait.

    Attributes:
        size: pictures in a batch at most; 1 runs every request alone. A larger request is run alone.
        window: seconds to wait at most for a batch to fill.
        pictures: that wait at most.
        bytes: that wait at most.
    """

    size: int = 32
    window: float = 2e-3
    pictures: int = 512
    bytes: int = 64 << 20


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way.

    Attributes:
        z: its features, (N, *shape).
        answer: its rows of the answers, when they are there.
        arrived, started, finished: when it came, when its batch was run and when that was done; seconds of the monotonic clock,
            0 for what has not happened.
    """

    z: Features
    answer: asyncio.Future[NDArray[np.float32]]
    arrived: float
    started: float = 0.0
    finished: float = 0.0


@dataclass(slots=True)
class Waiting:
    """The jobs that wait, oldest first, and how much they are."""

    jobs: OrderedDict[Job, None] = field(default_factory=OrderedDict)
    pictures: int = 0
    bytes: int = 0

    def add(self, job: Job) -> None:
        """Put a job at the end."""
        self.jobs[job] = None
        self._count(job, 1)

    def remove(self, job: Job) -> None:
        """Take out a job if it waits."""
        if job in self.jobs:
            del self.jobs[job]
            self._count(job, -1)

    def pop(self, most: int) -> list[Job]:
        """Take out the oldest, up to so many pictures, and one in any case."""
        taken: list[Job] = []
        room = most
        while self.jobs:
            job = next(iter(self.jobs))
            if taken and len(job.z) > room:
                break
            room -= len(job.z)
            self.remove(job)
            taken.append(job)
        return taken

    def _count(self, job: Job, sign: int) -> None:
        self.pictures += sign * len(job.z)
        self.bytes += sign * job.z.nbytes
