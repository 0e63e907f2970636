# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.picture import Encoded
from sfumato.data.picture import decode as library_decode
from sfumato.deploy.asking import pictures
from sfumato.deploy.asking.pictures import LARGEST, decode, find_pictures, read_pictures
from sfumato.errors import CorruptPictureError, DataError, MissingDataError

SIZES = [(8, 8), (9, 7), (31, 50), (64, 3), (1, 1)]
RNG = np.random.default_rng(0)


def encoded(mode: str, size: tuple[int, int], kind: str = "PNG", **how: object) -> bytes:
    """Return a file of a random picture."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    raw = RNG.integers(0, 256, size[0] * size[1] * bands, np.uint8).tobytes()
    image = Image.frombytes("L", size, raw).convert("P") if mode == "P" else Image.frombytes(mode, size, raw)
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def library_pixels(content: bytes, channels: int) -> np.ndarray:
    """Return what a folder data set with size=8 gives, (C, 8, 8)."""
    image = library_decode(Encoded("a", content, 0), size=8)
    image = image.convert("RGB") if channels == 3 and image.mode == "L" else image
    return np.asarray(image).reshape(8, 8, -1).transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
    ],
)
def test_the_pixels_are_those_of_the_library(mode: str, kind: str, size: tuple[int, int]) -> None:
    content = encoded(mode, size, kind)
    assert (decode("a", content, (3, 8, 8)) == library_pixels(content, 3)).all()
    if mode == "L":
        assert (decode("a", content, (1, 8, 8)) == library_pixels(content, 1)).all()


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    content = encoded("RGB", (6, 4))
    assert (decode("a", content, (3, 4, 6)) == np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)).all()


def test_color_becomes_gray_where_the_head_takes_gray() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (5, 5), (255, 0, 0)).save(stream, "PNG")
    assert decode("a", stream.getvalue(), (1, 2, 3)).tolist() == [[[76] * 3] * 2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_was_held(orientation: int) -> None:
    stored = Image.frombytes("L", (3, 2), bytes(range(6)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    stored.save(stream, "PNG", exif=exif)
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    # the row and the column of the picture that the first row and column are said to be
    upright = [rows, rows[:, ::-1], rows[::-1, ::-1], rows[::-1], rows.T, rows[::-1].T, rows[::-1, ::-1].T, rows[:, ::-1].T]
    expected = upright[orientation - 1]
    assert (decode("a", stream.getvalue(), (1, *expected.shape)) == expected).all()


GOOD = encoded("RGB", (9, 9))


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", GOOD[: len(GOOD) // 2], GOOD[:40] + bytes(100), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["empty", "text", "half", "damaged", "another program's"],
)
def test_what_cannot_be_decoded_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(CorruptPictureError, match="b.png: expected a picture, but it cannot be decoded"):
        decode("b.png", content, (3, 8, 8))


@pytest.mark.parametrize("most", [80, 50])  # twice of which is an error of Pillow's, once a warning
def test_a_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(CorruptPictureError, match="too many pixels to decode safely"):
        decode("b.png", GOOD if most == 80 else encoded("L", (40, 40)), (3, 8, 8))


def test_deep_pictures_are_refused_even_where_bad_ones_are_passed_over(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(stream, "PNG")
    (tmp_path / "deep.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="8 bits a channel"):
        list(read_pictures([str(tmp_path / "deep.png")], (1, 8, 8), skipped=[]))


@pytest.mark.parametrize("shape", [(2, 8, 8), (4, 8, 8), (8,)])
def test_heads_that_take_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="gray or color"):
        decode("a", GOOD, shape)


def test_folders_are_sorted_and_hold_what_the_library_takes(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a.jpg", ".hidden.png", "c.txt", "d/e/f.webp", "g.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    found = find_pictures([str(tmp_path / "c.txt"), str(tmp_path), "-"])
    assert [str(Path(one).relative_to(tmp_path)) for one in found[:-1]] == ["c.txt", "a.jpg", "b/10.png", "b/2.PNG", "d/e/f.webp"]
    assert found[-1] == "-"


def test_places_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected pictures .*, found none"):
        find_pictures([str(tmp_path)])
    with pytest.raises(MissingDataError, match="nowhere, found nothing"):
        find_pictures([str(tmp_path / "nowhere")])
    with pytest.raises(MissingDataError, match="found nothing"):
        find_pictures(["x" * 5000])
    with pytest.raises(DataError, match="give it once"):
        find_pictures(["-", "-"])


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "private.png").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="got an empty name"):
        find_pictures([""])
    assert find_pictures(["."]) == ["private.png"]


def test_bad_pictures_are_passed_over_and_noted(tmp_path: Path) -> None:
    for name, content in (("a.png", GOOD), ("b.png", b"bad"), ("c.png", GOOD), ("d.npy", b"bad")):
        (tmp_path / name).write_bytes(content)
    names = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "d.npy")]
    skipped: list[CorruptPictureError] = []
    assert [Path(one.name).name for one in read_pictures(names, (3, 8, 8), skipped=skipped)] == ["a.png", "c.png"]
    assert len(skipped) == 2
    with pytest.raises(CorruptPictureError, match=r"b\.png"):
        list(read_pictures(names, (3, 8, 8)))


def test_standard_input_is_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD)))
    (one,) = read_pictures(["-"], (3, 8, 8))
    assert (one.name, one.pixels.shape) == ("-", (3, 8, 8))


def test_a_keyboard_gives_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = io.TextIOWrapper(io.BytesIO(GOOD))
    monkeypatch.setattr(keyboard, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", keyboard)
    with pytest.raises(DataError, match="found a keyboard"):
        list(read_pictures(["-"], (3, 8, 8), skipped=[]))


def test_what_cannot_be_read_is_passed_over_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder(io.RawIOBase):  # what standard input is after `< folder`
        def readable(self) -> bool:
            return True

        def readinto(self, into: object) -> int:
            raise IsADirectoryError(21, "Is a directory")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Folder())))
    skipped: list[CorruptPictureError] = []
    assert not list(read_pictures(["-", str(tmp_path / "gone.png")], (3, 8, 8), skipped=skipped))
    assert [str(one).split("; ")[0].split(": ")[2] for one in skipped] == ["Is a directory", "No such file or directory"]


def test_standard_input_may_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size == 101
            return bytes(size)

    monkeypatch.setattr(pictures, "LARGEST", 100)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Endless()))
    with pytest.raises(CorruptPictureError, match="found more"):
        list(read_pictures(["-"], (3, 8, 8)))


def test_the_reader_of_pictures_does_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.new("L", (5, 5)).save(stream, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x04\0")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(stream.getvalue())).getexif().get(0x0112)
        assert said  # otherwise this tests nothing
        said.clear()
        assert decode("a", stream.getvalue(), (1, 5, 5)).shape == (1, 5, 5)
    assert not said


def test_files_are_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LARGEST == 64 << 20
    monkeypatch.setattr(pictures, "LARGEST", len(GOOD) - 1)
    (tmp_path / "a.png").write_bytes(GOOD)
    with pytest.raises(CorruptPictureError, match="found more"):
        list(read_pictures([str(tmp_path / "a.png")], (3, 8, 8)))


def test_arrays_give_their_pictures_by_number(tmp_path: Path) -> None:
    rows = RNG.integers(0, 256, (3, 1, 4, 4), np.uint8)
    np.save(tmp_path / "a.npy", rows)
    found = list(read_pictures([str(tmp_path / "a.npy")], (1, 4, 4)))
    assert [one.name for one in found] == [f"{tmp_path}/a.npy[{at}]" for at in range(3)]
    assert (np.stack([one.pixels for one in found]) == rows).all()


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_gray_arrays_need_no_channel_and_fractions_stay_what_they_are(kind: type[np.generic], tmp_path: Path) -> None:
    rows = (RNG.integers(0, 2, (3, 4, 4))).astype(kind)
    np.save(tmp_path / "a.npy", rows)
    found = np.stack([one.pixels for one in read_pictures([str(tmp_path / "a.npy")], (1, 4, 4))])
    assert (found.dtype, found.shape) == (kind, (3, 1, 4, 4))
    assert (found[:, 0] == rows).all()
    with pytest.raises(DataError, match="of shape"):
        list(read_pictures([str(tmp_path / "a.npy")], (3, 4, 4)))


def test_arrays_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 1, 4, 4), np.uint8))
    found = read_pictures([str(path)], (1, 4, 4))
    first = next(found)
    with path.open("r+b") as file:  # what is changed now is seen: only one picture was read
        file.seek(-48, io.SEEK_END)
        file.write(b"\x09")
        file.seek(-1, io.SEEK_END)
        file.write(b"\x07")
    assert [one.pixels.max() for one in (first, *found)] == [0, 0, 7]


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((3, 1, 4, 5), np.uint8),
            DataError,
            r"of shape \(N, 1, 4, 4\) or \(N, 4, 4\), got uint8 of shape \(3, 1, 4, 5\)",
        ),
        (np.zeros((3, 1, 4, 4), np.float64), DataError, "expected uint8, or float32 in .*, got float64"),
        (np.full((3, 1, 4, 4), 1.5, np.float32), DataError, r"a.npy\[0\]: expected numbers in \[0, 1\], got 1.5 to 1.5; divide"),
        (np.full((3, 1, 4, 4), np.nan, np.float32), DataError, "got nan to nan"),
        (np.full((3, 1, 4, 4), -0.5, np.float32), DataError, "got -0.5 to -0.5"),
        (np.zeros((3, 4, 5), np.uint8), DataError, r"got uint8 of shape \(3, 4, 5\)"),
        (np.zeros((), np.uint8), DataError, "got uint8"),
        (np.array([{}, None]), CorruptPictureError, "cannot be read"),
    ],
)
def test_arrays_of_something_else(tmp_path: Path, array: np.ndarray, error: type[DataError], message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(error, match=message):
        list(read_pictures([str(tmp_path / "a.npy")], (1, 4, 4)))


def test_an_archive_or_half_an_array_is_none(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, np.zeros(3))
    with pytest.raises(DataError, match="got an archive"):
        list(read_pictures([str(tmp_path / "a.npy")], (1, 4, 4)))
    (tmp_path / "c.npy").write_bytes(b"I1\n.")  # the number 1 as a pickle, which could as well have been a program
    with pytest.raises(CorruptPictureError, match="cannot be read"):
        list(read_pictures([str(tmp_path / "c.npy")], (1, 4, 4)))
    np.save(tmp_path / "b.npy", np.zeros((3, 1, 4, 4), np.uint8))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-1])
    with pytest.raises(CorruptPictureError, match="cannot be read"):
        list(read_pictures([str(tmp_path / "b.npy")], (1, 4, 4)))


@pytest.mark.parametrize(
    ("version", "header"),
    [
        (1, b"{'descr': '|u1', 'fortran_order': False, 'shape': (((, 1, 4, 4), }"),
        (1, b"{'descr': '|u1', 'fortran_order': False, 'shape': (True, 1, 4, 4), }"),
        (3, b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999, 1, 4, 4), }"),
    ],
    ids=["brackets", "truth", "huge"],
)
def test_a_hostile_header_is_one_clear_error(tmp_path: Path, version: int, header: bytes) -> None:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + header + bytes(48))
    with pytest.raises(CorruptPictureError, match="cannot be read"):
        list(read_pictures([str(tmp_path / "a.npy")], (1, 4, 4)))
