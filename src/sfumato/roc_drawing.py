# SPDX-License-Identifier: Apache-2.0
"""ROC curves of membership attacks as a picture with logarithmic axes, as SVG that needs no script and no network.

What counts is how many members an attack finds while it takes few non-members for members, so both axes are logarithmic: on
linear ones that corner cannot be seen. A line is a staircase: the share that is found where at most so many are taken wrongly.

Example:
    >>> draw_roc([])
    ''
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sfumato.curve import WIDE
from sfumato.lettering import LINE, Box, Text, beside, leader, legend, length, over
from sfumato.membership_tables import named, ordered, show_bound, turns_of
from sfumato.membership_types import Membership, MembershipResult, Roc
from sfumato.page import render
from sfumato.scale import Scale
from sfumato.tables import show_interval

MOST = 6
"""Lines in one picture, at most."""
_LOWEST = 1e-4
_QUOTED = (0.01, 0.001)  # shares of false alarms at which a result has a number
_X, _Y = "non-members taken for members", "members found"


@dataclass(frozen=True)
class Line:
    """A curve to draw.

    Attributes:
        name: what it shows.
        result: holds the curve, and the numbers at 1 % and 0.1 %.
        attacks: how many attacks it stands for.
    """

    name: str
    result: MembershipResult
    attacks: int = 1


@dataclass(frozen=True)
class _Mark:
    """A quoted number with its place, what it says aloud and what it shows."""

    x: float
    y: float
    said: str
    tip: Text


@dataclass(frozen=True)
class _Drawn:
    """A curve with its look, its corners, its marks, its entry in the legend and its label."""

    name: str
    style: int
    said: str
    corners: tuple[tuple[float, float], ...]
    marks: tuple[_Mark, ...]
    key: Text
    label: Text
    leader: tuple[float, float] | None
    hollow: bool = False


def lines_of(membership: Membership) -> list[Line]:
    """Return the lines of one audit: each attack once, with the seed that did best; attacks of the same curve share a line.

    Args:
        membership: the record.

    Returns:
        At most `MOST`, those on the target before those over models in turn, each kind the strongest first.
    """
    best: dict[tuple[str, int], MembershipResult] = {}
    for result in ordered(membership):
        best.setdefault((result.name, result.targets), result)
    shared: dict[tuple[Roc, int], list[MembershipResult]] = {}
    for result in best.values():
        shared.setdefault((result.roc, result.targets), []).append(result)
    lines = [Line(", ".join(result.name for result in same) + turns_of(same[0]), same[0], len(same)) for same in shared.values()]
    first, turned = ([line for line in lines if (line.result.targets > 1) == several] for several in (False, True))
    # However many attacks were on the target, those in turn keep some lines: they reach further down.
    return [*first[: max(MOST - len(turned), MOST // 2)], *turned][:MOST]


def strongest_of(names: Sequence[str], memberships: Sequence[Membership | None]) -> list[Line]:
    """Return the strongest attack of each of several audits.

    Args:
        names: a heading for each.
        memberships: what was found; None where nobody asked.

    Returns:
        At most `MOST` lines, in the order of the audits.

    Example:
        >>> strongest_of(["digits"], [None])
        []
    """
    found = [(name, one.strongest()) for name, one in zip(names, memberships, strict=True) if one is not None]
    return [Line(f"{name}: {named(result)}", result) for name, result in found if result is not None][:MOST]


def draw_roc(lines: Sequence[Line], *, width: int = WIDE) -> str:
    """Draw ROC curves.

    Args:
        lines: any number; those without a point are left out.
        width: in pixels, such as `WIDE` or `NARROW`; in a page the drawing fills its container and its letters grow with it.

    Returns:
        An SVG element that brings its own style and may stand in a page or in a file; whatever a text says is escaped. Empty
        where there is nothing to draw. The axes begin at one non-member of all, or at 0.01 % where there are more than 10,000.
    """
    shown = [line for line in lines if line.result.roc.fpr][:MOST]
    if not shown:
        return ""
    names = [line.name for line in shown]
    *keys, guess = legend([*names, "a guess"], width)
    top = guess.box.bottom + 42
    height = min(0.62 * width, 420) + 40
    ticks = _ticks(min(max(_LOWEST, 1 / max(1, line.result.nonmembers)) for line in shown))
    labels = tuple(f"{100 * tick:.2g} %" if tick < 1 else "100 %" for tick in ticks)
    left = 10 + max(map(length, labels))
    across = Scale(left, width - 20, ticks, _thinned(labels, ticks, width - 20 - left), log=True)
    upright = Scale(top + height, top, ticks, labels, log=True)
    frame = Box(left, top, width - 2, top + height)
    corners = [tuple(_corners(line.result.roc, (across, upright))) for line in shown]
    places = [_labelled(own, number) for number, own in enumerate(corners)]
    texts = beside(places, names, frame=frame, taken=[box for own in corners for box in _boxes(own)])
    drawn = [
        _Drawn(line.name, number, _said(line), own, _marks(line, (across, upright), width), key, text, leader(place, text))
        for number, (line, own, key, place, text) in enumerate(zip(shown, corners, keys, places, texts, strict=True))
    ]
    axes = {"across": across, "upright": upright, "frame": frame, "width": width, "leading": LINE, "x": _X, "y": _Y}
    return render("roc.svg.j2", series=drawn, guess=guess, **axes).strip()


def _ticks(low: float) -> tuple[float, ...]:
    """Return the lower end of an axis and the powers of ten above it, to 1."""
    start = min(low, 0.1)
    return (start, *(10.0**power for power in range(-4, 1) if 10.0**power > 1.05 * start))


def _thinned(labels: tuple[str, ...], ticks: tuple[float, ...], pixels: float) -> tuple[str, ...]:
    """Leave out the label of the lower end where that of the next tick would touch it."""
    place = Scale(0, pixels, ticks, labels, log=True)
    room = place(ticks[1]) - (length(labels[0]) + length(labels[1])) / 2
    return labels if room > 6 else ("", *labels[1:])


def _corners(roc: Roc, scales: tuple[Scale, Scale]) -> Iterator[tuple[float, float]]:
    """Walk up the stairs of a curve, from the lower or left edge of the drawing to its upper right corner."""
    across, upright = scales
    low = across.ticks[0]
    found = max((tpr for fpr, tpr in zip(roc.fpr, roc.tpr, strict=True) if fpr <= low), default=0.0)
    x, y = across(low), upright(found)
    if found > low:
        yield x, y
    for fpr, tpr in zip(roc.fpr, roc.tpr, strict=True):
        if fpr > low and tpr > low and upright(tpr) < y:
            nearer = across(fpr)
            yield nearer, y
            x, y = nearer, upright(tpr)
            yield x, y
    yield across.end, y


def _labelled(corners: Sequence[tuple[float, float]], number: int) -> tuple[float, float]:
    """Return where a line gets its label: near its beginning, each a little further on, where lines have not yet met."""
    return corners[min(len(corners) - 1, len(corners) * number // 12)]


def _boxes(corners: Sequence[tuple[float, float]]) -> Iterator[Box]:
    """Return boxes that cover the stairs of a line."""
    for (x, y), (right, above) in zip(corners, corners[1:], strict=False):
        yield Box(min(x, right) - 3, min(y, above) - 3, max(x, right) + 3, max(y, above) + 3)


def _quoted(result: MembershipResult) -> Iterator[tuple[float, float, str]]:
    """Return the shares of false alarms at which a result has a number, with the number and a sentence."""
    for share, bound, form in zip(_QUOTED, (result.tpr_at_1, result.tpr_at_01), (".1f", ".2f"), strict=True):
        if bound.value is not None:
            yield share, bound.value, f"at {100 * share:g} % false alarms it finds {show_bound(bound, form)} of the members"


def _marks(line: Line, scales: tuple[Scale, Scale], width: int) -> tuple[_Mark, ...]:
    across, upright = scales
    marks = []
    for share, found, said in _quoted(line.result):
        if share >= across.ticks[0]:
            place = across(share), upright(found)
            marks.append(_Mark(*place, f"{line.name}; {said}", over(place, (line.name, said), width)))
    return tuple(marks)


def _said(line: Line) -> str:
    return "; ".join([line.name, f"AUC {show_interval(line.result.auc, '.3f')}", *(said for *_, said in _quoted(line.result))])
