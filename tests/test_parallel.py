# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.errors import ConfigError, RecipeError, TrainingError
from sfumato.parallel import run_each


def squared(number: int) -> np.ndarray:
    """A job that computes with PyTorch, gradients included."""
    x = torch.full((3,), float(number), requires_grad=True)
    (x**2).sum().backward()
    return (x.grad * x / 2).detach().numpy()


def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_jobs_answer_in_their_order(workers: int) -> None:
    said: list[tuple[int, int]] = []
    found = run_each([partial(squared, number) for number in range(7)], workers=workers, told=lambda *news: said.append(news))
    assert [answer.tolist() for answer in found] == [[number**2] * 3 for number in range(7)]
    assert said == [(done, 7) for done in range(1, 8)]


def test_jobs_run_in_processes_of_their_own_at_the_same_time() -> None:
    def job() -> tuple[int, float, float]:
        begun = time.monotonic()
        time.sleep(0.5)
        return os.getpid(), begun, time.monotonic()

    (first, *_), (second, *_) = found = run_each([job, job], workers=2)
    assert len({first, second, os.getpid()}) == 3
    assert max(begun for _, begun, _ in found) < min(ended for *_, ended in found)


def test_one_worker_is_this_process_and_one_thread_is_all_that_a_job_has() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for workers in (1, 2):
            found = run_each([lambda: (os.getpid(), torch.get_num_threads())] * 2, workers=workers)
            assert {threads for _, threads in found} == {1}
            assert (found[0][0] == os.getpid()) == (workers == 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_comes_back_as_what_it_is(workers: int) -> None:
    jobs: list[Callable[[], object]] = [partial(failing, TrainingError("the loss is nan")), partial(time.sleep, 0)]
    with pytest.raises(TrainingError, match="the loss is nan"):
        run_each(jobs, workers=workers)


def test_the_error_of_a_recipe_and_one_of_nobody_come_back_with_their_text() -> None:
    with pytest.raises(ConfigError, match="mine: 1 problem\n  - bad"):
        run_each([partial(failing, RecipeError("mine", ["bad"]))] * 2, workers=2)
    with pytest.raises(RuntimeError, match="(?s)a job failed in its process:.*ZeroDivisionError: by zero"):
        run_each([partial(failing, ZeroDivisionError("by zero"))] * 2, workers=2)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(RuntimeError, match="died with status 3"):
        run_each([lambda: os._exit(3)] * 2, workers=2)


def test_after_an_error_nothing_goes_on(tmp_path: Path) -> None:
    def late() -> None:
        time.sleep(0.5)
        (tmp_path / "late").touch()

    with pytest.raises(TrainingError):
        run_each([partial(failing, TrainingError("x")), late], workers=2)
    time.sleep(1)
    assert not (tmp_path / "late").exists()


def test_workers_below_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers must be at least 0, got -1"):
        run_each([], workers=-1)
