# SPDX-License-Identifier: Apache-2.0
"""The gallery of classes: what target and evaluator make of each picture, in words, and private pictures only where they are."""

from __future__ import annotations

import pytest
import torch

from example_audits import exhibit, pixels
from sfumato.inversion_gallery import gallery_rows, withheld
from sfumato.inversion_types import Rebuilt
from sfumato.png import picture


def test_each_picture_has_its_verdict_and_the_confidence_of_the_target() -> None:
    (row,) = gallery_rows([exhibit()], trusted=True)
    assert (row.name, row.tally) == ("anna", "1 of the 4 pictures shown recognized")
    first, second = row.strips
    assert [(one.verdict, one.confidence) for one in first.shots] == [
        ("recognized", "target: 99 %"),
        ("not recognized", "target: 87 %"),
    ]
    assert [one.alt for one in second.shots] == ["Reconstruction 1 of anna, by brepmi", "Reconstruction 2 of anna, by brepmi"]
    assert (first.heading, first.note) == ("kedmi", "")
    assert second.note == "not reached; what the prior shows"
    assert torch.equal(picture(first.shots[0].picture, (3, 4, 5)), exhibit().rebuilt[0].pixels[0])


def test_attacks_are_shown_in_the_order_of_their_table() -> None:
    (row,) = gallery_rows([exhibit("anna", pixels(3))], trusted=True, order=["brepmi", "gmi", "brepmi", "kedmi"])
    assert [strip.heading for strip in row.strips] == ["private", "brepmi", "kedmi"]
    (row,) = gallery_rows([exhibit()], trusted=True, order=["brepmi"])
    assert [strip.heading for strip in row.strips] == ["brepmi", "kedmi"]


def test_an_evaluator_below_its_gate_judges_nothing() -> None:
    (row,) = gallery_rows([exhibit()], trusted=False)
    assert row.tally == "not judged"
    assert {one.verdict for strip in row.strips for one in strip.shots} == {"not judged"}


def test_private_pictures_come_first_where_they_are_there() -> None:
    (row,) = gallery_rows([exhibit("anna", pixels(3, count=3))], trusted=True)
    assert [strip.heading for strip in row.strips] == ["private", "kedmi", "brepmi"]
    assert [(one.alt, one.verdict, one.confidence) for one in row.strips[0].shots[:1]] == [("Private picture 1 of anna", "", "")]
    assert len(row.strips[0].shots) == 3


def test_who_withholds_private_pictures_says_so() -> None:
    assert "--show-private" in withheld([exhibit()])
    assert withheld([exhibit("anna", pixels(3))]) == withheld([]) == ""


@pytest.mark.parametrize(("width", "side"), [(8, 96), (28, 84), (32, 96), (64, 128), (128, 128), (224, 192)])
def test_small_pictures_are_scaled_by_whole_numbers_and_large_ones_are_bounded(width: int, side: int) -> None:
    made = Rebuilt("gmi", 0, torch.zeros(1, 1, 8, width, dtype=torch.uint8), (0.5,), (True,))
    (row,) = gallery_rows([exhibit("anna", None, made)], trusted=True)
    assert row.side == side
