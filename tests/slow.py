# SPDX-License-Identifier: Apache-2.0
"""Measures written slowly in NumPy, as their papers have them."""

from __future__ import annotations

import numpy as np


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of one picture, channel by channel and window by window, borders mirrored."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for one, other in zip(a, b, strict=True):
        x, y = np.pad(one, 5, mode="reflect"), np.pad(other, 5, mode="reflect")
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq, c = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2, (window * p * q).sum() - mp * mq
                values.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


def slow_region_mse(x_hat: np.ndarray, x: np.ndarray, box: list[int]) -> tuple[float | None, float | None]:
    """The mean squared error of one picture inside and outside a box, pixel by pixel; None where there is no pixel."""
    top, left, bottom, right = box
    sides: tuple[list[float], list[float]] = ([], [])
    for channel, row, column in np.ndindex(*x.shape):
        beside = not (top <= row < bottom and left <= column < right)
        sides[beside].append(float(x_hat[channel, row, column] - x[channel, row, column]) ** 2)
    inside, outside = (float(np.mean(errors)) if errors else None for errors in sides)
    return inside, outside
