# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.data.augment import Augment
from sfumato.errors import ConfigError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(16, 3, 6, 9, generator=stream(1))


def literal(x: np.ndarray, down: np.ndarray, right: np.ndarray, mirrored: np.ndarray, crop: int) -> np.ndarray:
    """Crop and flip, a pixel at a time."""
    out = np.zeros_like(x)
    count, channels, height, width = x.shape
    for n, c, row, column in np.ndindex(count, channels, height, width):
        from_row, from_column = row + down[n] - crop, (width - 1 - column if mirrored[n] else column) + right[n] - crop
        if 0 <= from_row < height and 0 <= from_column < width:
            out[n, c, row, column] = x[n, c, from_row, from_column]
    return out


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True), (7, True)])
def test_crop_and_flip_move_pixels_exactly(x: torch.Tensor, crop: int, flip: bool) -> None:
    draws, n = stream(), len(x)
    shift = torch.randint(2 * crop + 1, (2, n), generator=draws) if crop else torch.zeros(2, n, dtype=torch.int64)
    mirrored = torch.rand(n, generator=draws) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    wanted = literal(x.numpy(), shift[0].numpy(), shift[1].numpy(), mirrored.numpy(), crop)
    moved = Augment(crop=crop, flip=flip, rotation=0)(x, stream())
    assert np.array_equal(moved.numpy(), wanted)
    assert not torch.equal(moved, x)


def test_a_tiny_rotation_is_close_to_the_exact_moves(x: torch.Tensor) -> None:
    exact = Augment(crop=2, flip=True, rotation=0)(x, stream())
    assert torch.allclose(Augment(crop=2, flip=True, rotation=1e-5)(x, stream()), exact, atol=1e-4)


def test_quarter_turn_of_a_rectangle(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 1, 5, 9)
    x[0, 0, 2, 4:7] = 1  # from the center to the right
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1))  # the largest angle
    turned = Augment(crop=0, flip=False, rotation=90)(x, stream())
    column = turned[0, 0, :, 4]
    assert column.sum().item() == pytest.approx(3, abs=1e-4)
    assert turned.sum().item() == pytest.approx(3, abs=1e-4)
    assert torch.allclose(column, torch.tensor([1.0, 1, 1, 0, 0]), atol=1e-4)


def test_rotation_matches_a_literal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, degrees = torch.rand(1, 1, 6, 9, generator=stream(3)), 20.0
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1))
    turned = Augment(crop=0, flip=False, rotation=degrees)(x, stream())
    picture, angle = np.pad(x[0, 0].numpy(), 8), math.radians(degrees)
    for row, column in np.ndindex(6, 9):
        across, along = column - 4.0, row - 2.5
        from_column = math.cos(angle) * across - math.sin(angle) * along + 4.0 + 8
        from_row = math.sin(angle) * across + math.cos(angle) * along + 2.5 + 8
        r, c = math.floor(from_row), math.floor(from_column)
        down, right = from_row - r, from_column - c
        wanted = (1 - down) * ((1 - right) * picture[r, c] + right * picture[r, c + 1])
        wanted += down * ((1 - right) * picture[r + 1, c] + right * picture[r + 1, c + 1])
        assert turned[0, 0, row, column].item() == pytest.approx(wanted, abs=1e-5)


def test_nothing_enabled_is_the_identity(x: torch.Tensor) -> None:
    assert Augment(crop=0, flip=False, rotation=0)(x, stream()) is x


@pytest.mark.parametrize("augment", [Augment(), Augment(rotation=0), Augment(crop=0, flip=False, rotation=180)])
def test_same_seed_same_bits_within_range(x: torch.Tensor, augment: Augment) -> None:
    moved = augment(x, stream(5))
    assert torch.equal(moved, augment(x, stream(5)))
    assert not torch.equal(moved, augment(x, stream(6)))
    assert moved.shape == x.shape
    assert 0 <= moved.min() <= moved.max() <= 1


def test_white_stays_within_range() -> None:
    moved = Augment(rotation=45)(torch.ones(64, 1, 16, 16), stream())
    assert moved.max() <= 1


@pytest.mark.parametrize("arguments", [{"crop": -1}, {"rotation": -1.0}, {"rotation": 181.0}, {"rotation": float("nan")}])
def test_arguments_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="0 disables it"):
        Augment(**arguments)  # type: ignore[arg-type]
