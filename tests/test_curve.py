# SPDX-License-Identifier: Apache-2.0
"""The picture of a trade-off: every point at its place, told without color, pointer or eyes, and nothing that runs."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from example_audits import audit, near, target
from sfumato.curve import NARROW, WIDE, Axis, Point, Series, draw, listing, trade_off
from sfumato.types import Audit, Interval

SVG = "{http://www.w3.org/2000/svg}"
X, Y = Axis("Accuracy", "%", ".1f", "higher is better"), Axis("MSE", better="higher hides more")


def series(name: str, *places: tuple[float, float]) -> Series:
    return Series(name, tuple(Point(near(x), near(y), f"point {x}") for x, y in places))


def drawn(shown: list[Series], width: int = WIDE) -> ElementTree.Element:
    return ElementTree.fromstring(draw(shown, X, Y, width=width))


def having(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def places(root: ElementTree.Element) -> list[tuple[float, float]]:
    circles = [point.find(f"{SVG}circle") for point in having(root, "point")]
    return [(float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in circles if circle is not None]


def defended(mse: float, *defenses: str, **changes: object) -> Audit:
    return audit(mse, 0.9, *defenses, **changes)


def test_points_stand_where_their_numbers_say() -> None:
    (left, low), (middle, between), (right, high) = places(drawn([series("a", (90, 0.02), (92, 0.03), (96, 0.06))]))
    assert (middle - left) / (right - left) == pytest.approx(1 / 3, abs=0.01)
    assert (low - between) / (low - high) == pytest.approx(1 / 4, abs=0.01)


def test_an_error_that_spans_much_is_drawn_by_factors() -> None:
    (_, low), (_, between), (_, high) = places(drawn([series("a", (90, 0.001), (92, 0.01), (96, 0.1))]))
    assert low - between == pytest.approx(between - high, abs=0.2)


def test_whiskers_span_the_intervals() -> None:
    point = Point(Interval(90.0, 88.0, 92.0), Interval(0.05, 0.04, 0.06), "p")
    root = drawn([Series("a", (point,)), series("ends", (88, 0.04), (92, 0.06))])
    (x, y), (left, bottom), (right, top) = places(root)
    path = having(root, "whisker")[0].get("d", "")
    start, end = re.fullmatch(r"M(\S+) \S+v6m0-3H(.+?)m0-3v6M.*", path).groups()  # type: ignore[union-attr]
    low, high = re.fullmatch(r".*M\S+ (\S+)h6m-3 0V(.+?)m-3 0h6", path).groups()  # type: ignore[union-attr]
    assert [float(number) for number in (start, end, low, high)] == pytest.approx([left, right, bottom, top], abs=0.11)
    assert left < x < right
    assert top < y < bottom


def test_series_differ_in_marker_and_dashes_and_are_labeled() -> None:
    names = [f"kind {number}" for number in range(8)]
    root = drawn([series(name, (90 + n, 0.02 + n / 100), (91 + n, 0.015 + n / 100)) for n, name in enumerate(names)])
    groups = having(root, "series")
    looks = [(one.get("class", "").split()[1], having(one, "marker")[0].get("d"), bool(having(one, "hollow"))) for one in groups]
    assert len(set(looks)) == 8
    assert len({shape for _, shape, _ in looks}) == 6
    assert ["".join(having(one, "label")[0].itertext()) for one in groups] == names
    style = "".join(root.find(f"{SVG}style").itertext())  # type: ignore[union-attr]
    assert len(set(line.split("stroke-dasharray: ")[1].split(";")[0] for line in style.split("}") if "dasharray" in line)) == 5


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_keyboard_reaches_every_series_and_point_with_its_numbers(width: int) -> None:
    root = drawn([series("Noise", (90, 0.02), (92, 0.03)), series("none", (95, 0.01))], width)
    said = [one.get("aria-label", "") for one in root.iter() if one.get("tabindex") == "0"]
    assert said[:2] == ["Series 1 of 2: Noise, 2 points", "Series 2 of 2: none, 1 point"]
    assert said[2] == "Noise; point 90; Accuracy: 90.0 % (89.1 to 90.9); MSE: 0.0200 (0.0198 to 0.0202)"
    shown = ["".join(part.itertext()) for part in having(root, "tip")]
    assert [text.replace(" ", "").replace("\n", "") for text in shown] == [
        text.replace("; ", "").replace(" ", "") for text in said[2:]
    ]


def test_what_a_text_says_is_escaped_and_nothing_runs_or_is_fetched() -> None:
    hostile = "</text><script>alert('1')</script>\"&"
    text = draw([Series(hostile, (Point(near(90), near(0.1), hostile),))], Axis(hostile, hostile), Axis(hostile))
    root = ElementTree.fromstring(text)
    assert not root.findall(f".//{SVG}script")
    assert hostile in having(root, "point")[0].get("aria-label", "")
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_points_that_are_not_finite_are_counted_and_not_drawn() -> None:
    odd = Series(
        "odd", (Point(near(90), near(math.nan), "a"), Point(near(math.inf), near(1), "b"), Point(near(91), near(0.1), "c"))
    )
    root = drawn([odd])
    assert len(places(root)) == 1
    assert "2 points have no finite numbers" in "".join(root.itertext())
    assert draw([Series("odd", odd.points[:2])], X, Y) == ""
    assert [row.cells[2] for row in listing([odd], X, Y)][0].startswith("not a number")


def test_the_axes_say_which_direction_is_better() -> None:
    text = "".join(drawn([series("a", (90, 0.1))]).itertext())
    assert "Accuracy (%), higher is better" in text
    assert "MSE, higher hides more" in text


def test_audits_of_one_kind_of_defense_form_a_series_in_the_order_of_their_error() -> None:
    audits = [
        audit(),
        defended(0.05, "Bottleneck(channels=8)", "Noise(sigma=0.4, distribution='gaussian')"),
        defended(0.03, "Noise(sigma=0.2)"),
        defended(0.02, "Bottleneck(channels=8)", "Noise(sigma=0.1, distribution='gaussian')"),
        defended(0.04, "Noise(sigma=0.3)", attacks=()),
    ]
    found = trade_off(["none", "a", "b", "c", "d"], audits)
    assert [one.name for one in found] == ["no defense", "Bottleneck + Noise", "Noise"]
    assert [point.label for point in found[1].points] == [
        "c, sigma = 0.1: decoder, best epoch, seed 0 (512 pictures)",
        "a, sigma = 0.4: decoder, best epoch, seed 0 (512 pictures)",
    ]
    (alone,) = found[0].points
    assert (alone.x.value, alone.y) == (98.0, audits[0].attacks[0].mse)
    assert alone.label.startswith("none: decoder")


def test_no_line_joins_different_cuts() -> None:
    one, other = (
        defended(0.03, "Noise(sigma=0.2)"),
        defended(0.04, "Noise(sigma=0.2)", target=replace(target("Noise()"), cut="c3")),
    )
    assert [series.name for series in trade_off(["a", "b"], [one, other])] == ["Noise, c2", "Noise, c3"]


def test_a_line_of_many_points_is_drawn_alone_and_points_may_stand_alone() -> None:
    both = series("a", (90, 0.02), (92, 0.03), (96, 0.06))
    line, points = drawn([replace(both, marked=False)]), drawn([replace(both, joined=False)])
    assert (len(having(line, "point")), len(having(line, "whisker")), len(having(line, "marker"))) == (0, 0, 0)
    assert len([one for one in having(line, "join") if one.tag == f"{SVG}polyline"]) == 1
    assert (len(having(points, "point")), len(having(points, "whisker"))) == (3, 3)
    assert having(points, "join") == having(points, "label") == []
    assert len(having(line, "label")) == 1
    assert "Each line can be reached" in line.get("aria-label", "")
    assert "Each point can be reached" in points.get("aria-label", "")


def test_a_point_that_its_axes_explain_says_no_empty_word() -> None:
    (point,) = having(drawn([Series("a", (Point(near(90), near(0.02), ""),))]), "point")
    assert point.get("aria-label", "").startswith("a; Accuracy: 90.0 %")
