# SPDX-License-Identifier: Apache-2.0
"""The report on the weights: every number, pictures with verdicts in words, and private pictures for who asks only."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from example_audits import (
    Page,
    assert_same_gallery,
    audit,
    exhibit,
    inversion,
    inversions,
    judge,
    membership,
    pixels,
    rebuilt,
    weighed,
)
from sfumato import report
from sfumato.errors import ConfigError
from sfumato.inversion_report import (
    WEIGHTS,
    load_inversions,
    markdown_blocks,
    save_inversion,
    without_private,
)
from sfumato.inversion_sections import facts_of, sections
from sfumato.inversion_types import ClassResult, EvaluatorFacts, Inversion, PriorFacts, Rebuilt
from sfumato.membership_report import load_memberships
from sfumato.png import png

HOSTILE = """</title><script>alert("1")</script> | <img src=x onerror=alert(2)> `a` [b](javascript:c) 画 "'"""
PRIVATE = pixels(3, seed=77)


def hostile() -> Inversion:
    bad = rebuilt(HOSTILE, 0.9, prior=HOSTILE, classes=(ClassResult(HOSTILE, 0.5, 0.5, 1.0),), settings={HOSTILE: HOSTILE})
    shown = exhibit(HOSTILE, None, Rebuilt(HOSTILE, 0, pixels(3), (0.5, 0.5), (True, False)))
    return inversion(
        bad,
        evaluator=EvaluatorFacts(HOSTILE, judge().accuracy, 0.8, 1),
        priors=(PriorFacts(HOSTILE, 1.0, judge(0.1).accuracy, 1, HOSTILE),),
        gallery=(shown,),
        untested=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        hardware=HOSTILE,
        title=HOSTILE,
    )


@given(inversions)
@settings(max_examples=15, deadline=None)
def test_any_record_can_be_shown(shown: Inversion) -> None:
    assert Page(WEIGHTS.to_html([shown, inversion()])).all("table")
    assert WEIGHTS.to_markdown([shown]).startswith("# ")


@pytest.mark.parametrize("count", [1, 2])
def test_json_can_be_read_back(tmp_path: Path, count: int) -> None:
    written = [inversion(), inversion(rebuilt(accuracy=0.1))][:count]
    path = save_inversion(written, tmp_path / "new" / "audit.json")
    read = load_inversions(path)
    assert repr(read) == repr(written)
    for one, other in zip(read, written, strict=True):
        assert_same_gallery(one, other)
    assert load_memberships(path) == []


def test_records_of_something_else_hold_no_inversions(tmp_path: Path) -> None:
    assert load_inversions(report.save([weighed()], tmp_path / "audit.json")) == []


def test_another_ending_or_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.html, \.md, \.json, got '.*audit\.pdf'"):
        save_inversion([inversion()], tmp_path / "audit.pdf")
    for ending in ("html", "md", "json"):
        with pytest.raises(ConfigError, match="got none"):
            save_inversion([], tmp_path / f"audit.{ending}")
    assert not list(tmp_path.iterdir())


def test_a_page_of_its_own_shows_every_number() -> None:
    page = Page(WEIGHTS.to_html([inversion(overlap=3)]))
    for expected in (
        "What the weights give away", "What the weights show of the classes", "takes 60.0 % (54.0 to 66.0) for the class",
        "20 of the target's 40 classes were attacked, with 5 pictures of each; chance is 2.5 %.", "above its gate of 80.0 %",
        "private pictures, held out", "public pictures", "412", "−0.0125", "iterations = 300", "trained on the public part",
        "3 public pictures were left out, being private too.", "2 CPU cores", "torch 2.13.0", "StyleGAN priors", "kedmi", "gmi",
        "Every class, with the attack kedmi", "1 of the 4 pictures shown recognized",
        "not reached; what the prior shows", "High where".lower(),
    ):  # fmt: skip
        assert expected in page.text, expected
    assert not any(word in page.text for word in ("MSE", "PSNR", "Picture by picture", "is certified", "Non-member"))


def test_verdicts_are_words_and_not_color_alone() -> None:
    page = Page(WEIGHTS.to_html([inversion(gallery=(exhibit(),))]))
    assert len(re.findall(r"(?<!not )recognized target: 99 %", page.text)) == 1
    assert page.text.count("not recognized target: 87 %") == 1
    assert [image["alt"] for image in page.all("img")][:2] == [f"Reconstruction {n} of anna, by kedmi" for n in (1, 2)]


def test_pictures_come_before_the_numbers_where_there_is_nothing_else_to_see() -> None:
    for text in (WEIGHTS.to_html([inversion()]), report.to_html([weighed()])):
        assert text.index('id="classes"') < text.index('id="numbers"') < text.index('id="weights"')
        assert text.count("anna <span") == 1
    text = report.to_html([audit(inversion=inversion())])
    assert 'id="classes"' not in text
    assert text.index('id="weights"') < text.index("anna <span") < text.index("Attacks on the weights")
    assert 'href="#classes"' not in WEIGHTS.to_html([inversion(gallery=())])


def test_pictures_of_several_audits_say_whose_they_are() -> None:
    text = WEIGHTS.to_html([inversion(title="plain"), inversion(title="frozen")])
    for place, name in enumerate(("plain", "frozen"), 1):
        assert f'<a href="#classes-{place}">{name}</a>' in text
        assert f'<h3 id="classes-{place}">{name}: class by class</h3>' in text
    assert '<a href="#classes-1">' not in WEIGHTS.to_html([inversion()])


def test_a_page_can_be_read_without_eyes_and_fetches_nothing() -> None:
    text = WEIGHTS.to_html([inversion(), inversion(rebuilt(accuracy=0.1))])
    page = Page(text)
    names = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert {str(link["href"])[1:] for link in page.all("a")} <= names
    assert "weights" in names
    assert len(page.all("caption")) == len(page.all("table")) == 8
    assert all(heading.get("scope") in {"col", "row"} for heading in page.all("th"))
    assert all(image["alt"] and str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(mark in text for mark in ("http://", "https://", "@import"))
    assert not any(page.all(tag) for tag in ("link", "script", "iframe", "object"))


def test_what_a_record_says_is_escaped() -> None:
    for text in (WEIGHTS.to_html([hostile(), hostile()]), report.to_html([weighed(hostile()), weighed(hostile())])):
        page = Page(text)
        assert not page.all("script")
        assert {str(image["src"])[:10] for image in page.all("img")} == {"data:image"}
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert page.text.count(HOSTILE) > 10
    text = WEIGHTS.to_markdown([hostile()])
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)[<>]", text)


@pytest.mark.parametrize("ending", ["html", "json"])
def test_private_pictures_are_written_only_where_they_are_asked_for(tmp_path: Path, ending: str) -> None:
    found = inversion(gallery=(exhibit("anna", PRIVATE),))
    path, secret = tmp_path / f"audit.{ending}", png(PRIVATE[0])
    for hidden in (
        save_inversion([found], path),
        report.save([weighed(found)], path),
        weighed(found).save(path),
        found.save(path),
    ):
        assert secret not in hidden.read_text(encoding="utf-8")
    for shown in (
        save_inversion([found], path, show_private=True),
        report.save([weighed(found)], path, show_private=True),
        weighed(found).save(path, show_private=True),
        found.save(path, show_private=True),
    ):
        assert secret in shown.read_text(encoding="utf-8")


def test_who_sees_no_private_pictures_is_told_why() -> None:
    assert "audit and report with --show-private to see them" in Page(WEIGHTS.to_html([inversion()])).text
    assert "--show-private" not in WEIGHTS.to_html([inversion(gallery=(exhibit("anna", PRIVATE),))])
    assert "--show-private" not in WEIGHTS.to_html([inversion(gallery=())])


def test_leaving_private_pictures_out_leaves_the_rest() -> None:
    found = inversion(gallery=(exhibit("anna", PRIVATE),))
    assert without_private(None) is None
    assert without_private(found, kept=True) is found
    left = without_private(found)
    assert left is not None
    assert_same_gallery(left, inversion(gallery=(exhibit("anna"),)))


def test_below_the_gate_numbers_are_shown_and_nothing_is_concluded() -> None:
    found = inversion(evaluator=judge(0.61))
    page, text = Page(WEIGHTS.to_html([found])), WEIGHTS.to_markdown([found])
    for where in (page.text, text):
        assert "Nothing is concluded about the weights." in where
        assert "names 61.0 % (60.4 to 61.6) of held-out pictures right, below its gate of 80.0 %: nothing is concluded" in where
        assert "not concluded" in where
        assert "The strongest attack on the weights (" not in where
    assert "not judged" in page.text
    assert not re.search(r"recognized target: \d+ %", page.text)
    assert any(attributes.get("class") == "alarm" for attributes in page.all("p"))
    assert sections(["portraits"], [found])[0].classes == ()


def test_markdown_shows_every_number_in_tables_of_even_width() -> None:
    text = WEIGHTS.to_markdown([inversion()])
    assert text.startswith("# What the weights give away\n\nThe strongest attack on the weights (kedmi")
    assert "| kedmi | 60.0 % (54.0 to 66.0) | 90.0 % (81.0 to 99.0) | 97.0 % (96.0 to 98.0) |" in text
    assert "| ben | 80 % | 99.0 % | 301 | yes |" in text
    assert "| Prior alone | 12.0 % (11.9 to 12.1) |" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_a_report_without_attacks_says_so() -> None:
    none = replace(inversion(), results=(), gallery=())
    page = Page(WEIGHTS.to_html([none]))
    assert "No attack was run on the weights." in page.text
    assert not page.all("img")
    assert "No attack was run." in WEIGHTS.to_markdown([none])
    assert facts_of(none)[0] == "20 of the target's 40 classes were attacked; chance is 2.5 %."


def test_facts_count_pictures_and_what_was_left_out() -> None:
    found = inversion(rebuilt(per_class=1), rebuilt("ppa", per_class=5), overlap=1)
    assert facts_of(found)[0].startswith("20 of the target's 40 classes were attacked, with 1 to 5 pictures of each;")
    assert facts_of(found)[-1] == "1 public picture was left out, being private too."
    assert ", with 1 picture of each;" in facts_of(inversion(rebuilt(per_class=1)))[0]


def test_audits_without_questions_have_no_section() -> None:
    assert sections(["a", "b"], [None, inversion()])[0].name == "b"
    assert markdown_blocks(["a"], [None]) == []
    assert 'id="weights"' not in report.to_html([audit()])
    assert "What the weights show" not in report.to_markdown([audit()])


def test_an_audit_of_the_weights_shows_nothing_of_features() -> None:
    shown = [weighed(), weighed(inversion(rebuilt("kedmi", 0.1), rebuilt()), "Freeze(depth=26)", accuracy=0.95)]
    page, text = Page(report.to_html(shown)), report.to_markdown(shown)
    for where in (page.text, text):
        for absent in ("MSE", "Every attack", "certified", "Shape of its features", "Head ", "not asked"):
            assert absent not in where, absent
        for expected in ("Hardening lowers the accuracy of attacks on the weights", "iterations = 300", "StyleGAN priors"):
            assert expected in where, expected
    assert "when the scored classes are drawn again" in page.text
    assert {"#weights"} <= {str(link["href"]) for link in page.all("a")}
    assert text.startswith("# What the weights give away\n")


def test_an_audit_of_everything_shows_everything() -> None:
    page = Page(report.to_html([audit(membership=membership(), inversion=inversion())]))
    assert "<h1>What the features, the predictions and the weights give away</h1>" in report.to_html(
        [audit(membership=membership(), inversion=inversion())]
    )
    for expected in ("Picture by picture", "Who was trained on", "What the weights show of the classes", "False positive"):
        assert expected in page.text, expected
    assert len(page.all("caption")) == len(page.all("table"))


def test_the_record_of_an_audit_is_saved_with_its_gallery(tmp_path: Path) -> None:
    path = report.save([weighed()], tmp_path / "audit.json")
    (read,) = report.load(path)
    assert read.inversion is not None
    assert_same_gallery(read.inversion, inversion())
    assert json.loads(path.read_text(encoding="utf-8"))["inversion"]["surface"] == "weights"
