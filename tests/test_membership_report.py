# SPDX-License-Identifier: Apache-2.0
"""The report on the predictions: a page of its own or a section of another, with every number, and nothing that runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from example_audits import COMPRESSED, REFUSED, Page, asked, audit, inference, membership, memberships, turned
from sfumato import report
from sfumato.errors import ConfigError
from sfumato.membership_record import membership_from_json
from sfumato.membership_report import (
    PREDICTIONS,
    facts_of,
    markdown_blocks,
    overview,
    save_membership,
    sections,
)
from sfumato.membership_types import Membership
from sfumato.types import Audit

HOSTILE = """</title><script>alert("1")</script> | <img src=x onerror=alert(2)> `a` [b](javascript:c) 画 "'"""


def hostile() -> Membership:
    bad = inference(HOSTILE, slices={HOSTILE: inference().slices["class 3"]}, settings={HOSTILE: HOSTILE})
    bad = replace(bad, tpr_at_01=replace(REFUSED, missing=HOSTILE))
    return membership(
        bad, canaries=HOSTILE, untested=(HOSTILE,), versions={HOSTILE: HOSTILE}, hardware=HOSTILE, title=HOSTILE, duplicates=1
    )


def before_and_after() -> list[Audit]:
    after = asked(membership(inference(area=0.55)), "MCMIA(ratio=15.78)")
    return [asked(), replace(after, target=replace(after.target, compression=COMPRESSED))]


@given(memberships)
@settings(max_examples=15, deadline=None)
def test_any_record_can_be_shown(shown: Membership) -> None:
    assert Page(PREDICTIONS.to_html([shown, membership()])).all("table")
    assert PREDICTIONS.to_markdown([shown]).startswith("# ")


@pytest.mark.parametrize("count", [1, 2])
def test_json_can_be_read_back(tmp_path: Path, count: int) -> None:
    written = [membership(), membership(inference(area=0.55))][:count]
    record = json.loads(save_membership(written, tmp_path / "new" / "audit.json").read_text(encoding="utf-8"))
    assert [membership_from_json(one) for one in (record["audits"] if count == 2 else [record])] == written


def test_another_ending_or_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.html, \.md, \.json, got '.*audit\.pdf'"):
        save_membership([membership()], tmp_path / "audit.pdf")
    for ending in ("html", "md", "json"):
        with pytest.raises(ConfigError, match="got none"):
            save_membership([], tmp_path / f"audit.{ending}")
    assert not list(tmp_path.iterdir())


def test_a_page_of_its_own_shows_every_number() -> None:
    text = PREDICTIONS.to_html([membership(duplicates=3)])
    page = Page(text)
    for expected in (
        "What the predictions give away", "Who was trained on", "The strongest attack (lira) finds 7.1 % (5.0 to 9.2)", "0.700",
        "too few non-members", f"T{REFUSED.missing[1:]}.", "16, adaptive", "class 4", "+20.0 points", "variance = global",
        "3 examples repeat another", "right on 98.0 % (97.0 to 99.0) of the members and on 87.4 %", "with 64 reference models",
        "16 reference models were trained", "2 CPU cores", "torch 2.13.0", "a guess reaches 0.5",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert [drawing["width"] for drawing in page.all("svg")] == ["760", "360"]
    assert len(page.all("details")) == 1
    assert not any(word in page.text for word in ("MSE", "PSNR", "Picture by picture", "is certified"))


def test_a_page_of_its_own_can_be_read_without_eyes_and_fetches_nothing() -> None:
    text = PREDICTIONS.to_html([membership(), membership(inference(area=0.55))])
    page = Page(text)
    names = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert {str(link["href"])[1:] for link in page.all("a")} <= names
    assert len(page.all("caption")) == len(page.all("table")) == 6
    assert all(heading.get("scope") in {"col", "row"} for heading in page.all("th"))
    assert not any(mark in text.replace('xmlns="http://www.w3.org/2000/svg"', "") for mark in ("http://", "https://", "@import"))
    assert not any(page.all(tag) for tag in ("link", "script", "iframe", "object", "img"))


def test_what_a_record_says_is_escaped() -> None:
    for text in (PREDICTIONS.to_html([hostile(), hostile()]), report.to_html([asked(hostile()), asked(hostile())])):
        page = Page(text)
        assert not page.all("script")
        assert not page.all("img")
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert page.text.count(HOSTILE) > 10
    text = PREDICTIONS.to_markdown([hostile()])
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)[<>]", text)


def test_markdown_shows_every_number_in_tables_of_even_width() -> None:
    text = PREDICTIONS.to_markdown([membership()])
    assert text.startswith("# What the predictions give away\n\nThe strongest attack (lira)")
    assert "| lira | 0.700 (0.679 to 0.721) | 7.1 % (5.0 to 9.2) | too few non-members (500) | 60.0 % (58.2 to 61.8) |" in text
    assert "| class 4 | 50 | 48 | −1.0 points |" in text
    assert "| Gap attack, balanced accuracy | 55.3 % |" in text
    assert f"T{REFUSED.missing[1:]}.\n" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_a_report_without_attacks_says_so() -> None:
    none = replace(membership(), results=())
    page = Page(PREDICTIONS.to_html([none]))
    assert "No attack was run on the predictions." in page.text
    assert not page.all("svg")
    assert "No attack was run." in PREDICTIONS.to_markdown([none])


def test_facts_count_what_repeats_and_name_canaries() -> None:
    assert facts_of(membership(duplicates=1, references=0, canaries="mislabeled")) == [
        "500 members and 500 non-members, canaries (mislabeled).",
        "The target is right on 98.0 % (97.0 to 99.0) of the members and on 87.4 % (86.5 to 88.3) of the non-members.",
        "No reference model was trained.",
        "1 example repeats another of the same side, and each counts as often as it occurs.",
    ]
    assert len(facts_of(membership())) == 3


def test_attacks_that_are_not_drawn_are_counted() -> None:
    many = membership(*(inference(f"attack {number}", 0.9 - number / 30) for number in range(8)))
    (section,) = sections(["many"], [many])
    assert section.drawn == "Of the weakest attacks, 2 are in the table only."
    assert sections(["few"], [membership()])[0].drawn == ""


def test_models_in_turn_are_shown_and_called_so() -> None:
    found = membership(inference(), turned())
    (section,) = sections(["digits"], [found])
    assert (section.sliced, [row.label for row in section.rows]) == ("lira", ["lira", "lira, 16 models in turn"])
    assert section.drawn == ""  # both are
    page, text = Page(PREDICTIONS.to_html([found])), PREDICTIONS.to_markdown([found])
    for where in (page.text, text):
        assert "Over 16 models in turn lira finds 7.1 % (5.0 to 9.2) of the members at 1 % false alarms and 1.20 %" in where
        assert "Attacks over models in turn stand below those on the target" in where
    assert "Attacks over models in turn stand" not in Page(PREDICTIONS.to_html([membership()])).text


def test_the_strongest_of_models_in_turn_is_called_so_where_there_are_no_others() -> None:
    (section,) = sections(["digits"], [membership(turned())])
    assert (section.sliced, section.turns) == ("lira, 16 models in turn", "")


def test_what_epsilon_takes_for_granted_is_said_where_it_is_read() -> None:
    page, text = Page(PREDICTIONS.to_html([membership()])), PREDICTIONS.to_markdown([membership()])
    assert "by the strongest attack; for one model an idealization; 0 says nothing" in page.text
    assert "a proof needs many models that are each asked about one example" in page.text
    assert "the largest bound of several attacks and seeds does not hold at 95 %" in page.text
    assert "0.42 by lira" in page.text
    assert "which for one model is an idealization, and each bound holds at 95 % by itself" in text


def test_audits_without_questions_have_no_section() -> None:
    assert sections(["a", "b"], [None, membership()])[0].name == "b"
    assert markdown_blocks(["a"], [None]) == []
    assert overview(["a", "b"], [None, membership()]) == {"wide": "", "narrow": ""}
    assert 'id="predictions"' not in report.to_html([audit()])
    assert "Who was trained on" not in report.to_markdown([audit()])


@pytest.mark.parametrize(
    ("audits", "title"),
    [
        ([audit()], "What the features give away"),
        ([asked()], "What the predictions give away"),
        ([audit(membership=membership())], "What the features and the predictions give away"),
        ([asked(), audit()], "What the features and the predictions give away"),
        ([audit(attacks=())], "What the features give away"),
    ],
)
def test_the_heading_says_what_gives_something_away(audits: list[Audit], title: str) -> None:
    assert f"<h1>{title}</h1>" in report.to_html(audits)
    assert report.to_markdown(audits).startswith(f"# {title}\n")


def test_an_audit_of_the_predictions_shows_nothing_of_features() -> None:
    shown = before_and_after()
    page, text = Page(report.to_html(shown)), report.to_markdown(shown)
    for where in (page.text, text):
        for absent in ("MSE", "Every attack", "certified", "pictures of inference time", "Shape of its features", "Head "):
            assert absent not in where, absent
        for expected in ("Pruning lowers leakage", "not split", "3,815", "16.11 ×", "variance = global", "64 reference models"):
            assert expected in where, expected
    links = {str(link["href"])[1:] for link in page.all("a")}
    assert links <= {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert "predictions" in links
    assert not {"gallery", "attacks", "certified"} & links


def test_two_audits_are_drawn_together_and_each_by_itself() -> None:
    page = Page(report.to_html(before_and_after()))
    assert len(page.all("svg")) == 6  # each wide and narrow
    assert "The strongest attack on each" in page.text
    assert "before: lira" in page.text
    alone = Page(report.to_html([asked()]))
    assert len(alone.all("svg")) == 2
    assert "The strongest attack on each" not in alone.text


def test_an_audit_of_both_shows_both() -> None:
    page = Page(report.to_html([audit(membership=membership())]))
    for expected in (
        "Picture by picture",
        "Every attack",
        "Who was trained on",
        "mean squared",
        "True positive rate",
        "Gap attack",
    ):
        assert expected.lower() in page.text.lower(), expected
    assert len(page.all("caption")) == len(page.all("table"))
