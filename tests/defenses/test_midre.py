# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato as sf
from sfumato.defenses.midre import MIDRE
from sfumato.errors import ConfigError
from sfumato.train import assemble, fit


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(erased: Tensor) -> np.ndarray:
    """Top, left, height and width of the one rectangle of each picture, (N, H, W) of bools; asserts that it is one."""
    found = []
    for mask in erased.numpy():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left, height, width = rows[0], columns[0], len(rows), len(columns)
        assert mask.sum() == height * width == mask[top : top + height, left : left + width].sum()
        found.append((top, left, height, width))
    return np.array(found)


def erase(defense: MIDRE, pictures: int = 4000, size: tuple[int, int] = (40, 40), seed: int = 0) -> Tensor:
    """Which pixels of black pictures are filled, (N, H, W)."""
    return defense.perturb(torch.zeros(pictures, 1, *size), stream(seed))[:, 0] > 0


def literal(x: np.ndarray, luck: np.ndarray, defense: MIDRE) -> np.ndarray:
    """The rectangle of zhong2020erasing, Algorithm 1, one picture after the other."""
    made = x.copy()
    count, _, height, width = x.shape
    for n in range(count):
        area = (defense.area[0] + (defense.area[1] - defense.area[0]) * luck[0, n]) * height * width
        low, high = math.log(defense.aspect[0]), math.log(defense.aspect[1])
        aspect = math.exp(low + (high - low) * luck[1, n])
        h, w = min(height, round(math.sqrt(area * aspect))), min(width, round(math.sqrt(area / aspect)))
        top, left = int(luck[2, n] * (height - h + 1)), int(luck[3, n] * (width - w + 1))
        if luck[4, n] < defense.p:
            for channel, value in enumerate(defense.fill):
                made[n, channel, top : top + h, left : left + w] = value
    return made


@pytest.mark.parametrize("shape", [(16, 16), (12, 20)])
@pytest.mark.parametrize("aspect", [(1.0, 1.0), (0.3, 3.3)])
def test_the_rectangle_is_that_of_the_algorithm(shape: tuple[int, int], aspect: tuple[float, float]) -> None:
    defense = MIDRE((0.02, 0.6), aspect=aspect, p=0.7, fill=(0.1, 0.5, 0.9))
    x = torch.rand(60, 3, *shape)
    luck = torch.rand(5, 60, generator=stream(4)).numpy()
    assert np.array_equal(defense.perturb(x, stream(4)).numpy(), literal(x.numpy(), luck, defense))


def test_the_area_is_uniform_between_its_bounds() -> None:
    shares = erase(MIDRE(), size=(80, 80)).float().mean((1, 2))
    assert 0.095 < shares.min() < 0.11
    assert 0.39 < shares.max() < 0.41
    quantiles = torch.tensor([0.25, 0.5, 0.75])
    assert torch.allclose(shares.quantile(quantiles), 0.1 + 0.3 * quantiles, atol=0.02)


def test_a_square_is_the_default_and_other_shapes_are_as_often_high_as_wide() -> None:
    _, _, height, width = boxes(erase(MIDRE(), 200)).T
    assert (height == width).all()
    _, _, height, width = boxes(erase(MIDRE((0.1, 0.2), aspect=(0.5, 2.0)), 2000, (80, 80))).T
    ratio = height / width
    assert 0.47 < ratio.min() < 0.55
    assert 1.8 < ratio.max() < 2.15
    assert np.median(ratio) == pytest.approx(1, abs=0.06)


def test_every_place_where_it_fits_is_as_likely() -> None:
    top, left, height, width = boxes(erase(MIDRE((0.25, 0.25)), 4000, (8, 8))).T
    assert set(height) == set(width) == {4}
    for first in (top, left):
        counts = np.bincount(first, minlength=5)
        assert len(counts) == 5
        assert np.abs(counts / 4000 - 0.2).max() < 0.03


def test_as_many_pictures_are_erased_as_p_says() -> None:
    assert erase(MIDRE(p=0.3)).any(2).any(1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert erase(MIDRE()).any(2).any(1).all()


def test_a_rectangle_that_is_too_long_is_cut_to_the_picture() -> None:
    _, _, height, width = boxes(erase(MIDRE((0.5, 0.5), aspect=(4.0, 4.0)), 20, (10, 10))).T
    assert set(height) == {10}
    assert set(width) == {4}  # sqrt(50 / 4) rounded


def test_other_pixels_stay_and_the_pictures_that_were_given_do_too() -> None:
    x = torch.rand(20, 3, 9, 9)
    before, made = x.clone(), MIDRE().perturb(x, stream())
    changed = (made != x).any(1)
    assert torch.equal(x, before)
    fill = torch.tensor([0.485, 0.456, 0.406])
    assert torch.equal(made.permute(0, 2, 3, 1)[changed], fill.expand(int(changed.sum()), 3))
    assert not changed.all(2).all(1).any()


@pytest.mark.parametrize(
    ("channels", "fill", "expected"),
    [(1, (0.3, 0.6, 0.9), [0.6]), (3, (0.25,), [0.25] * 3), (1, (0.5,), [0.5]), (2, (0.1, 0.2), [0.1, 0.2])],
)
def test_the_fill_suits_the_channels(channels: int, fill: tuple[float, ...], expected: list[float]) -> None:
    made = MIDRE((0.9, 0.9), fill=fill).perturb(torch.zeros(1, channels, 9, 9), stream())
    assert made.amax((0, 2, 3)).tolist() == pytest.approx(expected)


def test_a_seed_gives_the_same_rectangles_and_another_seed_others() -> None:
    assert torch.equal(erase(MIDRE(), 50), erase(MIDRE(), 50))
    assert not torch.equal(erase(MIDRE(), 50), erase(MIDRE(), 50, seed=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_and_layout_follow_the_pictures(dtype: torch.dtype) -> None:
    x = torch.rand(4, 3, 8, 8, dtype=dtype).contiguous(memory_format=torch.channels_last)
    made = MIDRE().perturb(x, stream())
    assert made.dtype == dtype
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_no_pictures_are_no_pictures() -> None:
    assert MIDRE().perturb(torch.zeros(0, 3, 8, 8), stream()).shape == (0, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_erases_on_the_device_of_the_pictures() -> None:
    made = MIDRE().perturb(torch.zeros(6, 3, 8, 8, device="cuda"), torch.Generator("cuda").manual_seed(0))
    assert made.is_cuda
    assert (made > 0).any(3).any(2).any(1).all()


def test_training_sees_erased_pictures_and_a_deployed_target_whole_ones(small_split: sf.Split, blobs: sf.Data) -> None:
    trained, plain = (sf.harden(small_split, blobs, defenses=d, epochs=1) for d in ([MIDRE()], []))
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), plain.parameters(), strict=True))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(trained(x), trained.split(x))


def test_it_goes_with_a_defense_that_bounds_what_each_picture_adds(small_split: sf.Split, blobs: sf.Data) -> None:
    assert MIDRE().separable
    target = assemble(small_split, blobs, [sf.DPSGD(noise_multiplier=1.0), MIDRE()], seed=0)
    fit(target, blobs, sf.Train(epochs=1), seed=0)
    assert target.defense.certificates


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"area": (0.0, 0.4)}, r"area must be two shares .* got \(0.0, 0.4\); \(0.1, 0.4\) is usual"),
        ({"area": (0.5, 0.4)}, "area must be two shares"),
        ({"area": (0.5, 1.0)}, "area must be two shares"),
        ({"aspect": (0.0, 1.0)}, "aspect must be two positive ratios"),
        ({"aspect": (1.0, math.inf)}, "aspect must be two positive ratios"),
        ({"p": 0.0}, r"p must be a probability in \(0, 1\], got 0.0; .* for no defense use Compose\(\)"),
        ({"p": 1.5}, "p must be a probability"),
        ({"fill": ()}, "fill must be one number"),
        ({"fill": (0.5, 1.2, 0.5)}, "fill must be one number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MIDRE(**arguments)  # type: ignore[arg-type]


def test_a_fill_of_other_channels_is_refused(small_split: sf.Split) -> None:
    data = sf.load_data((torch.rand(20, 4, 8, 8), torch.arange(20) % 2))
    with pytest.raises(ConfigError, match="fill must have one number for each of the 4 channels .* found 3"):
        MIDRE().prepare(small_split, data)
