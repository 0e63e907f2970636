# SPDX-License-Identifier: Apache-2.0
"""Batches: every request gets its own answer, a lone client waits for nobody, and what finds no room is told so."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from sfumato.deploy.serving.batching import Batcher, ModelFailedError
from sfumato.deploy.serving.waiting import Limits, QueueFullError

PATIENCE = 10.0


@dataclass
class Tail:
    """Answers z + 1, slowly or when let, and remembers what it ran."""

    seconds: float = 0.0
    gate: threading.Event | None = None
    bad: float | None = None
    sizes: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        self.sizes.append(len(z))
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        if self.seconds:
            time.sleep(self.seconds)
        if self.bad is not None and self.bad in z:
            raise ValueError("bad")
        return (z + 1).astype(np.float32)


class Watch:
    def __init__(self) -> None:
        self.failures: list[BaseException] = []

    def batch(self, pictures: int, seconds: float) -> None:
        assert seconds >= 0

    def failed(self, error: BaseException) -> None:
        self.failures.append(error)


def run(tail: Tail, limits: Limits, scenario: Callable[[Batcher], Awaitable[None]], watch: Watch | None = None) -> None:
    async def go() -> None:
        batcher = Batcher(tail, limits, watch or Watch())
        try:
            async with asyncio.timeout(PATIENCE):
                await scenario(batcher)
        finally:
            if tail.gate:
                tail.gate.set()
            assert batcher.close()

    asyncio.run(go())


def features(value: float, pictures: int = 1) -> np.ndarray:
    return np.full((pictures, 2), value, np.float32)


async def ask(batcher: Batcher, value: float, pictures: int = 1) -> None:
    rows = await batcher.submit(features(value, pictures)).answer
    np.testing.assert_array_equal(rows, features(value + 1, pictures))


@pytest.mark.parametrize("seconds", [0.0, 2e-3])
@pytest.mark.parametrize("size", [1, 4, 32])
def test_every_request_gets_its_own_answer(size: int, seconds: float) -> None:
    async def client(batcher: Batcher, at: int) -> None:
        chance = random.Random(at)
        for number in range(8):
            await ask(batcher, at * 100 + number, chance.randint(1, 6))
            await asyncio.sleep(chance.random() * 2e-3)

    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(client(batcher, at) for at in range(12)))

    run(Tail(seconds), Limits(size=size), scenario)


def test_answers_stay_right_when_others_leave_or_fail() -> None:
    right, failed = [], []

    async def client(batcher: Batcher, at: int) -> None:
        chance = random.Random(at)
        for number in range(15):
            value = -1.0 if chance.random() < 0.1 else at * 100.0 + number
            job = batcher.submit(features(value, chance.randint(1, 3)))
            try:
                async with asyncio.timeout(1e-3 if chance.random() < 0.2 else PATIENCE):
                    rows = await job.answer
            except TimeoutError:
                batcher.forget(job)
            except ModelFailedError:
                failed.append(at)
            else:
                assert (rows == value + 1).all()
                right.append(at)

    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(client(batcher, at) for at in range(8)))
        assert batcher.depth == 0

    watch = Watch()
    run(Tail(1e-3, bad=-1.0), Limits(size=4), scenario, watch)
    assert len(right) > 40
    assert failed
    assert {type(error) for error in watch.failures} == {ValueError}


def test_a_lone_client_never_waits_for_a_window() -> None:
    async def scenario(batcher: Batcher) -> None:
        for number in range(8):
            job = batcher.submit(features(number, 1 + number % 3))
            await job.answer
            assert job.started - job.arrived < 0.05  # half of what the window would be

    tail = Tail(0.1)
    run(tail, Limits(window=5.0), scenario)
    assert len(tail.sizes) == 8


def test_what_comes_while_a_batch_runs_is_the_next_batch() -> None:
    async def scenario(batcher: Batcher) -> None:
        asks = [asyncio.ensure_future(ask(batcher, number)) for number in range(8)]
        await asyncio.sleep(0.05)
        assert batcher.depth == 7
        assert tail.gate is not None
        tail.gate.set()
        await asyncio.gather(*asks)

    tail = Tail(gate=threading.Event())
    run(tail, Limits(window=0.0), scenario)
    assert tail.sizes == [1, 7]


def test_a_window_gathers_those_who_were_there_before() -> None:
    async def client(batcher: Batcher, at: int) -> None:
        for number in range(4):
            await ask(batcher, at + number)
            await asyncio.sleep(at * 2e-3)  # they come back one after the other

    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(client(batcher, at) for at in range(4)))

    tail = Tail(0.05)
    run(tail, Limits(window=0.04), scenario)
    assert tail.sizes.count(4) >= 2


def test_a_window_ends_for_those_who_do_not_come_back() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, at) for at in range(4)))
        start = time.monotonic()
        await ask(batcher, 9)
        assert 0.01 < time.monotonic() - start < 2.0

    run(Tail(0.01), Limits(window=0.05), scenario)


def test_without_batches_every_request_runs_alone() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, number, 3) for number in range(6)))

    tail = Tail(1e-3)
    run(tail, Limits(size=1), scenario)
    assert tail.sizes == [3] * 6


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, number, pictures) for number, pictures in enumerate([1, 2, 9, 2, 2])))

    tail = Tail(1e-3)
    run(tail, Limits(size=4, window=0.0), scenario)
    assert tail.sizes == [1, 2, 9, 4]


@pytest.mark.parametrize("limits", [Limits(pictures=4), Limits(bytes=4 * 8)])
def test_what_finds_no_room_is_told_when_to_come_back(limits: Limits) -> None:
    async def scenario(batcher: Batcher) -> None:
        first = asyncio.ensure_future(ask(batcher, 0, 40))  # more than the queue holds, but it finds it empty
        await asyncio.sleep(0.02)
        waiting = [batcher.submit(features(number, 2)) for number in range(2)]
        with pytest.raises(QueueFullError) as full:
            batcher.submit(features(7))
        assert full.value.wait >= 0
        batcher.forget(waiting[0])
        assert batcher.depth == 2
        again = batcher.submit(features(8, 2))
        assert tail.gate is not None
        tail.gate.set()
        await asyncio.gather(first, waiting[1].answer, again.answer)
        assert batcher.depth == 0

    tail = Tail(gate=threading.Event())
    run(tail, limits, scenario)
    assert tail.sizes == [40, 4]


def test_who_leaves_is_not_run() -> None:
    async def scenario(batcher: Batcher) -> None:
        first = asyncio.ensure_future(ask(batcher, 0))
        await asyncio.sleep(0.02)
        gone = [batcher.submit(features(number)) for number in range(1000)]
        for job in gone:
            batcher.forget(job)
        assert batcher.depth == 0
        assert tail.gate is not None
        tail.gate.set()
        await first

    tail = Tail(gate=threading.Event())
    run(tail, Limits(pictures=2000), scenario)
    assert tail.sizes == [1]


def test_fast_tails_run_on_the_spot_and_slow_ones_never() -> None:
    async def scenario(batcher: Batcher) -> None:
        for number in range(60):
            await ask(batcher, number)

    fast, slow = Tail(), Tail(1e-3)
    run(fast, Limits(), scenario)
    run(slow, Limits(), scenario)
    assert threading.get_ident() in fast.threads
    assert len(slow.threads) == 1
    assert threading.get_ident() not in slow.threads


@dataclass
class Uneven(Tail):
    """Takes its time for batches of more than four pictures, and for what is larger than a bound."""

    def __call__(self, z: np.ndarray) -> np.ndarray:
        self.seconds = 0.02 if len(z) > 4 or z.max() > 1000 else 0.0
        return super().__call__(z)


@pytest.mark.parametrize(("pictures", "value"), [(5, 1.0), (1, 2000.0)])
def test_what_takes_longer_than_all_before_it_leaves_the_spot_at_once(pictures: int, value: float) -> None:
    async def scenario(batcher: Batcher) -> None:
        for number in range(100):
            await ask(batcher, number, 1 + number % 4)
        assert threading.get_ident() in tail.threads
        await ask(batcher, value, pictures)  # nobody can know it of the one whose numbers take longer
        tail.threads.clear()
        await ask(batcher, value, pictures)

    tail = Uneven()
    run(tail, Limits(), scenario)
    assert threading.get_ident() not in tail.threads


def test_a_batch_larger_than_all_before_it_never_starts_on_the_spot() -> None:
    async def scenario(batcher: Batcher) -> None:
        for number in range(100):
            await ask(batcher, number, 1 + number % 4)
        tail.threads.clear()
        await ask(batcher, 1.0, 5)

    tail = Uneven()
    run(tail, Limits(), scenario)
    assert threading.get_ident() not in tail.threads


def test_a_window_is_no_longer_than_a_batch_and_a_full_batch_waits_for_none() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, at) for at in range(4)))
        full = batcher.submit(features(8, 4))
        await full.answer
        assert full.started - full.arrived < 0.15
        await asyncio.gather(*(ask(batcher, at) for at in range(4)))
        alone = batcher.submit(features(9))
        await alone.answer
        assert alone.started - alone.arrived < 3.0

    run(Tail(0.3), Limits(size=4, window=8.0), scenario)


def test_who_leaves_while_it_runs_takes_nobody_along() -> None:
    async def scenario(batcher: Batcher) -> None:
        first = asyncio.ensure_future(ask(batcher, 0))
        await asyncio.sleep(0.02)
        gone, *others = [batcher.submit(features(number)) for number in range(1, 4)]
        assert tail.gate is not None
        tail.gate.set()
        await first
        while batcher.depth:
            await asyncio.sleep(1e-3)
        batcher.forget(gone)  # it runs
        for number, job in enumerate(others, 2):
            np.testing.assert_array_equal(await job.answer, features(number + 1))

    tail = Tail(0.1, threading.Event())
    run(tail, Limits(window=0.0), scenario)
    assert tail.sizes == [1, 3]


def test_nobody_waits_for_what_was_closed() -> None:
    async def scenario(batcher: Batcher) -> None:
        batcher.submit(features(0))
        waiting = batcher.submit(features(1))
        assert not batcher.close(0.01)
        assert waiting.answer.cancelled()

    run(Tail(gate=threading.Event()), Limits(), scenario)


def test_small_batches_do_not_send_large_ones_to_the_thread() -> None:
    async def scenario(batcher: Batcher) -> None:
        for pictures in [4] * 50 + [1] * 50:
            await ask(batcher, 1.0, pictures)
        on_the_spot = 0
        for _ in range(20):  # a machine that does something else may take one or another to the thread
            tail.threads.clear()
            await ask(batcher, 1.0, 4)
            await ask(batcher, 1.0, 1)
            on_the_spot += tail.threads == {threading.get_ident()}
        assert on_the_spot >= 5

    tail = Uneven()
    run(tail, Limits(), scenario)


def test_a_tail_that_loses_a_row_gives_nobody_the_row_of_another() -> None:
    async def scenario(batcher: Batcher) -> None:
        jobs = [batcher.submit(features(number)) for number in range(3)]
        for job in jobs:
            with pytest.raises(ModelFailedError):
                await job.answer

    class Losing(Tail):
        def __call__(self, z: np.ndarray) -> np.ndarray:
            return super().__call__(z)[1:]

    watch = Watch()
    run(Losing(), Limits(), scenario, watch)
    assert "expected 1 answers, found 0" in [str(error) for error in watch.failures]


def test_a_long_queue_of_small_batches_is_no_deep_recursion() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, number) for number in range(3000)))

    tail = Tail()
    run(tail, Limits(size=1, pictures=5000), scenario)
    assert tail.sizes == [1] * 3000
