# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from sfumato.data.resident import ResidentPictures
from sfumato.errors import DataError


@pytest.fixture
def pictures() -> ResidentPictures:
    pixels = torch.randint(0, 256, (6, 1, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ResidentPictures(pixels, torch.arange(6))


def test_read_gathers_in_the_order_of_the_index(pictures: ResidentPictures) -> None:
    read = pictures.read(torch.tensor([4, 0, 4]))
    assert torch.equal(read, pictures.span(0, 6)[[4, 0, 4]])


def test_subset_of_subset(pictures: ResidentPictures) -> None:
    subset = pictures.subset(torch.tensor([5, 3, 1])).subset(torch.tensor([2, 0]))
    assert subset.labels.tolist() == [1, 5]
    assert torch.equal(subset.read(torch.tensor([0, 1])), pictures.read(torch.tensor([1, 5])))
    assert torch.equal(subset.span(0, 2), pictures.read(torch.tensor([1, 5])))


def test_subset_shares_the_pixels(pictures: ResidentPictures) -> None:
    subset = pictures.subset(torch.arange(3))
    pictures.span(0, 1).fill_(7)
    assert bool((subset.read(torch.tensor([0])) == 7).all())


def test_moving_takes_the_pictures_of_a_subset_only(pictures: ResidentPictures) -> None:
    moved = pictures.subset(torch.tensor([3, 1])).to("meta")
    assert moved.device.type == "meta"
    assert moved.span(0, 9).shape == (2, 1, 4, 5)
    assert pictures.to("cpu") is pictures


def test_fingerprint_is_of_content(pictures: ResidentPictures) -> None:
    same = ResidentPictures(pictures.span(0, 6).clone(), torch.arange(6))
    assert same.fingerprint == pictures.fingerprint
    assert pictures.subset(torch.arange(6)).fingerprint == pictures.fingerprint
    assert pictures.subset(torch.arange(5)).fingerprint != pictures.fingerprint
    assert ResidentPictures(pictures.span(0, 6), torch.zeros(6)).fingerprint != pictures.fingerprint


def test_nbytes_and_length(pictures: ResidentPictures) -> None:
    assert len(pictures) == 6
    assert pictures.nbytes == 6 * 20


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [(torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.zeros(2)), (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2))],
)
def test_pixels_must_be_uint8_or_float32_of_four_dimensions(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="uint8 or float32, \\(N, C, H, W\\)"):
        ResidentPictures(pixels, labels)


def test_one_label_for_each_picture() -> None:
    with pytest.raises(DataError, match="2 pictures need labels"):
        ResidentPictures(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3))
