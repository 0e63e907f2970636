# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.base import Reading
from sfumato.data.decode import EncodedPart, decode_parts
from sfumato.data.picture import Encoded
from sfumato.data.resident import ResidentPictures
from sfumato.data.streamed import StreamedPictures
from sfumato.errors import ConfigError, CorruptPictureError, DataError

MakeBytes = Callable[..., bytes]


def part(*contents: bytes, name: str = "p") -> EncodedPart:
    return EncodedPart(
        len(contents), lambda: (Encoded(f"{name}{place}", content, place) for place, content in enumerate(contents))
    )


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("budget", [1 << 20, 400])
def test_order_and_pixels(picture_bytes: MakeBytes, budget: int, tmp_path: Path) -> None:
    contents = [picture_bytes(seed) for seed in range(40)]
    decoded = decode_parts({"train": part(*contents)}, size=None, reading=Reading(budget=budget, spool=tmp_path))
    train = decoded.parts["train"]
    assert isinstance(train, ResidentPictures if budget > 400 else StreamedPictures)
    assert train.labels.tolist() == list(range(40))
    wanted = np.stack([pixels_of(content) for content in contents]).transpose(0, 3, 1, 2)
    assert np.array_equal(train.read(torch.arange(40)).numpy(), wanted)


def test_large_pictures_by_several_threads(picture_bytes: MakeBytes) -> None:
    contents = [picture_bytes(seed, width=80, height=70, mode="L") for seed in range(300)]
    train = decode_parts({"train": part(*contents)}, size=None, reading=Reading()).parts["train"]
    assert np.array_equal(train.read(torch.arange(300)).numpy()[:, 0], np.stack([pixels_of(content) for content in contents]))


def test_parts_share_the_budget(picture_bytes: MakeBytes, tmp_path: Path) -> None:
    three = [picture_bytes(seed) for seed in range(3)]  # 576 bytes decoded
    parts = decode_parts(
        {"train": part(*three), "test": part(*three)}, size=None, reading=Reading(budget=1000, spool=tmp_path)
    ).parts
    assert isinstance(parts["train"], ResidentPictures)
    assert isinstance(parts["test"], StreamedPictures)


def test_all_gray_has_one_channel(picture_bytes: MakeBytes) -> None:
    gray = picture_bytes(mode="L")
    assert decode_parts({"train": part(gray, gray)}, size=None, reading=Reading()).parts["train"].shape == (1, 8, 8)


@pytest.mark.parametrize("order", [("L", "RGB"), ("RGB", "L")])
def test_mixed_becomes_color_in_every_part(picture_bytes: MakeBytes, order: tuple[str, str]) -> None:
    first, second = (picture_bytes(mode=mode) for mode in order)
    parts = decode_parts({"train": part(first, first), "test": part(second)}, size=None, reading=Reading()).parts
    assert parts["train"].shape == parts["test"].shape == (3, 8, 8)
    gray = parts["train" if order[0] == "L" else "test"].read(torch.tensor([0]))[0]
    assert torch.equal(gray[0], gray[2])


def test_unequal_sizes_name_the_first_two(picture_bytes: MakeBytes) -> None:
    equal, unequal = picture_bytes(width=8, height=6), picture_bytes(width=9, height=6)
    with pytest.raises(DataError, match=r"p0 is 8x6 and q1 is 9x6.*give size="):
        decode_parts({"train": part(equal, equal), "test": part(equal, unequal, name="q")}, size=None, reading=Reading())
    parts = decode_parts({"train": part(equal, unequal)}, size=5, reading=Reading()).parts
    assert parts["train"].shape == (3, 5, 5)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_pictures_stop_or_are_skipped(picture_bytes: MakeBytes, place: int) -> None:
    contents = [picture_bytes(seed) for seed in range(3)]
    contents[place] = contents[place][:60]
    parts = {"train": part(*contents), "test": part(picture_bytes(9), b"", name="q")}
    with pytest.raises(CorruptPictureError, match=f"p{place}: .*--skip-bad"):
        decode_parts(parts, size=None, reading=Reading())
    decoded = decode_parts(parts, size=None, reading=Reading(skip_bad=True))
    assert decoded.skipped == (f"p{place}", "q1")
    assert decoded.parts["train"].labels.tolist() == [number for number in range(3) if number != place]


def test_nothing_but_bad_pictures() -> None:
    with pytest.raises(DataError, match="none of 2 can be decoded"):
        decode_parts({"train": part(b"", b"x")}, size=None, reading=Reading(skip_bad=True))


def test_size_out_of_range() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel, got 0"):
        decode_parts({}, size=0, reading=Reading())
