# SPDX-License-Identifier: Apache-2.0
"""Independent jobs in processes of their own, one for each core: many small networks train faster so than one by one, or batched.

The processes are forked: a job is a closure over whatever is in memory, and needs no importable name. Where processes cannot be
forked, or one worker is asked for, jobs run one after another. Either way a job computes with one thread, so that its bits do not
depend on how many run beside it.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from sfumato import errors
from sfumato.cores import cores
from sfumato.errors import ConfigError, SfumatoError

_T = TypeVar("_T")


def run_each(jobs: Sequence[Callable[[], _T]], *, workers: int = 0, told: Callable[[int, int], None] | None = None) -> list[_T]:
    """Run jobs on the CPU, several at once.

    Args:
        jobs: what to do. What a job returns must be picklable and hold no tensor; what it changes in memory is lost.
        workers: how many processes; 0 is one for each core that this process may use.
        told: told of progress: jobs done and jobs in all.

    Returns:
        What each job returned, in the order of the jobs.

    Raises:
        ConfigError: workers is negative.
        SfumatoError: of the first job that raised one; jobs that were not begun are not begun then.
        RuntimeError: a job failed otherwise, or its process died.

    Example:
        >>> run_each([lambda: 1, lambda: 2], workers=1)
        [1, 2]
    """
    if workers < 0:
        raise ConfigError(f"workers must be at least 0, got {workers}; 0 is one for each core")
    count = min(workers or cores(), len(jobs))
    # A forked process cannot use a GPU that its parent has spoken to; there, models train one after another, or batched.
    if count < 2 or torch.cuda.is_initialized() or "fork" not in multiprocessing.get_all_start_methods():
        return _one_by_one(jobs, told)
    return _Pool(jobs, count, told).run()


def _one_by_one(jobs: Sequence[Callable[[], _T]], told: Callable[[int, int], None] | None) -> list[_T]:
    results = []
    with torch_threads(1):
        for job in jobs:
            results.append(job())
            if told is not None:
                told(len(results), len(jobs))
    return results


class _Pool:
    """Processes that each do one job and end."""

    def __init__(self, jobs: Sequence[Callable[[], Any]], workers: int, told: Callable[[int, int], None] | None) -> None:
        self.jobs, self.workers, self.told = jobs, workers, told
        self.results: dict[int, Any] = {}
        self.running: dict[Connection, tuple[int, BaseProcess]] = {}

    def run(self) -> list[Any]:
        """Run all jobs."""
        try:
            for place in range(len(self.jobs)):
                if len(self.running) == self.workers:
                    self._gather()
                self._begin(place)
            while self.running:
                self._gather()
        finally:  # an error, or an interrupt
            for _, process in self.running.values():
                process.terminate()
                process.join()
        return [self.results[place] for place in range(len(self.jobs))]

    def _begin(self, place: int) -> None:
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_do, args=(self.jobs[place], theirs), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # Python 3.12 on: threads are there, but none holds a lock of ours
            process.start()
        theirs.close()
        self.running[mine] = place, process

    def _gather(self) -> None:
        """Wait for a job to end, and take what it came to."""
        for pipe in wait(list(self.running)):
            assert isinstance(pipe, Connection)  # noqa: S101 -- nothing else is waited for
            place, process = self.running.pop(pipe)
            try:
                kind, value = pipe.recv()
            except EOFError:
                kind, value = "died", ""
            process.join()
            pipe.close()
            if kind != "done":
                raise _error(kind, value, process.exitcode)
            self.results[place] = value
            if self.told is not None:
                self.told(len(self.results), len(self.jobs))


def _do(job: Callable[[], Any], pipe: Connection) -> None:
    """Do a job in a process of its own, and say what it came to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, which ends its processes
    torch.set_num_threads(1)
    try:
        pipe.send(("done", job()))
    except SfumatoError as error:
        pipe.send((type(error).__name__, str(error)))
    except Exception:
        pipe.send(("failed", traceback.format_exc()))
    pipe.close()


def _error(kind: str, text: str, status: int | None) -> Exception:
    """Return the error of a job: one of ours by its name, where it takes no more than a message."""
    found = getattr(errors, kind, None)
    if kind == "died":
        return RuntimeError(f"a process died with status {status}, perhaps for want of memory; run fewer at once: workers = 1")
    if found is None:
        return RuntimeError(f"a job failed in its process:\n{text}")
    return found(text) if found is not errors.RecipeError else ConfigError(text)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads inside a `with` block.

    Args:
        count: of the threads.

    Example:
        >>> with torch_threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
