# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.picture import Encoded, decode
from sfumato.errors import CorruptPictureError, DataError


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "wanted"), [("L", "L"), ("RGB", "RGB"), ("RGBA", "RGB"), ("P", "RGB"), ("1", "RGB"), ("LA", "RGB")]
)
def test_modes(mode: str, wanted: str) -> None:
    assert decode(Encoded("a", saved(Image.new(mode, (3, 2))), 0)).mode == wanted


def test_transparent_palette_does_not_warn() -> None:
    image = Image.new("P", (3, 2))
    image.putpalette([255, 0, 0] * 256)
    assert decode(Encoded("a", saved(image, transparency=bytes(256)), 0)).mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF"])
def test_pixels_are_kept(form: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "picture"
    path.write_bytes(saved(Image.fromarray(pixels), form))
    assert np.array_equal(np.asarray(decode(Encoded("a", path, 0))), pixels)


def test_size_crops_the_center() -> None:
    pixels = np.zeros((4, 12), dtype=np.uint8)
    pixels[:, 4:8] = 200
    image = decode(Encoded("a", saved(Image.fromarray(pixels)), 0), size=4)
    assert image.size == (4, 4)
    assert np.asarray(image).min() == 200


@pytest.mark.parametrize(("width", "height"), [(30, 11), (11, 30), (3, 5)])
def test_size_of_any_shape(width: int, height: int, picture_bytes: Callable[..., bytes]) -> None:
    assert decode(Encoded("a", picture_bytes(width=width, height=height), 0), size=8).size == (8, 8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about some damage before it gives up
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_corrupt_pictures_are_named(form: str, picture_bytes: Callable[..., bytes]) -> None:
    good = picture_bytes(width=64, height=64, form=form)
    broken = [b"", b"not a picture", good[: len(good) // 2], good[:10]]
    for content in broken:
        with pytest.raises(CorruptPictureError, match="cat.png: expected a picture.*--skip-bad"):
            decode(Encoded("cat.png", content, 0))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_never_escapes_as_another_error(picture_bytes: Callable[..., bytes]) -> None:
    draws = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        good = picture_bytes(width=16, height=16, form=form)
        for _ in range(60):
            damaged = np.frombuffer(good, dtype=np.uint8).copy()
            damaged[draws.integers(0, len(damaged), 4)] = draws.integers(0, 256, 4)
            try:
                decode(Encoded("a", damaged.tobytes(), 0))
            except DataError:
                continue


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptPictureError, match="No such file"):
        decode(Encoded("a", tmp_path / "a.png", 0))


def test_bomb(monkeypatch: pytest.MonkeyPatch, picture_bytes: Callable[..., bytes]) -> None:
    for limit in (10, 40):  # Pillow's error, and its warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(CorruptPictureError, match="cat.png: too many pixels"):
            decode(Encoded("cat.png", picture_bytes(), 0))


def test_deep_pictures_are_refused() -> None:
    content = saved(Image.fromarray(np.zeros((4, 4), dtype=np.uint16)))
    with pytest.raises(DataError, match="expected 8 bits a channel"):
        decode(Encoded("a", content, 0))


def test_postscript_is_not_even_tried() -> None:
    with pytest.raises(CorruptPictureError, match="it is none of BMP, GIF, JPEG"):
        decode(Encoded("a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_was_held(orientation: int) -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # the row and the column of the picture that the first row and column are said to be
    upright = [rows, rows[:, ::-1], rows[::-1, ::-1], rows[::-1], rows.T, rows[::-1].T, rows[::-1, ::-1].T, rows[:, ::-1].T]
    found = decode(Encoded("a", saved(Image.fromarray(rows), exif=exif), 0))
    assert np.array_equal(np.asarray(found), upright[orientation - 1])
