# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.data.base import Reading
from sfumato.data.source import Layout, locate, require
from sfumato.errors import MissingDataError

LAYOUTS = [Layout(Path("first"), ("a", "b"), compressed=True), Layout(Path("second"), ("c",))]


def test_first_complete_layout(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first/a").touch()
    (tmp_path / "second/c").touch()
    assert locate("set", LAYOUTS, Reading(root=tmp_path)).layout == LAYOUTS[1]
    (tmp_path / "first/b.gz").touch()
    found = locate("set", LAYOUTS, Reading(root=tmp_path))
    assert found.paths == (tmp_path / "first/a", tmp_path / "first/b.gz")


def test_message_has_files_folders_and_root(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first/a").touch()
    with pytest.raises(MissingDataError) as caught:
        locate("set", LAYOUTS, Reading(root=tmp_path), hint="Or buy it.")
    for fact in (
        f"{tmp_path}/first: a[.gz], b[.gz] (missing only b)",
        f"{tmp_path}/second: c (missing)",
        "--data-root",
        "SFUMATO_DATA",
    ):
        assert fact in str(caught.value)
    assert str(caught.value).endswith("Or buy it.")


def test_message_without_a_root() -> None:
    with pytest.raises(MissingDataError, match=r"(?s)<data root>/second.*not set now"):
        locate("set", LAYOUTS, Reading())


def test_absolute_layout_needs_no_root(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert locate("set", [Layout(tmp_path, ("a",))], Reading()).paths == (tmp_path / "a",)


def test_require(tmp_path: Path) -> None:
    assert require("folder", tmp_path) == tmp_path
    with pytest.raises(MissingDataError, match="nothing is there"):
        require("folder", tmp_path / "nowhere")
