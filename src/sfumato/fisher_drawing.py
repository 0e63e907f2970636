# SPDX-License-Identifier: Apache-2.0
"""Fisher information over the layers of a model, of several tasks side by side: as a picture, and as rows of a table.

A layer without any information, as that of the logits for an inversion loss, has no place on a logarithmic axis: it is left out
of the picture, and stands as 0 in the table.

Source: ho2024tldmi, Figure 1-II; Figure 5, for several losses; Figure 4, for several steps of an attack.
Equations: none.
Departures: shares in place of raw values, whose units differ from task to task, with 95 % intervals.

Example:
    >>> drawing({})
    ''
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfumato.analysis.fisher_profile import FisherProfile
from sfumato.curve import WIDE, Axis, Point, Series, draw
from sfumato.tables import Row, percent, show_interval
from sfumato.types import Interval

LAYER = Axis("layer", "", ".0f")
SHARE = Axis("share of the information", "%", "#.3g")


def series(name: str, profile: FisherProfile) -> Series:
    """Return a profile as a line: the number of each layer from 1, and its share in percent with its interval.

    Args:
        name: of the line.
        profile: what to draw; layers without any information are left out.
    """
    return Series(name, tuple(point for point in _points(profile) if point.y.value > 0))


def drawing(profiles: Mapping[str, FisherProfile], *, width: int = WIDE) -> str:
    """Draw profiles of one model, or of models with the same layers.

    Args:
        profiles: by the name of their line.
        width: in pixels, such as `curve.WIDE` or `curve.NARROW`.

    Returns:
        An SVG element that brings its own style and may stand in a page or in a file; empty where there is nothing to draw. The
        vertical axis is logarithmic where the shares span a factor of more than 20.
    """
    return draw([series(name, profile) for name, profile in profiles.items()], LAYER, SHARE, width=width)


def headings(profiles: Mapping[str, FisherProfile]) -> list[str]:
    """Return the headings of `listing`: those of the layer and its parameters, and one for each profile.

    Example:
        >>> headings({})
        ['Layer', 'Parameters']
    """
    return ["Layer", "Parameters", *(f"{name}: share" for name in profiles)]


def listing(profiles: Mapping[str, FisherProfile]) -> list[Row]:
    """Return profiles of the same layers as a table.

    Args:
        profiles: by their names; all of the same layers.

    Returns:
        A row for each layer: its number and name, its parameters, and its share of the information of each profile.
    """
    shown = list(profiles.values())
    if not shown:
        return []
    columns = [[_told(share) for share in profile.shares] for profile in shown]
    return [
        Row(f"{number + 1}. {layer}", (f"{count:,}", *(column[number] for column in columns)))
        for number, (layer, count) in enumerate(zip(shown[0].layers, shown[0].parameters, strict=True))
    ]


def summary(profiles: Mapping[str, FisherProfile]) -> list[Row]:
    """Return what profiles come to, over all layers and over those before the embedding.

    Args:
        profiles: by their names.

    Returns:
        Two rows for each profile: the share of the first third of the layers, and Spearman's rho of information and depth.
    """
    return [
        Row(f"{name}, {where}", (_told(part.first_third), show_interval(part.rank_with_depth, ".2f")))
        for name, profile in profiles.items()
        for where, part in (("all layers", profile), ("before the embedding", profile.encoder))
    ]


SUMMARY: Sequence[str] = ("Profile", "Share of the first third of the layers", "Rank correlation with depth")
"""The headings of `summary`."""


def _points(profile: FisherProfile) -> list[Point]:
    return [
        Point(Interval(number, number, number), percent(share), name)
        for number, (name, share) in enumerate(zip(profile.layers, profile.shares, strict=True), start=1)
    ]


def _told(share: Interval) -> str:
    """Write a share in percent; what is exactly 0 without digits that were not measured."""
    return "0 %" if share.value == share.high == 0 else show_interval(percent(share), "#.3g", " %")
