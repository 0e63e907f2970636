# SPDX-License-Identifier: Apache-2.0
"""A trade-off as a picture: series of measured points on two axes, as SVG that needs no script and no network.

A point shows its numbers when the pointer is on it or the keyboard's focus is; a series steps forward in the same way. Color,
marker, dashes and a label at its end each tell one series from another.

Example:
    >>> noise = Series("Noise", (Point(Interval(95.0, 94.1, 95.8), Interval(0.04, 0.038, 0.042), "sigma = 0.1"),))
    >>> draw([noise], Axis("Accuracy", "%", ".1f"), Axis("MSE"))[:5]
    '<svg '
    >>> listing([noise], Axis("Accuracy", "%", ".1f"), Axis("MSE"))[0].cells
    ('sigma = 0.1', '95.0 % (94.1 to 95.8)', '0.0400 (0.0380 to 0.0420)')
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sfumato.lettering import LINE, Box, Text, beside, leader, legend, length, over
from sfumato.page import render
from sfumato.scale import Scale, can_draw, scale
from sfumato.tables import Row, describe_scored, percent, show_interval
from sfumato.types import Audit, Interval

WIDE, NARROW = 760, 360
"""Widths of a drawing, in pixels, for a page and for a telephone."""

_STYLES = 6  # colors, markers and dashes; from then on the markers are hollow


@dataclass(frozen=True)
class Axis:
    """What is measured along a direction.

    Attributes:
        title: what it is.
        unit: of its numbers, or "".
        form: how its numbers are written, such as ".2f".
        better: which direction is better, or "" where neither is.
    """

    title: str
    unit: str = ""
    form: str = "#.3g"
    better: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (f"{self.title} ({self.unit})" if self.unit else self.title, self.better) if part)

    def show(self, interval: Interval) -> str:
        """Write a number of this axis with its interval."""
        return show_interval(interval, self.form, f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        x: with its 95 % interval, in the unit of its axis.
        y: likewise.
        label: what was measured here; "" where the axes say it.
    """

    x: Interval
    y: Interval
    label: str


@dataclass(frozen=True)
class Series:
    """Points, and a line that joins them.

    Attributes:
        name: what they have in common.
        points: in the order of the line.
        joined: draw the line, with the name at its end; else the legend alone names the points.
        marked: draw the points, each of which says its numbers; a line of very many is drawn alone.
    """

    name: str
    points: tuple[Point, ...]
    joined: bool = True
    marked: bool = True


def trade_off(names: Sequence[str], audits: Sequence[Audit]) -> list[Series]:
    """Gather audits into series: the same kind of defense, whatever its arguments, on the same model, cut and data.

    Args:
        names: a heading for each audit, as `columns` gives them.
        audits: those in which no attack was scored on pictures of inference time are left out.

    Returns:
        Series of accuracy in percent against the MSE of the strongest attack, in the order of their first audit. Points stand in
        the order of that MSE, the strength that was measured; their labels give the arguments in which the series differs.

    Example:
        >>> trade_off([], [])
        []
    """
    places = [(audit.target.model, audit.target.cut, audit.data.name) for audit in audits]
    differs = [len(set(column)) > 1 for column in zip(*places, strict=True)]
    kinds: dict[tuple[str, ...], list[tuple[str, Audit]]] = {}
    for name, audit, place in zip(names, audits, places, strict=True):
        kind = " + ".join(defense.partition("(")[0] for defense in audit.target.defenses) or "no defense"
        where = [part for part, told in zip(place, differs, strict=True) if told]
        kinds.setdefault((kind, *where), []).append((name, audit))
    series = [Series(", ".join(kind), tuple(sorted(_points(members), key=_strength))) for kind, members in kinds.items()]
    return [one for one in series if one.points]


def _strength(point: Point) -> float:
    return point.y.value


def _points(members: Sequence[tuple[str, Audit]]) -> Iterator[Point]:
    settings = [_arguments(audit.target.defenses) for _, audit in members]
    common = set.intersection(*map(set, settings))
    for (name, audit), arguments in zip(members, settings, strict=True):
        strongest = audit.strongest()
        if strongest is not None:
            own = ", ".join(f"{key} = {value}" for place, key, value in arguments if (place, key, value) not in common)
            label = f"{name}{f', {own}' if own else ''}: {describe_scored(strongest)}"
            yield Point(percent(audit.accuracy), strongest.mse, label)


def _arguments(defenses: Sequence[str]) -> list[tuple[int, str, str]]:
    """Return the plain arguments of defenses as they print themselves: (number of the defense, name, value)."""
    return [(number, *pair) for number, text in enumerate(defenses) for pair in re.findall(r"(\w+)=([^,()]+)", text)]


def listing(series: Sequence[Series], x: Axis, y: Axis) -> list[Row]:
    """Return the points as a table.

    Args:
        series: the points.
        x: the axis of their first number.
        y: the axis of their second.

    Returns:
        One row for each point: the series, then the point's label and its two numbers.
    """
    return [Row(one.name, (point.label, x.show(point.x), y.show(point.y))) for one in series for point in one.points]


@dataclass(frozen=True)
class _Mark:
    """A point with its place, the ends of its whiskers, what it says aloud and what it shows."""

    x: float
    y: float
    across: tuple[float, float]
    upright: tuple[float, float]
    said: str
    tip: Text


@dataclass(frozen=True)
class _Drawn:
    """A series with its look, its marks, its entry in the legend and the label at its end."""

    name: str
    style: int
    hollow: bool
    joined: bool
    marked: bool
    marks: tuple[_Mark, ...]
    key: Text
    label: Text
    leader: tuple[float, float] | None


def draw(series: Sequence[Series], x: Axis, y: Axis, *, width: int = WIDE) -> str:
    """Draw series of points.

    Args:
        series: any number; points that are not finite are left out, and the drawing says how many.
        x: the horizontal axis, always linear.
        y: the vertical axis, logarithmic where its values span a factor of more than 20.
        width: in pixels, such as `WIDE` or `NARROW`; in a page the drawing fills its container and its letters grow with it.

    Returns:
        An SVG element that brings its own style and may stand in a page or in a file; whatever a text says is escaped. Empty
        where there is no point to draw.

    Example:
        >>> draw([], Axis("Accuracy", "%"), Axis("MSE"))
        ''
    """
    shown = [replace(one, points=tuple(filter(_can_draw, one.points))) for one in series if any(map(_can_draw, one.points))]
    if not shown:
        return ""
    names, points = [one.name for one in shown], [point for one in shown for point in one.points]
    keys = legend(names, width)
    top = keys[-1].box.bottom + 42
    upright = scale([point.y for point in points], top + 300, top, log=True)
    left = 14 + max(map(length, upright.labels))
    across = scale([point.x for point in points], left + 12, width - 24, ticks=max(3, width // 120))
    frame = Box(left, top - 14, width - 2, top + 300)
    marks = [tuple(_mark(one.name, point, (x, y), (across, upright), width) for point in one.points) for one in shown]
    ends = [(own[-1].x, own[-1].y) for own in marks]
    labels = beside(
        ends, names, frame=frame, taken=[box for one, own in zip(shown, marks, strict=True) for box in _boxes(one, own)]
    )
    drawn = [
        _Drawn(
            name=one.name,
            style=number % _STYLES,
            hollow=number // _STYLES % 2 == 1,
            joined=one.joined,
            marked=one.marked,
            marks=own,
            key=key,
            label=label,
            leader=leader(end, label),
        )
        for number, (one, own, key, end, label) in enumerate(zip(shown, marks, keys, ends, labels, strict=True))
    ]
    axes = {"x": x, "y": y, "across": across, "upright": upright, "frame": frame, "width": width, "leading": LINE}
    left_out = sum(len(one.points) for one in series) - len(points)
    return render("curve.svg.j2", series=drawn, left_out=left_out, **axes).strip()


def _can_draw(point: Point) -> bool:
    return can_draw(point.x.value) and can_draw(point.y.value)


def _mark(name: str, point: Point, axes: tuple[Axis, Axis], scales: tuple[Scale, Scale], width: int) -> _Mark:
    numbers = (f"{axis.title}: {axis.show(n)}" for axis, n in zip(axes, (point.x, point.y), strict=True))
    texts = tuple(filter(None, (name, point.label, *numbers)))
    x, y = scales[0](point.x.value), scales[1](point.y.value)
    whiskers = _whisker(point.x, scales[0]), _whisker(point.y, scales[1])
    return _Mark(x, y, *whiskers, said="; ".join(texts), tip=over((x, y), texts, width))


def _whisker(interval: Interval, along: Scale) -> tuple[float, float]:
    low, high = (along(bound if can_draw(bound) else interval.value) for bound in (interval.low, interval.high))
    return low, high


def _boxes(series: Series, marks: Sequence[_Mark]) -> Iterator[Box]:
    """Return boxes that cover the points of a series, their whiskers and the line that joins them."""
    for mark in marks if series.marked else ():
        yield Box(mark.x - 8, mark.y - 8, mark.x + 8, mark.y + 8)
        yield Box(min(mark.across), mark.y - 3, max(mark.across), mark.y + 3)
        yield Box(mark.x - 3, min(mark.upright), mark.x + 3, max(mark.upright))
    for one, other in zip(marks, marks[1:], strict=False) if series.joined else ():
        steps = int(math.dist((one.x, one.y), (other.x, other.y)) / 8)
        for step in range(1, steps):
            x, y = one.x + (other.x - one.x) * step / steps, one.y + (other.y - one.y) * step / steps
            yield Box(x - 3, y - 3, x + 3, y + 3)
