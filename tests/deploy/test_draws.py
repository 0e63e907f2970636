# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from sfumato.deploy.draws import Fresh, Source, Sticky, fill
from sfumato.deploy.manifest import Distribution, Draw

DISTRIBUTIONS: list[Distribution] = ["normal", "uniform", "exponential"]
MOMENTS = {"normal": (0.0, 1.0, 0.0, 3.0), "uniform": (0.5, 12**-0.5, 0.0, 1.8), "exponential": (1.0, 1.0, 2.0, 9.0)}
MANY = 200_000
ALPHA = 1e-7  # of a test that is right: once in ten million runs of the suite
PICTURES = np.random.default_rng(0).random((4, 1, 3, 3), np.float32)


def shared(some: np.ndarray, others: np.ndarray) -> float:
    """Return the share of numbers that others have too: a few of float32 may be equal by chance."""
    return float(np.isin(some, others).mean())


def drawn(distribution: Distribution, count: int = MANY) -> np.ndarray:
    return fill([Draw("d", distribution, (count,))], PICTURES[:1], Fresh())["d"].ravel()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_numbers_are_of_their_distribution(distribution: Distribution) -> None:
    reference = {"normal": stats.norm, "uniform": stats.uniform, "exponential": stats.expon}
    found = drawn(distribution)
    assert stats.kstest(found, reference[distribution].cdf).pvalue > ALPHA
    for other in set(DISTRIBUTIONS) - {distribution}:
        assert stats.kstest(found, reference[other].cdf).pvalue < ALPHA  # the test can fail
    assert stats.kstest(found * 1.03, reference[distribution].cdf).pvalue < ALPHA


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_moments_and_tails(distribution: Distribution) -> None:
    mean, spread, skew, kurtosis = MOMENTS[distribution]
    found = drawn(distribution).astype(np.float64)
    assert abs(found.mean() - mean) < 6 * spread / MANY**0.5
    assert abs(found.std() - spread) < 0.02 * spread
    assert abs(stats.skew(found) - skew) < 0.25
    assert abs(stats.kurtosis(found, fisher=False) - kurtosis) < 0.25 * kurtosis
    if distribution == "normal":
        assert 3.5 < np.abs(found).max() < 8.6
    elif distribution == "uniform":
        assert (found.min() >= 0, found.max() < 1) == (True, True)
    else:
        assert 8 < found.max() < 37


def test_numbers_of_a_pair_and_their_neighbors_are_independent() -> None:
    found = fill([Draw("d", "normal", (2, MANY // 2))], PICTURES[:1], Fresh())["d"][0].astype(np.float64)
    limit = 6 / (MANY // 2) ** 0.5
    assert abs(np.corrcoef(found)[0, 1]) < limit  # the two halves are the cosines and the sines
    assert abs(np.corrcoef(found**2)[0, 1]) < 2 * limit
    flat = found.ravel()
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < limit


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (5, 7), (1, 1, 1), (8, 2, 2)], ids=str)
def test_shapes_and_types(distribution: Distribution, shape: tuple[int, ...]) -> None:
    draws = [Draw("a", distribution, shape), Draw("b", "uniform", (3,)), Draw("c", distribution, shape)]
    found = fill(draws, PICTURES, Fresh())
    assert [(name, part.shape) for name, part in found.items()] == [("a", (4, *shape)), ("b", (4, 3)), ("c", (4, *shape))]
    assert {part.dtype for part in found.values()} == {np.dtype(np.float32)}
    assert len(np.unique(found["b"], axis=0)) == 4
    assert shared(found["a"], found["c"]) < 0.5


def test_nothing_random_needs_nothing() -> None:
    assert fill([], PICTURES, Fresh()) == {}


class Constant:
    """A source that broke."""

    def __init__(self, byte: int) -> None:
        self.byte = byte

    def draw(self, picture: bytes, count: int) -> bytes:
        return bytes([self.byte]) * count


@pytest.mark.parametrize("byte", [0, 255, 128])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_ends_of_the_range_are_finite(distribution: Distribution, byte: int) -> None:
    found = fill([Draw("d", distribution, (5,))], PICTURES, Constant(byte))["d"]
    assert np.isfinite(found).all()
    if distribution == "uniform":
        assert 0 <= found.min() <= found.max() < 1
    if distribution == "exponential":
        assert found.min() >= 0


class Words:
    """A source of given 64-bit words, the same for each picture."""

    def __init__(self, *words: int) -> None:
        self.words = words

    def draw(self, picture: bytes, count: int) -> bytes:
        assert count == 8 * len(self.words)
        return b"".join(word.to_bytes(8, "little") for word in self.words)


def test_the_equations_in_literal_numbers() -> None:
    half, quarter = 1 << 63, 1 << 62
    assert fill([Draw("d", "uniform", (2,))], PICTURES, Words(half, quarter))["d"][0].tolist() == [0.5, 0.25]
    assert fill([Draw("d", "exponential", (1,))], PICTURES, Words(half))["d"][0] == pytest.approx(np.log(2))
    found = fill([Draw("d", "normal", (2,))], PICTURES, Words(half, quarter))["d"][0]
    assert found == pytest.approx([0, (2 * np.log(2)) ** 0.5], abs=1e-6)


@pytest.mark.parametrize("source", [Fresh, Sticky])
def test_two_devices_and_two_pictures_differ(source: Callable[[], Source]) -> None:
    draws = [Draw("d", "normal", (9,))]
    rows = np.concatenate([fill(draws, PICTURES, source())["d"] for _ in range(3)])
    assert all(shared(rows[at], rows[:at]) < 0.5 for at in range(1, len(rows)))


def test_fresh_never_repeats_and_sticky_repeats_for_identical_pictures_only() -> None:
    draws, fresh, sticky = [Draw("d", "normal", (9,))], Fresh(), Sticky()
    assert shared(fill(draws, PICTURES, fresh)["d"], fill(draws, PICTURES, fresh)["d"]) < 0.5
    first = fill(draws, PICTURES, sticky)["d"]
    assert (fill(draws, PICTURES[::-1], sticky)["d"] == first[::-1]).all()
    near = np.nextafter(PICTURES, np.float32(2))  # one bit or so
    assert shared(fill(draws, near, sticky)["d"], first) < 0.5


@pytest.mark.parametrize("source", ["Fresh", "Sticky"])
def test_two_starts_differ(source: str) -> None:
    code = f"from sfumato.deploy.draws import {source} as S; print(S().draw(b'picture', 64).hex())"
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert len(found[0].strip()) == 128
    assert found[0] != found[1]
