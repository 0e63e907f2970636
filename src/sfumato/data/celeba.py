# SPDX-License-Identifier: Apache-2.0
"""CelebA: aligned faces of celebrities, by who it is.

Source: liu2015celeba; the crop is that of zhang2020secret's released code.
Departures: pictures are brought to their size bicubically, as everywhere here, where the released code does so bilinearly. The
published split has different people in train and test; here the pictures of each person are split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.base import Data, Reading
from sfumato.data.crop import Middle
from sfumato.data.people import read_people
from sfumato.data.source import Layout, Source, locate
from sfumato.errors import DataError

_LAYOUTS = (
    Layout(Path("celeba"), ("identity_CelebA.txt", "img_align_celeba")),
    Layout(Path("CelebA"), ("Anno/identity_CelebA.txt", "Img/img_align_celeba")),
)


@dataclass(frozen=True, kw_only=True)
class CelebA(Source):
    """CelebA: 202,599 aligned faces of 10,177 people; 20 % of the pictures of each are the part `test`.

    Looked for below the data root: celeba/{identity_CelebA.txt,img_align_celeba}, or the folders of the download,
    CelebA/{Anno/identity_CelebA.txt,Img/img_align_celeba}.

    Args:
        size: side of the square that pictures are brought to.
        crop: side of the square that is cut out of the middle first, in pixels of the 178x218; 178 keeps the whole width.
        seed: of the split.

    Raises:
        ConfigError: crop is not from 1 to 178.
    """

    size: int = 64
    crop: int = 108
    seed: int = 0

    def __post_init__(self) -> None:
        Middle(self.crop, of=178)

    def load(self, reading: Reading) -> Data:
        """Read the faces."""
        listed, folder = locate("celeba", _LAYOUTS, reading).paths
        files: dict[str, list[Path]] = {}
        for line, text in enumerate(listed.read_text(encoding="utf-8").splitlines(), start=1):
            match text.split():
                case [file, who] if who.isdigit():
                    files.setdefault(who, []).append(folder / file)
                case _:
                    raise DataError(f"{listed}, line {line}: expected a file and a number, got '{text}'; get the file again")
        ordered = dict(sorted(files.items(), key=lambda item: int(item[0])))
        return read_people("celeba", {"train": ordered}, reading, size=self.size, cut=Middle(self.crop, of=178), seed=self.seed)
