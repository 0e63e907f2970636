# SPDX-License-Identifier: Apache-2.0
"""Requests that come at about the same time are run as one batch, on a thread of the model.

While a batch runs, the next one collects; it starts when the thread is free. There a short window may be waited for those clients
whose answers have just left and who will ask again: without it, one of eight would always be run alone, and the other seven after
it. It is not waited for where only one request was in flight before, so that a client who is alone waits for nobody, and never
longer than a batch takes, so that a tail of microseconds does not wait for milliseconds.

Source: crankshaw2017clipper, adaptive batching with a window.
Departures: Clipper searches for the largest batch that keeps a latency goal; here the size follows the load, up to a bound.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.deploy.serving.waiting import Features, Job, Limits, QueueFullError, Waiting

Run = Callable[[Features], NDArray[np.float32]]
"""A tail: (N, *shape) of the wire's type to (N, *answer)."""

_TICK = 1e-3  # seconds: a timer of asyncio is no finer, and what would wait less does not wait
_HOP = 2e-4  # seconds: the way to the thread and back costs half of it on a calm machine; what takes less is run on the spot
_MEMORY = 0.8  # of the running mean of how long a batch takes


class ModelFailedError(Exception):
    """The tail failed on the batch that a request was in. The cause stays on this side."""


class Watch(Protocol):
    """Who is told of the batches."""

    def batch(self, pictures: int, seconds: float) -> None:
        """A batch was run."""

    def failed(self, error: BaseException) -> None:
        """A batch was not run to its end."""


@dataclass(slots=True)
class _Batch:
    """Jobs that are run together, and what became of them."""

    jobs: Sequence[Job]
    answers: NDArray[np.float32] | None = None
    error: BaseException | None = None
    started: float = 0.0
    finished: float = 0.0

    def run(self, tail: Run) -> None:
        self.started = time.monotonic()
        try:
            z = self.jobs[0].z if len(self.jobs) == 1 else np.concatenate([job.z for job in self.jobs])
            answers = tail(z)
            if len(answers) != len(z):  # rows could go to others than those who asked for them
                raise ValueError(f"expected {len(z)} answers, found {len(answers)}")
            self.answers = answers
        except Exception as error:
            self.error = error
        self.finished = time.monotonic()


@dataclass(slots=True)
class _Pace:
    """What the last batches tell of the next one.

    Attributes:
        seconds: that a batch takes, a running mean.
        most: requests in flight at once since the last batch started.
        swift: pictures of the largest batch that takes less than the way to the thread. Not a mean: a batch that is larger than
            all before it, or one after a batch that took its time, must not keep everybody else waiting.
    """

    seconds: float = 0.0
    most: int = 0
    swift: int = 0

    def learn(self, pictures: int, seconds: float) -> None:
        self.seconds = seconds if not self.seconds else _MEMORY * self.seconds + (1 - _MEMORY) * seconds
        self.swift = max(self.swift, pictures) if seconds < _HOP else min(self.swift, pictures - 1)


class Batcher:
    """The queue of a model, and the thread that runs it.

    Everything but the tail itself happens on the thread of the event loop, so that there is nothing to lock. A tail of
    microseconds is run there too: the way to another thread would take longer.

    Args:
        tail: what is run, one batch after the other.
        limits: of a batch and of the queue.
        watch: who is told of the batches, on the thread of the loop.

    Example:
        >>> class Nobody:
        ...     def batch(self, pictures, seconds): ...
        ...     def failed(self, error): ...
        >>> async def once():
        ...     batcher = Batcher(lambda z: z.sum(1, dtype=np.float32, keepdims=True), Limits(), Nobody())
        ...     job = batcher.submit(np.ones((2, 3), np.float32))
        ...     rows = await job.answer
        ...     batcher.close()
        ...     return rows.tolist()
        >>> asyncio.run(once())
        [[3.0], [3.0]]
    """

    def __init__(self, tail: Run, limits: Limits, watch: Watch) -> None:
        self._tail = tail
        self._limits = limits
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting()
        self._pace = _Pace()
        self._running = 0  # requests in the batch that runs
        self._timer: asyncio.TimerHandle | None = None
        self._inbox: SimpleQueue[_Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tail", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Pictures that wait."""
        return self._waiting.pictures

    def submit(self, z: Features) -> Job:
        """Put a request into the queue.

        Args:
            z: (N, *shape), N at least 1.

        Returns:
            The job, whose `answer` is to be awaited; who does not want it any more calls `forget`. The answer fails with
            `ModelFailedError` where the tail does.

        Raises:
            QueueFullError: there is no room. A request that finds the queue empty always has some.
        """
        waiting, limits = self._waiting, self._limits
        if waiting.jobs and (waiting.pictures + len(z) > limits.pictures or waiting.bytes + z.nbytes > limits.bytes):
            raise QueueFullError(self._pace.seconds * (1 + waiting.pictures / limits.size))
        job = Job(z, self._loop.create_future(), time.monotonic())
        waiting.add(job)
        self._pace.most = max(self._pace.most, len(waiting.jobs) + self._running)
        self._next()
        return job

    def forget(self, job: Job) -> None:
        """Take a job out of the queue; one that already runs is run to its end for nobody."""
        self._waiting.remove(job)
        job.answer.cancel()

    def close(self, seconds: float = 5.0) -> bool:
        """End the thread, and return whether it has ended; what waits is not run.

        Args:
            seconds: to wait for the batch that runs.
        """
        for job in list(self._waiting.jobs):
            self.forget(job)
        self._inbox.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _next(self) -> None:
        """Start a batch if the thread is free and there is enough to run, or wait for more where that pays."""
        if self._running or not self._waiting.jobs:
            return
        wait = self._wait()
        if wait < _TICK:
            self._start()
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self._over)

    def _wait(self) -> float:
        """Return the seconds that a batch may wait for others to fill it."""
        waiting, pace, limits = self._waiting, self._pace, self._limits
        if len(waiting.jobs) >= pace.most or waiting.pictures >= limits.size or limits.size == 1:
            return 0.0
        return min(limits.window, pace.seconds)

    def _over(self) -> None:
        self._timer = None
        if not self._running and self._waiting.jobs:
            self._start()

    def _start(self) -> None:
        """Give the oldest jobs to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs = self._waiting.pop(self._limits.size)
        self._running = len(jobs)
        self._pace.most = self._running + len(self._waiting.jobs)
        batch = _Batch(jobs)
        if sum(len(job.z) for job in jobs) <= self._pace.swift:
            batch.run(self._tail)
            self._deliver(batch)
        else:
            self._inbox.put(batch)

    def _work(self) -> None:
        """Run batches until there are no more: what the thread does."""
        while (batch := self._inbox.get()) is not None:
            batch.run(self._tail)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits
                return

    def _deliver(self, batch: _Batch) -> None:
        """Give every job its rows."""
        self._running = 0
        if batch.answers is None:
            self._watch.failed(batch.error or RuntimeError("no answer"))
        else:
            self._watch.batch(len(batch.answers), batch.finished - batch.started)
            self._pace.learn(len(batch.answers), batch.finished - batch.started)
        start = 0
        for job in batch.jobs:
            stop = start + len(job.z)
            job.started, job.finished = batch.started, batch.finished
            if not job.answer.done():
                self._settle(job, batch, slice(start, stop))
            start = stop
        if self._waiting.jobs:
            self._loop.call_soon(self._next)  # not called: a long queue of small batches would be a deep recursion

    def _settle(self, job: Job, batch: _Batch, rows: slice) -> None:
        if batch.answers is None:
            job.answer.set_exception(ModelFailedError())
        else:
            job.answer.set_result(batch.answers[rows])
