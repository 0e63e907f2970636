# SPDX-License-Identifier: Apache-2.0
"""The picture of ROC curves: stairs at their places on logarithmic axes, told apart without color, pointer or eyes."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from example_audits import REFUSED, Page, bound, gaussian_roc, inference, membership, turned
from sfumato.curve import NARROW, WIDE
from sfumato.membership_types import Membership, MembershipResult, Roc
from sfumato.roc_drawing import Line, draw_roc, lines_of, strongest_of

STAIRS = Roc((0.0, 0.0, 0.01, 0.1, 1.0), (0.0, 0.05, 0.2, 0.5, 1.0))


def drawn(*results: MembershipResult, width: int = WIDE) -> ElementTree.Element:
    return ElementTree.fromstring(draw_roc([Line(result.name, result) for result in results], width=width))


def having(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def stairs(root: ElementTree.Element, number: int = 1) -> list[tuple[float, float]]:
    (group,) = [one for one in having(root, "series") if f"n{number}" in one.get("class", "").split()]
    (line,) = [one for one in group if one.tag.endswith("polyline")]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points", "").split())]


def axes(root: ElementTree.Element) -> tuple[dict[str, float], dict[str, float]]:
    """The places of the labels along both axes."""
    texts = [(one.text or "", one) for one in root.iter() if one.tag.endswith("text") and (one.text or "").endswith(" %")]
    across = {text: float(one.get("x", "")) for text, one in texts if one.get("text-anchor") == "middle"}
    upright = {text: float(one.get("y", "")) - 4.5 for text, one in texts if one.get("text-anchor") == "end"}
    return across, upright


def several(count: int) -> Membership:
    return membership(*(inference(f"attack {number}", 0.9 - number / 30) for number in range(count)))


def test_axes_are_logarithmic_and_begin_at_one_nonmember() -> None:
    across, upright = axes(drawn(inference(nonmembers=2000)))
    assert list(across) == list(upright) == ["0.05 %", "0.1 %", "1 %", "10 %", "100 %"]
    assert across["1 %"] - across["0.1 %"] == pytest.approx(across["100 %"] - across["10 %"], abs=0.2)
    assert across["0.1 %"] - across["0.05 %"] == pytest.approx(math.log10(2) * (across["1 %"] - across["0.1 %"]), abs=0.2)
    assert upright["0.1 %"] - upright["1 %"] == pytest.approx(upright["10 %"] - upright["100 %"], abs=0.2)


@pytest.mark.parametrize(
    ("nonmembers", "first"), [(20_000, "0.01 %"), (10_000_000, "0.01 %"), (500, "0.2 %"), (4, "10 %"), (0, "10 %")]
)
def test_axes_end_where_a_picture_ends(nonmembers: int, first: str) -> None:
    across, _ = axes(drawn(inference(nonmembers=nonmembers)))
    assert (next(iter(across)), list(across)[-1]) == (first, "100 %")


def test_a_label_that_would_touch_the_next_is_left_out() -> None:
    across, upright = axes(drawn(inference(nonmembers=1500), width=NARROW))
    assert "0.067 %" not in across
    assert "0.067 %" in upright


def test_a_line_climbs_stairs_to_the_places_of_its_numbers() -> None:
    root = drawn(inference(nonmembers=1000, roc=STAIRS))
    across, upright = axes(root)
    five = upright["1 %"] + (upright["10 %"] - upright["1 %"]) * math.log10(5)
    twenty = upright["10 %"] + (upright["100 %"] - upright["10 %"]) * math.log10(2)
    half = upright["10 %"] + (upright["100 %"] - upright["10 %"]) * math.log10(5)
    expected = [
        (across["0.1 %"], five), (across["1 %"], five), (across["1 %"], twenty), (across["10 %"], twenty), (across["10 %"], half),
        (across["100 %"], half), (across["100 %"], upright["100 %"]), (across["100 %"], upright["100 %"]),
    ]  # fmt: skip
    assert [number for place in stairs(root) for number in place] == pytest.approx(
        [number for place in expected for number in place], abs=0.2
    )


def test_what_lies_below_the_axes_rises_from_the_edge() -> None:
    root = drawn(inference(nonmembers=1000, roc=Roc((0.0, 0.4, 1.0), (0.0, 0.9, 1.0))))
    (x, y), (_, higher), *_ = stairs(root)
    across, upright = axes(root)
    assert y == pytest.approx(upright["0.1 %"], abs=0.2)
    assert across["10 %"] < x < across["100 %"]
    assert upright["100 %"] < higher < upright["10 %"]


def test_a_guess_is_drawn_from_corner_to_corner() -> None:
    root = drawn(inference(nonmembers=1000))
    across, upright = axes(root)
    guess = next(one for one in having(root, "guess") if one.tag.endswith("line"))
    place = [float(guess.get(name, "")) for name in ("x1", "y1", "x2", "y2")]
    assert place == pytest.approx([across["0.1 %"], upright["0.1 %"], across["100 %"], upright["100 %"]], abs=0.2)
    assert "a guess" in "".join(root.itertext())


def test_quoted_shares_have_signs_that_the_keyboard_reaches_and_refused_ones_none() -> None:
    root = drawn(inference(nonmembers=20_000, tpr_at_01=bound(0.012)), inference("loss", nonmembers=20_000, tpr_at_01=REFUSED))
    said = [one.get("aria-label", "") for one in having(root, "point")]
    assert said == [
        "lira; at 1 % false alarms it finds 7.1 % (5.0 to 9.2) of the members",
        "lira; at 0.1 % false alarms it finds 1.20 % (0.84 to 1.56) of the members",
        "loss; at 1 % false alarms it finds 7.1 % (5.0 to 9.2) of the members",
    ]
    assert having(root, "key")[1].get("aria-label") == f"loss; AUC 0.700 (0.679 to 0.721); {said[2].removeprefix('loss; ')}"
    assert all(one.get("tabindex") == "0" for one in (*having(root, "point"), *having(root, "key")))
    across, upright = axes(root)
    circle = next(one for one in having(root, "point")[0] if one.tag.endswith("circle"))
    assert float(circle.get("cx", "")) == pytest.approx(across["1 %"], abs=0.1)
    assert upright["10 %"] < float(circle.get("cy", "")) < upright["1 %"]


def test_lines_differ_in_sign_and_dashes_and_are_labeled() -> None:
    root = ElementTree.fromstring(draw_roc(lines_of(several(6))))
    groups = having(root, "series")
    assert len({having(one, "marker")[0].get("d") for one in groups}) == 6
    assert len({one.get("class", "").split()[1] for one in groups}) == 6
    assert {"".join(having(one, "label")[0].itertext()) for one in groups} == {f"attack {number}" for number in range(6)}
    assert "".join(having(groups[-1], "label")[0].itertext()) == "attack 0"  # drawn last, so that it lies on top


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_labels_stay_inside(width: int) -> None:
    root = ElementTree.fromstring(draw_roc(lines_of(several(6)), width=width))
    for label in having(root, "label"):
        (line,) = list(label)
        assert 0 < float(line.get("x", "")) < width


def test_at_most_six_lines_the_strongest_first() -> None:
    assert [line.name for line in lines_of(several(8))] == [f"attack {number}" for number in range(6)]
    assert len(having(ElementTree.fromstring(draw_roc([Line(str(n), inference(str(n))) for n in range(8)])), "series")) == 6


def test_attacks_of_the_same_curve_share_a_line_and_seeds_do_not_get_two() -> None:
    same = (inference("loss", 0.7), inference("confidence", 0.7))
    other = (inference("rmia", 0.6, seed=0), inference("rmia", 0.65, seed=1, roc=gaussian_roc(0.65, 50)))
    first, second = lines_of(membership(*same, *other))
    assert (first.name, first.attacks) == ("loss, confidence", 2)
    assert (second.name, second.result.seed, second.attacks) == ("rmia", 1, 1)


def test_models_in_turn_have_a_line_beside_that_of_the_target() -> None:
    first, second, third = lines_of(membership(turned("rmia"), turned(area=0.75), inference(), turned("loss")))
    assert [first.name, second.name, third.name] == ["lira", "rmia, loss, 16 models in turn", "lira, 16 models in turn"]
    assert (first.result.targets, second.attacks, third.result.targets) == (1, 2, 16)
    same = lines_of(membership(inference(), turned(area=0.7)))
    assert [line.name for line in same] == ["lira", "lira, 16 models in turn"]  # of one curve, but not of one kind


@pytest.mark.parametrize(("target", "pooled", "kept"), [(8, 0, 6), (8, 1, 5), (8, 8, 3), (1, 8, 1)])
def test_models_in_turn_keep_some_of_the_lines(target: int, pooled: int, kept: int) -> None:
    others = (turned(f"attack {number}", 0.9 - number / 30) for number in range(pooled))
    lines = lines_of(membership(*several(target).results, *others))
    assert [line.result.targets for line in lines] == [1] * kept + [16] * min(pooled, 6 - kept)


def test_several_audits_show_their_strongest() -> None:
    lines = strongest_of(["before", "skipped", "after"], [membership(), None, membership(inference("rmia"))])
    assert [line.name for line in lines] == ["before: lira", "after: rmia"]
    (alone,) = strongest_of(["before"], [membership(turned())])
    assert alone.name == "before: lira, 16 models in turn"


def test_what_a_text_says_is_escaped_and_nothing_runs_or_is_fetched() -> None:
    hostile = "</text><script>alert('1')</script>\"&"
    text = draw_roc([Line(hostile, inference(hostile))])
    page = Page(text)
    assert not page.all("script")
    assert hostile in page.text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_nothing_to_draw_is_nothing() -> None:
    assert draw_roc([Line("empty", inference(roc=Roc((), ())))]) == ""
