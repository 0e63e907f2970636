# SPDX-License-Identifier: Apache-2.0
"""Profiles as a picture and as rows: every layer at its place with its share, none where there is no information."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from sfumato import markdown
from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.fisher_drawing import SUMMARY, drawing, headings, listing, series, summary


def profile(task: str, *rows: list[float]) -> FisherProfile:
    each = torch.tensor(rows, dtype=torch.float64)
    return FisherProfile(task, ("c1", "c2", "c3", "out")[: each.shape[1]], (10, 2000, 30, 4), 3, each, torch.arange(len(rows)))


PROFILES = {
    "naming": profile("classification", [1.0, 1.0, 2.0, 4.0], [1.0, 1.0, 2.0, 4.0]),
    "rebuilding": profile("inversion", [6.0, 2.0, 1.0, 0.0], [4.0, 1.0, 1.0, 0.0], [1.0, 2.0, 2.0, 0.0]),
}


def test_a_line_has_the_layers_that_have_any_information() -> None:
    one = series("rebuilding", PROFILES["rebuilding"])
    assert [point.label for point in one.points] == ["c1", "c2", "c3"]
    assert [point.x.value for point in one.points] == [1, 2, 3]
    assert [point.y.value for point in one.points] == pytest.approx([55, 25, 20])
    assert one.points[0].y.low < one.points[0].y.value < one.points[0].y.high
    assert series("nothing", profile("none", [0.0, 0.0, 0.0, 0.0])).points == ()


def test_the_picture_holds_every_point_of_every_line() -> None:
    root = ElementTree.fromstring(drawing(PROFILES))
    said = [one.get("aria-label", "") for one in root.iter() if "point" in one.get("class", "").split()]
    assert len(said) == 7
    assert "naming; out; layer: 4 (4 to 4); share of the information: 50.0 % (50.0 to 50.0)" in said
    assert drawing({"nothing": profile("none", [0.0] * 4)}) == drawing({}) == ""


def test_the_table_has_a_row_for_each_layer_and_says_zero_where_it_is() -> None:
    assert headings(PROFILES) == ["Layer", "Parameters", "naming: share", "rebuilding: share"]
    rows = listing(PROFILES)
    assert [row.label for row in rows] == ["1. c1", "2. c2", "3. c3", "4. out"]
    assert [row.cells[0] for row in rows] == ["10", "2,000", "30", "4"]
    assert rows[1].cells[1] == "12.5 % (12.5 to 12.5)"
    assert rows[3].cells[2] == "0 %"
    assert markdown.table(headings(PROFILES), rows).count("\n") == 5
    assert listing({}) == []


def test_the_summary_has_both_numbers_with_and_without_what_comes_after_the_embedding() -> None:
    rows = {row.label: row.cells for row in summary(PROFILES)}
    assert list(rows) == [f"{name}, {where}" for name in PROFILES for where in ("all layers", "before the embedding")]
    assert rows["naming, all layers"] == ("16.7 % (16.7 to 16.7)", "0.95 (0.95 to 0.95)")
    assert rows["naming, before the embedding"] == ("25.0 % (25.0 to 25.0)", "0.87 (0.87 to 0.87)")
    assert rows["rebuilding, before the embedding"][0].startswith("55.0 %")
    assert len(SUMMARY) == 1 + len(rows["naming, all layers"])
