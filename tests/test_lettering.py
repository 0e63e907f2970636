# SPDX-License-Identifier: Apache-2.0
"""Labels stand beside their points, and neither on each other nor outside the drawing."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from sfumato.lettering import Box, beside, leader, legend, length, over, wrap

FRAME = Box(40, 0, 360, 320)


@pytest.mark.parametrize("spread", [320.0, 40.0, 0.0])
def test_labels_never_collide(spread: float) -> None:
    moves = torch.rand((10, 2), generator=torch.Generator().manual_seed(0)) * spread
    places = [(60 + x * 0.8, 20 + y * 0.9) for x, y in moves.tolist()]
    taken = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in places]
    labels = beside(places, [f"Defense {number} + CEM" for number in range(10)], frame=FRAME, taken=taken)
    assert not any(one.box.meets(other.box) for one, other in combinations(labels, 2))
    assert all(FRAME.holds(label.box) for label in labels)


def test_a_label_avoids_what_is_drawn_and_stays_near() -> None:
    place, point = (200.0, 160.0), Box(192, 152, 208, 168)
    (free,) = beside([place], ["Noise"], frame=FRAME, taken=[point])
    (moved,) = beside([place], ["Noise"], frame=FRAME, taken=[point, free.box])
    assert not any(label.box.meets(point) for label in (free, moved))
    assert not moved.box.meets(free.box)
    assert leader(place, free) is leader(place, moved) is None


def test_a_label_far_away_gets_a_leader() -> None:
    place = (200.0, 160.0)
    (label,) = beside([place], ["Noise"], frame=FRAME, taken=[Box(x, 100, x + 1, 220) for x in range(40, 360, 2)])
    end = leader(place, label)
    assert end is not None
    assert end[1] in {label.box.top, label.box.bottom}


@pytest.mark.parametrize("width", [760, 360])
@pytest.mark.parametrize("name", ["Noise", "Bottleneck + NoiseNoPeek + CEM", "x" * 200, "画像" * 60, ""])
def test_the_legend_and_what_appears_stay_inside_the_drawing(width: int, name: str) -> None:
    keys = legend([name] * 5, width)
    assert all(key.box.left >= 0 and key.box.right <= width for key in keys)
    assert all(46 + max(map(length, key.lines)) <= key.box.right - key.box.left for key in keys)
    assert not any(one.box.meets(other.box) for one, other in combinations(keys, 2))
    for place in ((40.0, 30.0), (width - 4.0, 300.0)):
        text = over(place, (name, name), width)
        assert 0 <= text.box.left < text.box.right <= width
        assert text.box.top >= 0
        assert not text.box.top <= place[1] <= text.box.bottom


def test_wrap_marks_what_it_leaves_out() -> None:
    assert wrap("one two three", 300) == ("one two three",)
    assert wrap("one two three four five", 60, lines=2) == ("one two", "three …")
    assert wrap("", 60) == ("",)
