# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.faces import Celeb21, LfwGray
from sfumato.data.source import Source
from sfumato.errors import MissingDataError


def test_real_faces(shared: Path) -> None:
    lfw, celeb = LfwGray().load(Reading(root=shared)), Celeb21(size=48).load(Reading(root=shared))
    assert (lfw.name, lfw.shape, len(lfw.classes)) == ("lfw-gray", (1, 96, 96), 381)
    assert (celeb.name, celeb.shape, len(celeb.classes)) == ("celeb21", (3, 48, 48), 21)
    assert [len(part) for part in celeb.parts.values()] == [2486, 622]


@pytest.mark.parametrize("source", [LfwGray(), Celeb21()])
def test_missing(source: Source, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"train.parquet, test.parquet \(missing\)"):
        source.load(Reading(root=tmp_path))
